"""Where quantisers are inserted: rules on the traced graph, not on class names.

* Every convolution on a map larger than 1 x 1 is quantised. Convolutions on 1 x 1 (squeeze-excite, heads) stay in float, and so
  do those of what no image decides (positions): engines compute them once, and OpenVINO cannot compile them in INT8.
* One quantiser per *tensor*, shared by all quantised convolutions and additions (shortcuts) that read the tensor.
* No quantiser between a convolution and its activation, and none on biases, logits or gates.
* "residual" quantisers follow convolution outputs that go into an addition. onnxruntime needs them to keep the addition in
  INT8; OpenVINO and TensorRT fuse that side and get the graph without them.

These are the rules of the placement "engines". The placement "xnnpack" is for LiteRT, whose kernels read and write INT8 codes:
a quantiser follows every operator up to the last map (a rectifier counts as part of the operator in front of it), SiLU becomes
a product with a gate on the engine's own grid, squeeze-excite is INT8, and weights have 8 bits. As in a LiteRT file, codes
start at a tensor's lowest value where that is known (behind a rectifier or SiLU) or matters (in front of SiLU):
`octc.compress.lowest`.

The placement "acl" is for OpenVINO on Arm, whose INT8 kernels (Arm Compute Library) read and write codes: the rules of
"engines", and a quantiser behind every dense convolution that has none yet, shared by everything that reads its result.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from timm.layers.activations import Sigmoid, Swish
from torch import fx, nn
from torch.nn import functional

from octc.compress.fake_quant import WIDEST, WIDEST_OF_8_BITS, ActivationQuantiser, GateQuantiser, OnGrid, QuantConv2d
from octc.compress.linear import as_convolutions
from octc.compress.lowest import PRODUCTS, SIGMOID_CALLS, is_one, set_lowest
from octc.compress.shapes import of_the_image
from octc.compress.trace import (
    HINT,
    PLAIN,
    ChannelAffine,
    calls_module,
    check_same,
    computes_as,
    give_shapes,
    set_module,
    trace_folded,
)
from octc.core.errors import OctcError, first_line
from octc.train.networks.macs import count_macs

ADDITIONS = (operator.add, operator.iadd, torch.add)
ENGINES, XNNPACK, ACL = "engines", "xnnpack", "acl"
PLACEMENTS = (ENGINES, XNNPACK, ACL)
RECTIFIERS = (nn.ReLU, nn.ReLU6)
RECTIFIER_CALLS = (torch.relu, torch.relu_, functional.relu, functional.relu6)
SILU_CALLS = (functional.silu,)
SIGMOIDS = (nn.Sigmoid, Sigmoid)
SILUS = (nn.SiLU, Swish)
SMOOTH, SMOOTH_CALLS = (*SILUS, nn.Hardswish), (*SILU_CALLS, functional.hardswish)
POOLS = (nn.MaxPool2d,)
MOVES = (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)
MOVE_METHODS = (
    "chunk", "contiguous", "flatten", "flip", "permute", "reshape", "split", "squeeze", "transpose", "unbind", "unflatten",
    "unsqueeze", "view",
)  # fmt: skip
MOVE_CALLS = (
    torch.chunk, torch.flatten, torch.flip, torch.permute, torch.reshape, torch.split, torch.squeeze, torch.transpose,
    torch.unbind, torch.unflatten, torch.unsqueeze, torch.channel_shuffle, functional.pixel_shuffle,
    functional.pixel_unshuffle, operator.getitem,
)  # fmt: skip


def prepare(model: nn.Module, size: int, whole: tuple[type[nn.Module], ...] = (), placement: str = ENGINES) -> fx.GraphModule:
    """Trace, fold and insert quantisers (all off). Input: normalised float [N, 3, H, W]; output: logits.

    The state_dict of the result loads into `prepare(build_model(...), size, placement=...)` again.

    whole: types of modules that are not traced into and stay in float. placement: one of `PLACEMENTS`.

    Raises:
        OctcError: E104 no such placement; E404 when the network cannot be traced, or no convolution could be quantised; E102 it
            has SiLU or hard-swish, and "acl" no place for a quantiser with them.
    """
    if placement not in PLACEMENTS:
        text = f"unknown placement of quantisers {placement!r}"
        raise OctcError("OCT-E104", text, hint=f"one of: {', '.join(PLACEMENTS)}", place="placement")
    module = _traced(model, size, whole)
    moving = of_the_image(module.graph)
    convs = [node for node in module.graph.nodes if node in moving and _is_spatial_conv(module, node)]
    if placement == XNNPACK:
        goals = set(convs)
        convs = [one for one in module.graph.nodes if one in moving and _is_conv(module, one) and _leads_to(one, goals)]
    if not convs:
        raise OctcError("OCT-E404", "no convolution to quantise", hint=HINT)
    _keep_what_is_read(module, {str(node.target) for node in convs})
    for node in convs:
        conv = module.get_submodule(str(node.target))
        if not isinstance(conv, QuantConv2d):
            widest = WIDEST_OF_8_BITS if placement == XNNPACK else WIDEST
            set_module(module, str(node.target), QuantConv2d(conv, widest))  # type: ignore[arg-type]
    if placement == XNNPACK:
        _split_silus(module)
        _quantise_all(module, set(convs), moving)
    else:
        _quantise_inputs(module, convs)
        _quantise_residuals(module, convs)
    if placement == ACL:
        _quantise_results(module, convs)
    module.meta["placement"] = placement
    if placement != ENGINES:  # one engine's: trained on the grid that its file has
        set_lowest(module, rectified=placement == ACL)
    try:
        module.graph.lint()
    except RuntimeError as error:  # the network looks into a convolution that is wrapped now
        text = f"{type(model).__name__} cannot be quantised: {first_line(error)}"
        raise OctcError("OCT-E404", text, hint=HINT) from error
    module.recompile()
    _check_apart(copy.deepcopy(model).cpu().eval(), module, size)
    return module


def _traced(model: nn.Module, size: int, whole: tuple[type[nn.Module], ...]) -> fx.GraphModule:
    """The folded graph, with linear layers of maps and tokens as convolutions."""
    module = trace_folded(model, size, whole)
    if as_convolutions(module, whole):
        give_shapes(model, module, size)
    return module


def _keep_what_is_read(module: fx.GraphModule, convs: set[str]) -> None:
    """Give a network that reads a convolution's weight directly (its dtype, a function of it) a float copy to read."""
    for node in module.graph.nodes:
        owner, _, word = str(node.target).rpartition(".")
        if node.op == "get_attr" and owner in convs:
            name = f"float_{str(node.target).replace('.', '_')}"
            if not hasattr(module, name):
                module.register_buffer(name, getattr(module.get_submodule(owner), word).detach().clone())
            node.target = name


