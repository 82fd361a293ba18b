"""Trace a network with torch.fx and fold every BatchNorm into the convolution in front of it, or into a scale and shift."""

from __future__ import annotations

import copy
import operator
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval

from octc.compress import shapes
from octc.compress.attention import TRANSFORMERS, attention_of, layers_alone
from octc.compress.shapes import BATCHES, WHOLE, ShapeTracer, factories_traced
from octc.core.errors import OctcError, first_line, shorten

HINT = (
    "choose a convolutional student (octc list models); a network of yours goes as ONNX: torch.onnx.export, octc import FILE "
    "--data DIR, octc export --int8 --target onnx --ptq onnxruntime"
)
TORCH = str(Path(torch.__file__).parent)
OWN = (__file__, shapes.__file__)
PLAIN = (nn.Conv2d, Conv2dSame)
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNormAct2d)
PASSING = (nn.Identity, nn.Dropout)
SMALLEST = 64  # pixels; below this the last stages shrink to 1 x 1 and could not be told from squeeze-excite
APART: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    torch.relu_: torch.relu,
}
AS_RESHAPE = {"view": "reshape", "view_as": "reshape_as"}
# whether attention of torch is traced into (its masks may be asked for their values), and whether buffers are symbols as
# weights are (a torch.Tensor's own method takes no symbol, `self.token.expand(len(x), -1, -1)`)
WAYS = ((True, False), (True, True), (False, False))
NEAR = 1e-3  # of the largest logit, that folding may move one by; it moves them by a thousandth of this


class ChannelAffine(nn.Module):
    """A BatchNorm in eval mode as x * scale + shift per channel; [N, C, H, W] -> [N, C, H, W]."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        mean, variance = norm.running_mean.detach(), norm.running_var.detach()
        gain = torch.ones_like(mean) if norm.weight is None else norm.weight.detach()
        shift = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach()
        scale = gain / torch.sqrt(variance + norm.eps)
        self.register_buffer("scale", scale.view(1, -1, 1, 1).clone())
        self.register_buffer("shift", (shift - mean * scale).view(1, -1, 1, 1).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.shift


def calls_module(module: fx.GraphModule, node: fx.Node, kinds: Any) -> bool:
    """Whether a node calls a module of one of these kinds."""
    return node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), kinds)


def computes_as(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module is of one of these kinds and computes what they do: no forward of its own, no hooks."""
    hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
    return isinstance(module, kinds) and not hooks and any(type(module).forward is kind.forward for kind in kinds)


class _Tracer(ShapeTracer):
    """A tracer that does not enter timm's convolutions and norms (Conv2dSame pads by input size, BatchNormAct2d holds an
    activation)."""

    def __init__(self, size: int, whole: tuple[type[nn.Module], ...] = ()) -> None:
        super().__init__(size)
        self._whole = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, *whole)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """The image is the only input: every other argument of a forward (`labels=None`, `*args`) has its default."""

        def of_the_image(root: nn.Module, x: Any) -> Any:
            own = vars(root).get("forward")  # set on the network itself, not by its class
            return root_fn(root, x) if own is None else own(x)

        return super().create_args_for_root(of_the_image, is_module, concrete_args)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        foreign = type(m).__module__.partition(".")[0] in WHOLE
        if foreign or isinstance(m, self._whole):
            return True
        return not computes_as(m, TRANSFORMERS) and super().is_leaf_module(m, module_qualified_name)


