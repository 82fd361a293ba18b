"""Static checks of a Q/DQ graph: what an engine would reject, mis-scale or run in float without a word. onnx and numpy only.

A floor, not all of it: the rules here guard what octc itself writes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from octc.errors import OctcError, shorten

ACTIVATIONS = {
    "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Sigmoid", "Softplus", "Swish",
    "Tanh",
}  # fmt: skip
DECIDERS = {"Sigmoid", "Softmax", "HardSigmoid", "LogSoftmax"}
INTEGER = {"QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}


@dataclass(frozen=True)
class Finding:
    """One violation. code: of octc/codes.py. rule: short name. node: the node's name in the file."""

    code: str
    rule: str
    node: str
    message: str


@dataclass
class _Graph:
    """A graph with its wires: who makes a tensor, who reads it, constants, and shapes where they are known."""

    proto: onnx.ModelProto
    made: dict[str, Any] = field(default_factory=dict)
    read: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    constants: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, tuple[int | None, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.proto.graph
        self.constants = {t.name: t for t in graph.initializer}
        for node in graph.node:
            for name in node.output:
                self.made[name] = node
            for name in node.input:
                self.read[name].append(node)
            if node.op_type == "Constant":
                self.constants.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
        try:
            inferred = shape_inference.infer_shapes(self.proto).graph
        except (shape_inference.InferenceError, ValueError, RuntimeError):
            inferred = graph  # a broken graph is still linted, without the rules that need shapes
        for value in (*inferred.value_info, *inferred.input, *inferred.output):
            dims = value.type.tensor_type.shape.dim
            self.shapes[value.name] = tuple(d.dim_value or None for d in dims)

    def array(self, name: str) -> Any:
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def of(self, *kinds: str) -> Iterator[Any]:
        return (node for node in self.proto.graph.node if node.op_type in kinds)

    def maker(self, name: str) -> str:
        return self.made[name].op_type if name in self.made else ""


def lint(proto: onnx.ModelProto, target: str) -> list[Finding]:
    """All findings for a target ("tensorrt" also refuses every zero-point other than 0)."""
    graph = _Graph(proto)
    rules = RULES + (TENSORRT if target == "tensorrt" else ())
    return [finding for rule in rules for finding in rule(graph)]


def require_clean(proto: onnx.ModelProto, target: str, floats: frozenset[str] = frozenset()) -> dict[str, int]:
    """Raise on the first kind of finding; count what is quantised.

    Args:
        floats: convolutions (by their name in the network) that were left in float on purpose.

    Raises:
        OctcError: E403 a zero-point other than 0, E404 Q/DQ misplaced or missing; nodes are named.
    """
    allowed = [name.replace(".", "_") for name in floats]
    found = [f for f in lint(proto, target) if f.rule != "float convolution" or not _named(proto, f.node, allowed)]
    if found:
        same = [f for f in found if f.code == found[0].code]
        text = f"{len(same)} findings for {target}: {shorten([f'{f.node}: {f.message}' for f in same], 5)}"
        raise OctcError(found[0].code, text, mend="octc export again with this version; report the model", place=same[0].node)
    return counts(proto)


def counts(proto: onnx.ModelProto) -> dict[str, int]:
    """Convolutions in INT8 (both inputs from a DequantizeLinear) and in float, and the Q and DQ nodes."""
    graph = _Graph(proto)
    convs = list(graph.of("Conv"))
    int8 = sum(all(graph.maker(name) == "DequantizeLinear" for name in conv.input[:2]) for conv in convs)
    return {
        "int8_convolutions": int8, "float_convolutions": len(convs) - int8,
        "quantize_nodes": len(list(graph.of("QuantizeLinear"))), "dequantize_nodes": len(list(graph.of("DequantizeLinear"))),
    }  # fmt: skip


def _named(proto: onnx.ModelProto, node: str, allowed: list[str]) -> bool:
    weights = [name for n in proto.graph.node if n.name == node for name in n.input[1:2]]
    return any(name.replace(".", "_").endswith(f"{one}_conv_weight") for name in weights for one in allowed)


def _zero_points(graph: _Graph) -> Iterator[Finding]:
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        zero = graph.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if zero is not None and np.any(zero != 0):
            yield Finding(
                "OCT-E403", "zero-point", node.name, f"zero-point {int(zero.ravel()[np.flatnonzero(zero.ravel())[0]])}"
            )


def _scales(graph: _Graph) -> Iterator[Finding]:
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        scale = graph.array(node.input[1])
        if scale is None:
            yield Finding("OCT-E404", "scale", node.name, "scale is computed at run time")
        elif not (np.isfinite(scale).all() and (scale > 0).all()):
            yield Finding("OCT-E404", "scale", node.name, "scale is not finite and positive")


def _integer(graph: _Graph) -> Iterator[Finding]:
    for node in graph.proto.graph.node:
        if node.op_type in INTEGER or node.domain == "com.microsoft":
            yield Finding("OCT-E404", "operator", node.name, f"{node.op_type} is not portable")
        first = graph.constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if first is not None and first.data_type == onnx.TensorProto.INT32:
            yield Finding("OCT-E404", "bias", node.name, "quantised bias")


def _convolutions(graph: _Graph) -> Iterator[Finding]:
    for conv in graph.of("Conv"):
        quantised = [graph.maker(name) == "DequantizeLinear" for name in conv.input[:2]]
        if quantised[0] != quantised[1]:
            side = "activation" if quantised[0] else "weight"
            yield Finding("OCT-E404", "one-sided", conv.name, f"only the {side} is quantised: runs in float")
        elif not quantised[0] and graph.shapes.get(conv.input[0], ())[2:] != (1, 1):
            yield Finding("OCT-E404", "float convolution", conv.name, "convolution without Q/DQ")
        elif quantised[1]:
            weight = graph.made[conv.input[1]]
            axis = next((a.i for a in weight.attribute if a.name == "axis"), 1)
            scale = graph.array(weight.input[1])
            if scale is not None and scale.size > 1 and axis != 0:
                yield Finding("OCT-E404", "axis", weight.name, f"weight scales on axis {axis}, not on the output channels")


def _between(graph: _Graph) -> Iterator[Finding]:
    """Q between a convolution and its activation, and anywhere inside a SiLU (x and sigmoid(x) on their way to the product)."""
    for node in graph.of("QuantizeLinear"):
        users = [user for dq in graph.read[node.output[0]] for name in dq.output for user in graph.read[name]]
        behind = graph.maker(node.input[0])
        if behind == "Conv" and any(user.op_type in ACTIVATIONS for user in users):
            yield Finding("OCT-E404", "between", node.name, "Q between a convolution and its activation")
        elif any(user.op_type in DECIDERS for user in users):
            yield Finding("OCT-E404", "decider", node.name, "quantised input of a Sigmoid or Softmax")
        elif behind == "Sigmoid" or _feeds_silu(graph, node, users):
            yield Finding("OCT-E404", "SiLU", node.name, "Q inside a SiLU")


def _feeds_silu(graph: _Graph, node: Any, users: list[Any]) -> bool:
    gates = {out for user in graph.read[node.input[0]] if user.op_type == "Sigmoid" for out in user.output}
    return any(user.op_type == "Mul" and gates & set(user.input) for user in users)


def _outputs(graph: _Graph) -> Iterator[Finding]:
    for value in graph.proto.graph.output:
        if graph.maker(value.name) == "DequantizeLinear":
            yield Finding("OCT-E404", "logits", graph.made[value.name].name, "quantised logits")


Rule = Callable[[_Graph], Iterator[Finding]]
RULES: tuple[Rule, ...] = (_scales, _integer, _convolutions, _between, _outputs)
TENSORRT: tuple[Rule, ...] = (_zero_points,)
