"""Where the quantisers stand: rules on the traced graph, not on class names.

* Every convolution that works on a map larger than 1 x 1 is quantised. What works on 1 x 1 is squeeze-excite or a head: float.
* One quantiser a *tensor*: all quantised convolutions that read it, and the additions that read it (the shortcut), share it.
* Nothing between a convolution and its activation, nothing on biases, logits or a gate.
* "residual" quantisers stand on convolution outputs that go into an addition. onnxruntime needs them to keep the addition in
  INT8; OpenVINO and TensorRT fuse that side and get the graph without them.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from octc.compress.fake_quant import ActivationQuantiser, QuantConv2d
from octc.compress.trace import HINT, set_module, trace_folded
from octc.core.errors import OctcError

ADDITIONS = (operator.add, operator.iadd, torch.add)


def prepare(model: nn.Module, size: int, whole: tuple[type[nn.Module], ...] = ()) -> fx.GraphModule:
    """Trace, fold and insert quantisers (all off). Input: normalised float [N, 3, H, W]; output: logits.

    The state_dict of the result loads into `prepare(build_model(...), size)` again.

    whole: types of modules that are not traced into and stay in float.

    Raises:
        OctcError: E404 when the network cannot be traced, or no convolution could be quantised.
    """
    module = trace_folded(model, size, whole)
    convs = [node for node in module.graph.nodes if _is_spatial_conv(module, node)]
    if not convs:
        raise OctcError("OCT-E404", "no convolution to quantise", hint=HINT)
    for node in convs:
        conv = module.get_submodule(str(node.target))
        if not isinstance(conv, QuantConv2d):
            set_module(module, str(node.target), QuantConv2d(conv))  # type: ignore[arg-type]
    _quantise_inputs(module, convs)
    _quantise_residuals(module, convs)
    try:
        module.graph.lint()
    except RuntimeError as error:  # the network looks into a convolution that is wrapped now
        text = f"{type(model).__name__} cannot be quantised: {str(error).splitlines()[0]}"
        raise OctcError("OCT-E404", text, hint=HINT) from error
    module.recompile()
    return module


def _quantise_inputs(module: fx.GraphModule, convs: list[fx.Node]) -> None:
    """One quantiser behind whatever feeds convolutions, for them and for the additions that it feeds too."""
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


def _is_addition(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target in ADDITIONS


def _is_spatial_conv(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module" or not isinstance(module.get_submodule(str(node.target)), nn.Conv2d):
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
    """The activation quantisers by name."""
    found = {name: m for name, m in module.named_modules() if isinstance(m, ActivationQuantiser)}
    return {name: m for name, m in found.items() if kind is None or m.kind == kind}


def convolutions(module: nn.Module) -> dict[str, QuantConv2d]:
    """The quantised convolutions by name."""
    return {name: m for name, m in module.named_modules() if isinstance(m, QuantConv2d)}


def set_mode(module: nn.Module, mode: str, *, residual: bool = True) -> None:
    """Switch every quantiser ("off", "range", "histogram", "on"); with `residual` False the residual ones stay off."""
    for quantiser in quantisers(module).values():
        quantiser.mode = mode if residual or quantiser.kind == "input" else "off"
    for conv in convolutions(module).values():
        conv.enabled = mode == "on"


def counts(module: fx.GraphModule) -> dict[str, int]:
    """How many of what the placement made: quantised and float convolutions, quantisers by kind."""
    floats = sum(isinstance(m, nn.Conv2d) for m in module.modules()) - len(convolutions(module))
    return {
        "int8_convolutions": len(convolutions(module)),
        "float_convolutions": floats,
        "input_quantisers": len(quantisers(module, "input")),
        "residual_quantisers": len(quantisers(module, "residual")),
    }
