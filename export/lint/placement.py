"""Rules on where Q and DQ stand: what TensorRT runs in float without a word, or slowly. Each yields (node, message)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from octc.export.lint.graph import DQ, LAYERS, MOVERS, Graph, Q, attribute
from octc.export.lint.values import Hit

ACTIVATIONS = {
    "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Sigmoid", "Softplus", "Swish",
    "Tanh",
}  # fmt: skip
DECIDERS = {"Sigmoid", "Softmax", "HardSigmoid", "LogSoftmax"}
LEAST = 16  # channels; below it INT8 kernels of classic TensorRT are padded or refused


def one_sided(graph: Graph) -> Iterator[Hit]:
    """Both inputs of a layer must come from Q/DQ, else it runs in float."""
    for node in graph.of("Conv", "Gemm", "MatMul"):
        activation, weight = sides(graph, node)
        if activation != weight:
            yield node, f"only the {'activation' if activation else 'weight'} is quantised: runs in float"


def sides(graph: Graph, node: Any) -> tuple[bool, bool]:
    """Whether activation and weight of a layer are quantised."""
    first, second = (*node.input, "", "")[:2]
    weight = graph.dq_of(second) is not None if second not in graph.constants else False
    return graph.quantised(first), weight or graph.quantised(second)


def wrong_axis(graph: Graph) -> Iterator[Hit]:
    """Scales of a weight belong to output channels: axis 0 of Conv, 0 of Gemm with transB, else the last one."""
    for node in graph.of("Conv", "Gemm", "MatMul"):
        dq = graph.made.get(node.input[1]) if len(node.input) > 1 else None
        if dq is None or dq.op_type != DQ or len(dq.input) < 2:
            continue
        scale, shape = graph.array(dq.input[1]), graph.shapes.get(dq.input[0])
        if scale is None or scale.size <= 1:
            continue
        rank = len(shape) if shape else 4 if node.op_type == "Conv" else 2
        wanted = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else rank - 1
        axis = attribute(dq, "axis", 1)
        if axis % max(rank, 1) != wanted and not (node.op_type == "Conv" and shape and shape[1] == 1 and axis % rank == 1):
            yield dq, f"weight scales on axis {axis}, not on the output channels"


def weight_path(graph: Graph) -> Iterator[Hit]:
    """constant -> (Q) -> DQ -> layer, with nothing in between and nothing computed."""
    for node in graph.of(*LAYERS):
        name = node.input[1] if len(node.input) > 1 else ""
        if name in graph.constants or not (graph.quantised(node.input[0]) or graph.maker(name) == DQ):
            continue
        dq = graph.dq_of(name)
        if node.op_type == "MatMul" and graph.quantised(name) and not graph.is_constant(graph.back(name)):
            continue  # a product of two activations
        source = graph.back(dq.input[0], (Q, "Identity")) if dq is not None else name
        if dq is None and graph.maker(name) and not graph.is_constant(name):
            yield node, f"the weight comes from {graph.maker(name)}, not from a DequantizeLinear"
        elif dq is not None and graph.maker(name) != DQ:
            yield node, f"{graph.maker(name)} stands between the weight's DequantizeLinear and the layer"
        elif dq is not None and not graph.is_constant(source):
            yield node, "the weight is no constant"


def transposed(graph: Graph) -> Iterator[Hit]:
    for node in graph.of("ConvTranspose"):
        if any(sides(graph, node)):
            yield node, "a quantised ConvTranspose runs in float"


def vector_scales(graph: Graph) -> Iterator[Hit]:
    """An activation has one scale; a vector makes the layer behind it run in float."""
    for node in [n for n in graph.of(Q) if len(n.input) > 1 and not graph.is_constant(n.input[0])]:
        scale = graph.array(node.input[1])
        listed = bool(graph.shapes.get(node.input[1]))
        if (scale is not None and scale.size > 1) or (listed and graph.rank(node.input[0]) != 2):
            yield node, f"a list of {scale.size if scale is not None else 'some'} scales for an activation"


def narrow(graph: Graph) -> Iterator[Hit]:
    """Channel counts that NVIDIA's own quantiser leaves in float: classic TensorRT has no INT8 kernels for them."""
    for node in graph.of("Conv"):
        shape = graph.shapes.get(node.input[1]) if len(node.input) > 1 else None
        if shape and len(shape) > 2 and all(sides(graph, node)) and not fits_int8(graph, node, shape):
            yield (
                node,
                f"{shape[0]} output and {shape[1]} input channels per group, kernel {list(shape[2:])}: too narrow for INT8",
            )


def fits_int8(graph: Graph, node: Any, shape: tuple[int | None, ...]) -> bool:
    """Whether a convolution with a weight of this shape, [output, input per group, kernel ...], has kernels for INT8."""
    output, inputs, *kernel = (side or 0 for side in shape)
    first = not any(graph.maker(name) in LAYERS for name in _ancestors(graph, node.input[0]))
    return wide_enough(output, inputs, kernel, grouped=attribute(node, "group", 1) > 1, first=first)