def _check_apart(plain: nn.Module, module: fx.GraphModule, size: int) -> None:
    """Check the logits once more with quantisers that return new tensors, as they do when switched on."""

    def copied(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output.clone()

    handles = [one.register_forward_hook(copied) for one in quantisers(module).values()]
    try:
        check_same(plain, module, size)
    finally:
        for handle in handles:
            handle.remove()


def _quantise_inputs(module: fx.GraphModule, convs: list[fx.Node]) -> None:
    """Insert one quantiser behind each tensor that feeds convolutions, for them and for the additions that read it too."""
    sources: list[Any] = list(dict.fromkeys(node.args[0] for node in convs))
    quantised = {source: _insert(module, source, "input") for source in sources}
    for source, quantiser in quantised.items():
        for user in list(source.users):
            if user in convs or _is_addition(user):
                user.replace_input_with(source, quantiser)


def _quantise_residuals(module: fx.GraphModule, convs: list[fx.Node]) -> None:
    """A quantiser between a convolution and the additions that it feeds."""
    for node in convs:
        if additions := [user for user in node.users if _is_addition(user)]:
            quantiser = _insert(module, node, "residual")
            for user in additions:
                user.replace_input_with(node, quantiser)


def _quantise_results(module: fx.GraphModule, convs: list[fx.Node]) -> None:
    """Insert a quantiser behind every dense convolution (with its rectifier), read by everything that reads the result."""
    for node in convs:
        if not is_dense(module, node):
            continue
        if (other := next((user for user in node.users if is_one(module, user, SMOOTH, SMOOTH_CALLS)), None)) is not None:
            text = f"OpenVINO's INT8 on Arm takes ReLU behind a convolution, and {node.target} goes into {other.name}"
            hint = "octc simplify --activation relu, or --target onnx or litert, which take it there"
            raise OctcError("OCT-E102", text, hint=hint, place=str(node.target))
        followers = list(node.users)
        rectified = len(followers) == 1 and is_one(module, followers[0], RECTIFIERS, RECTIFIER_CALLS)
        end = followers[0] if rectified else node
        known = next((user for user in end.users if is_one(module, user, (ActivationQuantiser,), ())), None)
        if known is None:
            name = f"quant_inner_{end.name}"
            module.add_submodule(name, ActivationQuantiser("inner"))
            _insert_behind(module, end, name)
            continue
        for user in [user for user in end.users if user is not known]:
            user.replace_input_with(end, known)


def is_dense(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a quantised convolution of one group."""
    layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    return isinstance(layer, QuantConv2d) and layer.conv.groups == 1


def _split_silus(module: fx.GraphModule) -> None:
    """Write SiLU as x * sigmoid(x) with a quantised gate; sigmoids that are in the graph already get a quantiser too."""
    for node in list(module.graph.nodes):
        if is_one(module, node, SILUS, SILU_CALLS):
            source: Any = node.args[0]
            with module.graph.inserting_before(node):
                gate = module.graph.call_function(torch.sigmoid, (source,))
                product = module.graph.call_function(operator.mul, (source, gate))
            gate.meta, product.meta = dict(node.meta), dict(node.meta)
            node.replace_all_uses_with(product)
            module.graph.erase_node(node)
    for node in [n for n in module.graph.nodes if is_one(module, n, SIGMOIDS, SIGMOID_CALLS)]:
        name = f"quant_gate_{node.name}"
        module.add_submodule(name, GateQuantiser())
        _insert_behind(module, node, name)
    module.delete_all_unused_submodules()


def _quantise_all(module: fx.GraphModule, convs: set[fx.Node], moving: set[fx.Node]) -> None:
    """Insert a quantiser behind every operator that has an INT8 kernel, or whose result one reads, up to the last map.

    What only moves values on a grid leaves them on it, and has none. What no image decides (not in `moving`) is computed in
    float, once, and has one where it meets what an image decides.
    """
    for node in [n for n in module.graph.nodes if _computes(module, n)]:
        if node not in moving and not any(user in moving for user in node.users):
            continue
        found = node.meta.get("tensor_meta")
        shape = getattr(found, "shape", ())
        if len(shape) != 4 or not (max(shape[2:]) > 1 or _leads_to(node, convs)) or not found.dtype.is_floating_point:
            continue  # a mask of comparisons, or places, stand on no grid
        followers = list(node.users)
        fused = (*RECTIFIERS, *POOLS)
        if len(followers) == 1 and is_one(module, followers[0], fused, RECTIFIER_CALLS):
            continue  # the rectifier is part of this operator, and a pool of maxima takes codes as they are
        if _moves_codes(module, node) or not any(_has_kernel(module, one) for one in (node, *behind_moves(module, node))):
            continue
        if any(user in convs for user in followers):
            kind = "input"
        else:
            kind = "residual" if node in convs and any(_is_addition(user) for user in followers) else "inner"
        name = f"quant_{kind}_{node.name}"
        module.add_submodule(name, ActivationQuantiser(kind))
        _insert_behind(module, node, name)


def _is_move(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node gives values of its first input, and computes none."""
    if node.op == "call_module":
        return computes_as(module.get_submodule(str(node.target)), MOVES)
    known: tuple[Any, ...] = MOVE_METHODS if node.op == "call_method" else MOVE_CALLS
    return node.op in ("call_method", "call_function") and node.target in known


def _moves_codes(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node only moves values that a quantiser has put on its grid."""
    while _is_move(module, node) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
        if calls_module(module, node, OnGrid):
            return True
    return False


def input_path(module: fx.GraphModule, conv: fx.Node) -> list[fx.Node]:
    """From the quantiser of a convolution's input to what the convolution reads: what only moves values stands in between.
    Empty: nothing quantises it."""
    path: list[fx.Node] = []
    node = conv.args[0]
    while isinstance(node, fx.Node):
        path.insert(0, node)
        if calls_module(module, node, ActivationQuantiser):
            return path
        if not _is_move(module, node):
            break
        node = node.args[0]
    return []


def behind_moves(module: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """What computes with a node's result, moved or not."""
    found, waiting = [], list(node.users)
    while waiting:
        user = waiting.pop()
        if _is_move(module, user):
            waiting += list(user.users)
        else:
            found.append(user)
    return found


def _has_kernel(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether LiteRT's file computes a node in INT8 where what it reads is quantised."""
    if _is_addition(node) or (node.op == "call_function" and node.target in PRODUCTS):
        return sum(isinstance(one, fx.Node) and one.op != "get_attr" for one in node.args) > 1
    if node.op == "call_function" and node.target is torch.cat:
        return True
    if node.op in ("call_method", "call_function") and node.target in ("mean", torch.mean, functional.adaptive_avg_pool2d):
        return True
    kinds = (QuantConv2d, *RECTIFIERS, *SIGMOIDS, nn.Hardswish, *POOLS, nn.AdaptiveAvgPool2d, nn.AvgPool2d, ChannelAffine)
    calls = (*RECTIFIER_CALLS, *SIGMOID_CALLS, functional.hardswish, functional.max_pool2d, functional.avg_pool2d)
    return is_one(module, node, kinds, calls) or (node.op == "call_method" and node.target in ("sigmoid", "relu", "relu_"))


def _insert_behind(module: fx.GraphModule, node: fx.Node, name: str) -> None:
    """Insert a module behind a node, between it and all its readers."""
    readers = list(node.users)
    with module.graph.inserting_after(node):
        made = module.graph.call_module(name, (node,))
    made.meta = dict(node.meta)
    for reader in readers:
        reader.replace_input_with(node, made)


def _computes(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node computes values that are not quantised already."""
    return node.op not in ("output", "get_attr") and not is_one(module, node, (GateQuantiser, *SIGMOIDS), SIGMOID_CALLS)


def _is_conv(module: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and type(module.get_submodule(str(node.target))) in PLAIN


def _leads_to(node: fx.Node, goals: set[fx.Node]) -> bool:
    """Whether a node is one of the goals, or something behind it is."""
    seen: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one in goals:
            return True
        waiting += [user for user in one.users if user not in seen]
        seen.update(one.users)
    return False


def _is_addition(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target in ADDITIONS


def _is_spatial_conv(module: fx.GraphModule, node: fx.Node) -> bool:
    if not _is_conv(module, node):
        return False
    source: Any = node.args[0]
    height, width = source.meta["tensor_meta"].shape[2:]
    return bool(height > 1 or width > 1)


def _insert(module: fx.GraphModule, after: fx.Node, kind: str) -> fx.Node:
    name = f"quant_{kind}_{after.name}"
    module.add_submodule(name, ActivationQuantiser(kind))
    with module.graph.inserting_after(after):
        return module.graph.call_module(name, (after,))


def quantisers(module: nn.Module, kind: str | None = None) -> dict[str, ActivationQuantiser]:
    """The activation quantisers of a network, by name; kind: only those of this kind."""
    found = {name: m for name, m in module.named_modules() if isinstance(m, ActivationQuantiser)}
    return {name: m for name, m in found.items() if kind is None or m.kind == kind}


def convolutions(module: nn.Module) -> dict[str, QuantConv2d]:
    """The quantised convolutions of a network, by name."""
    return {name: m for name, m in module.named_modules() if isinstance(m, QuantConv2d)}


def is_quantised_conv(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node calls a quantised convolution."""
    return calls_module(module, node, QuantConv2d)


def placement_of(module: fx.GraphModule) -> str:
    """The placement that `prepare` gave a network."""
    return str(module.meta["placement"])


def set_mode(module: nn.Module, mode: str, *, residual: bool = True) -> None:
    """Switch every quantiser ("off", "range", "histogram", "on"); with `residual` False the residual ones stay off."""
    for quantiser in quantisers(module).values():
        quantiser.mode = mode if residual or quantiser.kind != "residual" else "off"
    for part in module.modules():
        if isinstance(part, GateQuantiser):
            part.mode = "on" if mode == "on" else "off"
    for conv in convolutions(module).values():
        conv.enabled = mode == "on"


def int8_share(module: fx.GraphModule, size: int) -> float:
    """Share of the multiply-accumulates of one [3, size, size] image that quantised convolutions do; the rest is float."""
    macs = 0

    def counted(layer: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal macs
        assert isinstance(layer, QuantConv2d)
        macs += output.numel() * layer.conv.weight[0].numel()

    handles = [conv.register_forward_hook(counted) for conv in convolutions(module).values()]
    try:
        whole = count_macs(module, size)
    finally:
        for handle in handles:
            handle.remove()
    return macs / whole if whole else 0.0


def counts(module: fx.GraphModule) -> dict[str, int]:
    """Number of quantised and float convolutions, and of quantisers by kind."""
    floats = sum(isinstance(m, nn.Conv2d) for m in module.modules()) - len(convolutions(module))
    return {
        "int8_convolutions": len(convolutions(module)),
        "float_convolutions": floats,
        "input_quantisers": len(quantisers(module, "input")),
        "residual_quantisers": len(quantisers(module, "residual")),
        **({"inner_quantisers": count} if (count := len(quantisers(module, "inner"))) else {}),
    }