def trace_folded(model: nn.Module, size: int, whole: tuple[type[nn.Module], ...] = ()) -> fx.GraphModule:
    """A folded copy of `model` in eval mode; every node carries its shape in `meta["tensor_meta"]`.

    A branch, loop or assertion on shapes is what it is at this size. whole: types of modules that are not traced into.

    w' = w * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta, per output channel. A BatchNorm that no
    convolution of its own stands in front of (pre-activation, a convolution that is called twice) becomes a `ChannelAffine`.

    Raises:
        OctcError: E404 when the network cannot be traced or run at that size, a convolution makes its weight itself, a
            BatchNorm has no statistics, or the graph gives other logits than the network.
    """
    plain = copy.deepcopy(model).cpu().eval()
    module, specialised = _traced(model, plain, size, whole)
    modules = dict(module.named_modules())
    for name, conv in modules.items():
        if isinstance(conv, nn.Conv2d) and type(conv) not in PLAIN and not isinstance(conv, whole):
            kind = type(conv).__name__
            text = f"convolution {name} is a {kind}, which computes otherwise than nn.Conv2d"
            raise OctcError("OCT-E404", text, hint=f"keep it whole: {_kept(kind)}; or {HINT}", place=name)
    _positional(module, modules)
    _out_of_place(module)
    _of_any_order(module)
    _fold(module, dict(module.named_modules()))
    for node in list(module.graph.nodes):
        if node.op == "call_module" and computes_as(module.get_submodule(str(node.target)), PASSING):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.delete_all_unused_submodules()
    module.recompile()
    give_shapes(model, module, size)
    check_same(plain, module, size, BATCHES if specialised else (2,))
    return module


def _traced(model: nn.Module, plain: nn.Module, size: int, whole: tuple[type[nn.Module], ...]) -> tuple[fx.GraphModule, bool]:
    """The graph, and whether it is of this size alone: by the first of several ways of tracing that is one.

    Raises:
        OctcError: E404, why the first of them is none.
    """
    faults = []
    for enter, buffers in WAYS:
        kept = whole if enter else (*whole, nn.MultiheadAttention, *TRANSFORMERS)
        tracer = _Tracer(size, kept)
        tracer.proxy_buffer_attributes = buffers
        try:
            with _scripts_inlined(), factories_traced(), layers_alone(masks=enter):
                graph = tracer.trace(_entered(plain, kept))
            return fx.GraphModule(tracer.root, graph), tracer.specialised
        except Exception as error:  # whatever a network's own code raises when it meets a symbol in place of a tensor
            faults.append((tracer, error))
    raise _untraceable(model, *faults[0]) from faults[0][1]


def _entered(plain: nn.Module, whole: tuple[type[nn.Module], ...]) -> nn.Module:
    """A network whose attention is made of layers; the network itself where there is none to enter."""
    found = {
        name: made
        for name, part in plain.named_modules()
        if computes_as(part, (nn.MultiheadAttention,)) and not isinstance(part, whole)
        if (made := attention_of(part)) is not None
    }
    entered = copy.deepcopy(plain) if found else plain
    for name, made in found.items():
        set_module(entered, name, made)
    return entered


@contextmanager
def _scripts_inlined() -> Iterator[None]:
    """A function below @torch.jit.script is meanwhile the Python that it was made of: TorchScript takes no symbols."""
    kind: Any = torch.jit.ScriptFunction
    before = kind.__call__

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        python = getattr(function, "_torchdynamo_inline", None)  # where torch keeps it, for torch.compile
        return before(function, *args, **kwargs) if python is None else python(*args, **kwargs)

    kind.__call__ = call
    try:
        yield
    finally:
        kind.__call__ = before


def _positional(module: fx.GraphModule, modules: dict[str, nn.Module]) -> None:
    """Turn keyword inputs of convolutions and norms into positional ones."""
    for node in module.graph.nodes:
        if node.op == "call_module" and isinstance(modules.get(str(node.target)), (nn.Conv2d, *NORMS)) and not node.args:
            node.args, node.kwargs = tuple(node.kwargs.values()), {}


def _out_of_place(module: fx.GraphModule) -> None:
    """Make in-place operators explicit: later readers of an overwritten tensor read the operator's result."""
    order = {node: place for place, node in enumerate(module.graph.nodes)}
    for node in list(module.graph.nodes):
        if not _writes_over(module, node) or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        later = [user for user in node.args[0].users if order[user] > order[node]]
        if len(node.args[0].users) == 1:
            continue
        for user in later:
            user.replace_input_with(node.args[0], node)
        if node.op == "call_module":
            name = f"apart_{node.name}"
            module.add_submodule(name, copy.deepcopy(module.get_submodule(str(node.target))))
            vars(module.get_submodule(name))["inplace"] = False
            node.target = name
        elif node.op == "call_method":
            node.target = str(node.target)[:-1]
        else:
            node.kwargs = {key: value for key, value in node.kwargs.items() if key != "inplace"}
            node.target = APART.get(node.target, node.target)