def wide_enough(output: int, inputs: int, kernel: Sequence[int], *, grouped: bool, first: bool) -> bool:
    """The rule of ModelOpt 0.47 for convolutions. inputs: channels per group; first: no other layer lies in front of it."""
    if output >= LEAST and inputs >= LEAST:
        return True
    if grouped:
        return output % 8 == 0 and min(kernel) >= 3
    aligned, wide = output % 8 == 0 or inputs % 8 == 0, first or output >= LEAST or inputs >= LEAST
    return len(set(kernel)) == 1 and aligned and wide


def _ancestors(graph: Graph, name: str) -> Iterator[str]:
    pending, seen = [name], set()
    while pending:
        one = pending.pop()
        if one not in seen:
            seen.add(one)
            yield one
            pending += graph.made[one].input if one in graph.made else []


def _of_an_image(graph: Graph, name: str) -> bool:
    """Whether more than the shape of an input goes into a value: all else is computed before there is an image."""
    pending, seen = [name], set[str]()
    while pending:
        one = pending.pop()
        maker = graph.made.get(one)
        if not one or one in seen or one in graph.constants or (maker is not None and maker.op_type in ("Shape", "Size")):
            continue
        if maker is None:
            return True
        seen.add(one)
        pending += maker.input
    return False


def bare(graph: Graph) -> Iterator[Hit]:
    """A convolution on a map of an image without Q/DQ, in a graph that has them elsewhere."""
    if not any(graph.of(Q, DQ)):
        return
    for node in graph.of("Conv"):
        shape = graph.shapes.get(node.input[1], ()) if len(node.input) > 1 else ()
        on_map = graph.shapes.get(node.input[0], ())[2:] != (1, 1) and _of_an_image(graph, node.input[0])
        if on_map and not any(sides(graph, node)) and (not shape or fits_int8(graph, node, shape)):
            yield node, "convolution without Q/DQ"


def between(graph: Graph) -> Iterator[Hit]:
    """Q between a layer and its activation; it belongs behind the activation."""
    for node in graph.of(Q):
        users = _behind(graph, node)
        behind = graph.maker(node.input[0])
        if behind in LAYERS and any(user.op_type in ACTIVATIONS for user in users):
            yield node, "Q between a convolution and its activation"


def _behind(graph: Graph, node: Any) -> list[Any]:
    """Who reads what was quantised."""
    return [user for dq in graph.users(node) if dq.op_type == DQ for user in graph.users(dq)]


def inside_silu(graph: Graph) -> Iterator[Hit]:
    """x and sigmoid(x) on their way to the product."""
    for node in graph.of(Q):
        gates = {out for user in graph.read[node.input[0]] if user.op_type == "Sigmoid" for out in user.output}
        on_x = any(user.op_type == "Mul" and gates & set(user.input) for user in _behind(graph, node))
        source = graph.made[node.input[0]].input[0] if graph.maker(node.input[0]) == "Sigmoid" else None
        product = any(user.op_type == "Mul" and source in user.input for user in _behind(graph, node))
        if (on_x or product) and not any(user.op_type in DECIDERS for user in _behind(graph, node)):
            yield node, "Q inside a SiLU"


def deciders(graph: Graph) -> Iterator[Hit]:
    for node in graph.of(Q):
        if graph.maker(node.input[0]) not in LAYERS and any(user.op_type in DECIDERS for user in _behind(graph, node)):
            yield node, "quantised input of a Sigmoid or Softmax"


def outputs(graph: Graph) -> Iterator[Hit]:
    for value in graph.proto.output:
        if graph.outer is None and graph.maker(value.name) in (DQ, Q):
            yield graph.made[value.name], "quantised output of the graph"


def residuals(graph: Graph) -> Iterator[Hit]:
    """Add(convolution, x): x should come through the Q/DQ that x has already for another convolution.

    Where no convolution reads x in INT8, there is none to take: a depthwise convolution that opens the block stays in float
    (of which W26 speaks where it was not meant), or x is the other branch of the block (GhostNet).
    """
    for node in graph.of("Add"):
        makers = [graph.maker(name) for name in node.input]
        if "Conv" not in makers or DQ in makers or makers.count("Conv") == 2:
            continue
        conv = graph.made[node.input[makers.index("Conv")]]
        other = node.input[1 - makers.index("Conv")]
        quantised = any(user.op_type == Q for user in graph.read[other])
        if all(sides(graph, conv)) and quantised and not graph.is_constant(other) and graph.rank(other) == 4:
            yield node, "the shortcut of this addition is not quantised: it runs in float"


def second_quantisers(graph: Graph) -> Iterator[Hit]:
    """One tensor, one quantiser: another with other scales on the shortcut costs a kernel and changes the values."""
    first: dict[str, Any] = {}
    for node in [n for n in graph.of(Q) if len(n.input) > 1]:
        known = first.setdefault(node.input[0], node)
        ours, theirs = graph.array(node.input[1]), graph.array(known.input[1])
        if known is not node and ours is not None and theirs is not None and not np.array_equal(ours, theirs):
            yield node, f"{node.input[0]} is quantised twice, with different scales"


