"""Repairs that keep what the file computes, or come closer to what TensorRT does with it. Each is reported in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from octc.export.lint.graph import DQ, Graph, Q, attribute, graphs_of
from octc.export.lint.placement import sides

MIDDLE = 128


def fix(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """A repaired copy and what was done; nothing is done where the result could compute something else without need."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    done: list[str] = []
    for repair in REPAIRS:
        done += repair(graphs_of(copy)[0])
    _drop_dead(copy)
    return copy, done


def signed_codes(graph: Graph) -> list[str]:
    """uint8 with zero-point 128 -> int8 with zero-point 0 and the same scale: the same values, bit for bit."""
    done, kept = [], []
    for node in graph.of(Q, DQ):
        zero = graph.zero_point(node)
        if zero is None or zero.dtype != np.uint8 or not np.all(zero == MIDDLE):
            continue
        codes = graph.constants.get(node.input[0]) if node.op_type == DQ else None
        if codes is not None:
            shifted = (numpy_helper.to_array(codes).astype(np.int16) - MIDDLE).astype(np.int8)
            node.input[0] = _constant(graph, f"{node.input[0]}_int8", shifted)
        node.input[2] = _constant(graph, f"{node.input[2]}_int8", np.zeros(zero.shape, np.int8))
        for name in node.output if node.op_type == Q else ():
            kept += [value for value in graph.proto.value_info if value.name == name]
        done.append(f"{node.name}: uint8 codes with zero-point 128 became int8 with 0")
    for value in kept:
        graph.proto.value_info.remove(value)
    return done


def float_biases(graph: Graph) -> list[str]:
    """A bias behind a DQ -> the same numbers as a float initialiser."""
    done = []
    for node in list(graph.of(DQ)):
        codes, scale, zero = graph.array(node.input[0]), graph.array(node.input[1]), graph.zero_point(node)
        users = [user for user in graph.users(node) if node.output[0] in user.input[2:3]]
        if not users or codes is None or scale is None:
            continue
        name = _constant(graph, f"{node.output[0]}_float", _values(codes, scale, zero, 0))
        for user in users:
            user.input[2] = name
        done.append(f"{users[0].name}: the bias is float again")
    return done


def lonely_weights(graph: Graph) -> list[str]:
    """A quantised weight whose activation is float -> a float weight with the same numbers: that is how it runs anyway."""
    done = []
    for node in graph.of("Conv", "Gemm", "MatMul", "ConvTranspose"):
        dq = graph.made.get(node.input[1]) if len(node.input) > 1 else None
        if dq is None or dq.op_type != DQ or graph.quantised(node.input[0]) or len(dq.input) < 2:
            continue
        codes, scale = graph.array(dq.input[0]), graph.array(dq.input[1])
        if codes is None or scale is None or codes.dtype.kind not in "iu":
            continue
        axis = attribute(dq, "axis", 1)
        node.input[1] = _constant(graph, f"{dq.output[0]}_float", _values(codes, scale, graph.zero_point(dq), axis))
        done.append(f"{node.name}: a weight without a quantised activation is float")
    return done


def shortcuts(graph: Graph) -> list[str]:
    """Add(convolution, x) reads x from the quantiser that x has already."""
    done = []
    for node in graph.of("Add"):
        makers = [graph.maker(name) for name in node.input]
        if "Conv" not in makers or DQ in makers or not all(sides(graph, graph.made[node.input[makers.index("Conv")]])):
            continue
        place = 1 - makers.index("Conv")
        found = [dq for q in graph.read[node.input[place]] if q.op_type == Q for dq in graph.users(q) if dq.op_type == DQ]
        if found:
            node.input[place] = found[0].output[0]
            done.append(f"{node.name}: the shortcut goes through the quantiser {found[0].name}")
    return done


def batch_norms(graph: Graph) -> list[str]:
    """BatchNorm behind a convolution of its own goes into weight (or its scales) and bias."""
    done = []
    for node in list(graph.of("BatchNormalization")):
        conv = graph.made.get(node.input[0])
        parts = [graph.array(name) for name in node.input[1:5]]
        if conv is None or conv.op_type != "Conv" or len(graph.read[node.input[0]]) != 1 or any(p is None for p in parts):
            continue
        gamma, beta, mean, variance = parts
        factor = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        dq = graph.made.get(conv.input[1])
        bias = graph.array(conv.input[2]) if len(conv.input) > 2 else np.zeros_like(beta)
        if bias is None or not _scale_weight(graph, conv, dq, factor):
            continue
        del conv.input[2:]
        conv.input.append(_constant(graph, f"{node.name}_bias", ((bias - mean) * factor + beta).astype(beta.dtype)))
        conv.output[0] = node.output[0]
        graph.proto.node.remove(node)
        done.append(f"{node.name}: folded into {conv.name}")
    return done


def _scale_weight(graph: Graph, conv: Any, dq: Any, factor: Any) -> bool:
    if dq is None or dq.op_type != DQ:
        weight = graph.array(conv.input[1])
        if weight is None:
            return False
        wide = factor.reshape(-1, *[1] * (weight.ndim - 1))
        conv.input[1] = _constant(graph, f"{conv.input[1]}_folded", (weight * wide).astype(weight.dtype))
        return True
    scale, codes = graph.array(dq.input[1]), graph.constants.get(dq.input[0])
    if scale is None or codes is None or not np.all(factor > 0) or scale.size != factor.size or attribute(dq, "axis", 1) != 0:
        return False
    dq.input[1] = _constant(graph, f"{dq.input[1]}_folded", (scale * factor).astype(scale.dtype))
    return True


REPAIRS: tuple[Callable[[Graph], list[str]], ...] = (signed_codes, float_biases, lonely_weights, batch_norms, shortcuts)


def _values(codes: Any, scale: Any, zero: Any, axis: int) -> Any:
    """(codes - zero) * scale, in the type of the scale."""
    shape = [1] * codes.ndim
    if scale.size > 1:
        shape[axis % codes.ndim] = scale.size
    shift = 0 if zero is None else zero.astype(np.float64).reshape(shape if zero.size > 1 else [])
    return ((codes.astype(np.float64) - shift) * scale.astype(np.float64).reshape(shape if scale.size > 1 else [])).astype(
        scale.dtype
    )


def _constant(graph: Graph, name: str, array: Any) -> str:
    while name in graph.constants or name in graph.made:
        name += "_"
    tensor = graph.proto.initializer.add()
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    graph.constants[name] = tensor
    return name


def _drop_dead(proto: onnx.ModelProto) -> None:
    """Nodes and constants that nothing reads any more; a graph with inner graphs keeps all."""
    graph = proto.graph
    if any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute):
        return
    while True:
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        dead = [node for node in graph.node if not read & set(node.output)]
        for node in dead:
            graph.node.remove(node)
        if not dead:
            break
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)
