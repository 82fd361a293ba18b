"""A timm network as a torch.fx graph with every BatchNorm folded into the convolution in front of it."""

from __future__ import annotations

import copy
import traceback
from pathlib import Path
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval

from octc.core.errors import OctcError

HINT = "choose a convolutional student (octc list models)"
TORCH = str(Path(torch.__file__).parent)
PLAIN = (nn.Conv2d, Conv2dSame)
SMALLEST = 64  # pixels; below this the last stages shrink to 1 x 1 and could not be told from squeeze-excite


class _Tracer(fx.Tracer):
    """Convolutions and norms of timm (Conv2dSame pads by the input's size, BatchNormAct2d carries an activation) stay whole."""

    def __init__(self, whole: tuple[type[nn.Module], ...] = ()) -> None:
        super().__init__()
        self._whole = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, *whole)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._whole) or super().is_leaf_module(m, module_qualified_name)


def trace_folded(model: nn.Module, size: int, whole: tuple[type[nn.Module], ...] = ()) -> fx.GraphModule:
    """A folded copy of `model` in eval mode; every node carries its shape in `meta["tensor_meta"]`.

    whole: types of modules that are not traced into.

    w' = w * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta, per output channel.

    Raises:
        OctcError: E404 when the network cannot be traced or run at that size, a BatchNorm does not follow a convolution of
            its own, or a convolution makes its weight itself.
    """
    plain = copy.deepcopy(model).cpu().eval()
    tracer = _Tracer(whole)
    try:
        graph = tracer.trace(plain)
    except (fx.proxy.TraceError, TypeError, RuntimeError, ValueError, AttributeError) as error:
        raise _untraceable(model, tracer, error) from error
    module = fx.GraphModule(tracer.root, graph)
    modules = dict(module.named_modules())
    for name, conv in modules.items():
        if isinstance(conv, nn.Conv2d) and type(conv) not in PLAIN:  # weight standardisation: the weight is not what is used
            text = f"convolution {name} is a {type(conv).__name__}, which makes its weight anew at every step"
            raise OctcError("OCT-E404", text, hint=HINT, place=name)
    for node in list(module.graph.nodes):
        norm = modules.get(node.target) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        source = node.args[0]
        conv = modules.get(source.target) if isinstance(source, fx.Node) and source.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d) or len(source.users) != 1:
            text = f"BatchNorm {node.target} does not follow a convolution of its own"
            raise OctcError("OCT-E404", text, hint=HINT, place=str(node.target))
        _replace(module, source.target, fuse_conv_bn_eval(conv, norm))
        activation = getattr(norm, "act", None)
        _replace(module, node.target, nn.Identity() if activation is None else activation)
    for node in list(module.graph.nodes):
        if node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), (nn.Identity, nn.Dropout)):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.delete_all_unused_submodules()
    module.recompile()
    side = max(size, SMALLEST)
    image = torch.zeros(1, 3, side, side, dtype=next(module.parameters()).dtype)
    try:
        with torch.no_grad():
            fx.Interpreter(module).run(image)  # by itself: ShapeProp prints what goes wrong
            ShapeProp(module).propagate(image)
    except RuntimeError as error:
        text = f"{type(model).__name__} does not run at {side} px: {str(error).splitlines()[0]}"
        raise OctcError("OCT-E404", text, hint=f"another size, or {HINT}") from error
    return module


def _untraceable(model: nn.Module, tracer: fx.Tracer, error: Exception) -> OctcError:
    """Which module it was, and at which line of whose source."""
    inside = list(tracer.module_stack.values())  # an error leaves on it where tracing was
    name, kind = (inside[-1][0], inside[-1][1].__name__) if inside else ("", type(model).__name__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(TORCH)]
    outside = [frame for frame in frames if frame.filename != __file__]
    at = f", {Path(outside[-1].filename).name}:{outside[-1].lineno}: {outside[-1].line}" if outside else ""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    text = f"{type(model).__name__} cannot be traced at {name or 'its forward'} ({kind}{at}): {reason}"
    hint = f"keep it whole: octc.quantize(..., options=octc.QuantizeOptions(whole=[{kind}])); or {HINT}" if inside else HINT
    return OctcError("OCT-E404", text, hint=hint, place=name or None)


def _replace(module: nn.Module, path: Any, new: nn.Module) -> None:
    parent, _, name = str(path).rpartition(".")
    setattr(module.get_submodule(parent), name, new)


def set_module(module: nn.Module, path: str, new: nn.Module) -> None:
    """Put `new` where `path` points."""
    _replace(module, path, new)