def squeeze_excite(graph: Graph) -> Iterator[Hit]:
    """Gate, its partner and the pooling in front of it: all three quantised, or none."""
    for node in graph.of("Mul"):
        gate = next((n for n in node.input if graph.maker(graph.back(n, (DQ, Q))) in ("Sigmoid", "HardSigmoid")), None)
        if gate is None:
            continue
        other = next((n for n in node.input if n != gate), "")
        pool = next((p for p in _ancestors(graph, gate) if graph.maker(p) in ("ReduceMean", "GlobalAveragePool")), None)
        if pool is None or graph.back(graph.made[pool].input[0], (DQ, Q)) != graph.back(other, (DQ, Q)):
            continue
        behind = [graph.maker(gate) == DQ, graph.maker(other) == DQ, graph.maker(graph.made[pool].input[0]) == DQ]
        if len(set(behind)) > 1:
            yield node, f"squeeze-excite is half quantised ({sum(behind)} of gate, map and pooling)"


def concatenated(graph: Graph) -> Iterator[Hit]:
    for node in graph.of("Concat"):
        scales = [graph.array(graph.made[n].input[1]) for n in node.input if graph.maker(n) == DQ]
        known = {float(s.ravel()[0]) for s in scales if s is not None and s.size}
        if len(known) > 1:
            yield node, "inputs with different scales"


def needless(graph: Graph) -> Iterator[Hit]:
    """DQ -> pooling or reshaping -> Q: these move through Q/DQ by themselves."""
    for node in graph.of(*MOVERS):
        if node.input and graph.maker(node.input[0]) == DQ and any(user.op_type == Q for user in graph.users(node)):
            yield node, f"pairs on both sides of {node.op_type}"


def chains(graph: Graph) -> Iterator[Hit]:
    for node in graph.of(Q):
        if graph.maker(node.input[0]) == DQ:
            yield node, "DQ followed by Q: a kernel that only changes the scale"


def other_scales(graph: Graph) -> Iterator[Hit]:
    """Q and its DQ with different scales multiply the values by their ratio."""
    for node in graph.of(DQ):
        front = graph.made.get(graph.back(node.input[0], MOVERS)) if node.input else None
        if front is not None and front.op_type == Q and len(front.input) > 1 and len(node.input) > 1:
            ours, theirs = graph.array(node.input[1]), graph.array(front.input[1])
            if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
                yield node, "DQ has another scale than its Q"


def on_codes(graph: Graph) -> Iterator[Hit]:
    """Arithmetic on codes means something else in the file than what TensorRT computes."""
    for node in graph.of(Q):
        for user in graph.users(node):
            if user.op_type not in (DQ, *MOVERS):
                yield user, "an operator works on quantised codes"


def float_remainder(graph: Graph) -> Iterator[Hit]:
    """A strongly typed build runs FP32 as FP32."""
    if graph.outer is None and any(graph.of(Q, DQ)):
        wide = [n for n in graph.of(*LAYERS) if graph.types.get(n.output[0]) == TensorProto.FLOAT]
        if wide:
            yield wide[0], f"{len(wide)} layers give FP32: strongly typed builds run the remainder in FP32, slowly"


def batch_norms(graph: Graph) -> Iterator[Hit]:
    for node in graph.of("BatchNormalization"):
        if graph.maker(node.input[0]) == "Conv":
            yield node, "BatchNorm behind a convolution: fine here, but it breaks INT8 in other engines"


def depthwise(graph: Graph) -> Iterator[Hit]:
    found = [n for n in graph.of("Conv") if attribute(n, "group", 1) > 1 and all(sides(graph, n))]
    if graph.outer is None and found:
        yield (
            found[0],
            f"{len(found)} depthwise or grouped convolutions in INT8 gain little on Ampere, and may not build: time FP16 too",
        )


def share(graph: Graph) -> Iterator[Hit]:
    """Multiply-accumulates of convolutions and products that stand between Q/DQ."""
    total, inside = 0, 0
    for node in graph.of("Conv", "Gemm", "MatMul"):
        weight, out = (graph.shapes.get(n) for n in (node.input[1], node.output[0]))
        if not weight or None in weight:
            continue
        places = math.prod(s or 1 for s in (out or ())[2:]) if node.op_type == "Conv" else 1
        macs = math.prod(s or 1 for s in weight) * places
        total, inside = total + macs, inside + macs * all(sides(graph, node))
    if graph.outer is None and inside:
        yield "model", f"{100 * inside / total:.1f} % of the multiply-accumulates stand between Q/DQ"


def nothing_quantised(graph: Graph) -> Iterator[Hit]:
    """A graph with layers and without any quantiser: an engine builds it in float, whatever precision it is asked for."""
    layers = sum(1 for _ in graph.of(*LAYERS))
    integer = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", Q, DQ)
    if graph.outer is None and layers and next(graph.of(*integer), None) is None:
        yield "model", f"no QuantizeLinear and no DequantizeLinear: nothing of it will run in INT8 ({layers} layers in float)"


def both_branches(graph: Graph) -> Iterator[Hit]:
    for node in graph.of("Add"):
        if [graph.maker(name) for name in node.input] == [DQ, DQ]:
            yield node, "both inputs of an addition are quantised: legal, but it does not fuse with its convolution"