def _of_any_order(module: fx.GraphModule) -> None:
    """`view` becomes `reshape`: octc computes with channels last, where a view of several axes may not be had."""
    for node in module.graph.nodes:
        of_a_type = any(isinstance(one, torch.dtype) for one in (*node.args, *node.kwargs.values()))
        if node.op == "call_method" and node.target in AS_RESHAPE and not of_a_type:
            node.target = AS_RESHAPE[node.target]


def _writes_over(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(vars(module.get_submodule(str(node.target))).get("inplace"))
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__") and hasattr(torch.Tensor, name[:-1])
    return node.op == "call_function" and (node.target in APART or bool(node.kwargs.get("inplace")))


def _fold(module: fx.GraphModule, modules: dict[str, nn.Module]) -> None:
    """Fold each norm into the convolution that only it reads; other norms become a scale and shift."""
    calls: dict[str, list[fx.Node]] = {}
    for node in module.graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    for name, nodes in calls.items():
        norm: Any = modules[name]
        if not computes_as(norm, NORMS):
            continue
        if norm.running_mean is None or norm.running_var is None:
            text = f"BatchNorm {name} keeps no statistics: what it answers depends on the other images of a batch"
            raise OctcError("OCT-E404", text, hint="train it with track_running_stats=True", place=name)
        activation = getattr(norm, "act", None) or nn.Identity()
        sources = {_own_convolution(node, calls, modules) for node in nodes}
        if None in sources:
            for node in nodes:
                _as_affine(module, node, norm, activation)
            continue
        for source in sources:
            _replace(module, source, fuse_conv_bn_eval(modules[str(source)], norm))  # type: ignore[type-var]
        _replace(module, name, activation)


def _own_convolution(node: fx.Node, calls: dict[str, list[fx.Node]], modules: dict[str, nn.Module]) -> str | None:
    """The convolution whose output only this norm reads, or None."""
    source = node.args[0]
    if not isinstance(source, fx.Node) or source.op != "call_module" or not computes_as(modules[str(source.target)], PLAIN):
        return None
    readers = [list(call.users) for call in calls[str(source.target)]]
    alone = all(len(found) == 1 and found[0].op == "call_module" and found[0].target == node.target for found in readers)
    return str(source.target) if alone else None


def _as_affine(module: fx.GraphModule, node: fx.Node, norm: nn.Module, activation: nn.Module) -> None:
    """One call of a norm becomes a scale and a shift, and its activation."""
    name = f"affine_{node.name}"
    module.add_submodule(name, ChannelAffine(norm))
    module.add_submodule(f"{name}_act", activation)
    with module.graph.inserting_before(node):
        scaled = module.graph.call_module(name, (node.args[0],))
        active = module.graph.call_module(f"{name}_act", (scaled,))
    node.replace_all_uses_with(active)
    module.graph.erase_node(node)


def interpreted(interpreter: fx.Interpreter, *inputs: Any) -> Any:
    """What `interpreter.run` gives, without its progress bar. That is a tqdm also where nothing is shown: it makes a lock of
    multiprocessing, after which a caller (a notebook) cannot choose how processes are started, and a thread."""
    interpreter.env, interpreter.args_iter = {}, iter(inputs)
    for node in interpreter.graph.nodes:
        interpreter.env[node] = interpreter.run_node(node)
        if node.op == "output":
            return interpreter.env[node]
        if interpreter.garbage_collect_values:
            for dead in interpreter.user_to_last_uses.get(node, ()):
                del interpreter.env[dead]
    return None


def give_shapes(model: nn.Module, module: fx.GraphModule, size: int) -> None:
    """Give every node its shape, at no less than `SMALLEST` pixels where the network takes them."""
    weights = next(module.parameters(), torch.zeros(()))
    reason = Exception()
    for side in sorted({size, max(size, SMALLEST)}, reverse=True):
        image = torch.zeros(1, 3, side, side, dtype=weights.dtype)
        try:
            with torch.no_grad():
                interpreted(fx.Interpreter(module), image)  # by itself: ShapeProp prints what goes wrong
                interpreted(ShapeProp(module), image)
            return
        except Exception as error:  # whatever operators raise
            reason = error
    text = f"{type(model).__name__} does not run at {size} px: {first_line(reason, 300)}"
    raise OctcError("OCT-E404", text, hint=f"another size, or {HINT}") from reason


def check_same(plain: nn.Module, module: nn.Module, size: int, counts: Sequence[int] = (2,)) -> None:
    """Refuse a graph whose logits differ from those of the original network (E404).

    A trace keeps what Python did once: branches, random numbers, what hooks and modules of other kinds add to a layer.
    counts: images in the batches that are compared.
    """
    for count in counts:
        _check_batch(plain, module, size, count)


def _check_batch(plain: nn.Module, module: nn.Module, size: int, count: int) -> None:
    weights = next(plain.parameters(), torch.zeros(()))
    images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0)).to(weights)
    try:
        with torch.no_grad():
            first, second, found = plain(images), plain(images), module(images)
    except Exception as error:  # whatever a network of others raises
        text = (
            f"{type(plain).__name__} does not run on {count} images of {size} px: {first_line(error, 300)}{_hooked(plain)[1]}"
        )
        raise OctcError("OCT-E404", text, hint=f"compute each image by itself, whatever their number; or {HINT}") from error
    if not all(isinstance(one, torch.Tensor) for one in (first, second, found)):
        return
    limit = NEAR * float(first.abs().max())
    if not _within(first, second, limit):
        text = f"{type(plain).__name__} gives other logits for the same image at every call"
        raise OctcError("OCT-E404", text, hint="leave out what draws random numbers in eval mode (dropout, noise)")
    if not _within(first, found, limit) and not _same_in_double(plain, module, images):
        hooked, because = _hooked(plain)
        text = f"the traced {type(plain).__name__} gives other logits than the network{because}"
        hint = "write what changes them into a module's forward, or keep that module whole (QuantizeOptions(whole=[...]))"
        raise OctcError("OCT-E404", text, hint=hint, place=hooked[0] if hooked else None)


def _same_in_double(plain: nn.Module, module: nn.Module, images: torch.Tensor) -> bool:
    """Whether two networks that differ do so by rounding alone: signals of random weights may vanish below it."""
    try:
        with torch.no_grad():
            one, other = (copy.deepcopy(net).double()(images.double()) for net in (plain, module))
    except Exception:  # whatever a network of others raises at numbers of another type
        return False
    return _within(one, other, NEAR * float(one.abs().max()))


def _hooked(plain: nn.Module) -> tuple[list[str], str]:
    """Modules with hooks, and a sentence about them."""
    hooked = [n or "the network" for n, m in plain.named_modules() if m._forward_hooks or m._forward_pre_hooks]
    return hooked, f"; hooks that change what a layer gives: {shorten(hooked, 3)}" if hooked else ""


def _within(one: torch.Tensor, other: torch.Tensor, limit: float) -> bool:
    same = torch.isfinite(one) == torch.isfinite(other)
    return one.shape == other.shape and bool(same.all()) and not bool(((one - other).abs() > limit).any())


def _untraceable(model: nn.Module, tracer: fx.Tracer, error: Exception) -> OctcError:
    """Which module it was, and at which line of whose source."""
    inside = list(tracer.module_stack.values())  # an error leaves on it where tracing was
    name, kind = (inside[-1][0], inside[-1][1].__name__) if inside else ("", type(model).__name__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(TORCH)]
    outside = [frame for frame in frames if frame.filename not in OWN]
    at = f", {Path(outside[-1].filename).name}:{outside[-1].lineno}: {outside[-1].line}" if outside else ""
    reason = first_line(error, 300)
    text = f"{type(model).__name__} cannot be traced at {name or 'its forward'} ({kind}{at}): {reason}"
    hint = f"keep it whole: {_kept(kind)}; or {HINT}" if inside else HINT
    return OctcError("OCT-E404", text, hint=hint, place=name or None)


def _kept(kind: str) -> str:
    return f"octc.quantize(..., options=octc.QuantizeOptions(whole=[{kind}]))"


def _replace(module: nn.Module, path: Any, new: nn.Module) -> None:
    parent, _, name = str(path).rpartition(".")
    setattr(module.get_submodule(parent), name, new)


def set_module(module: nn.Module, path: str, new: nn.Module) -> None:
    """Replace the submodule at `path` by `new`."""
    _replace(module, path, new)
