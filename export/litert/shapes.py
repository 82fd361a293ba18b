"""What is known of an ONNX graph for a number of images: every shape, and the constants that follow from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from octc.export.litert.graph import Array

ROUNDS = 200  # a constant may give a shape that gives the next constant
LARGE = 1 << 22  # values; a larger constant is not computed
STAYING = ("DequantizeLinear", "QuantizeLinear")  # codes of weights stay codes


@dataclass(frozen=True)
class Known:
    """A graph for one image.

    Attributes:
        nodes: those that are left. constants: by name. shapes: of every value.
        free: the axis of a value that grows with the number of images; a value without one is not in it.
        counted: constants that are others for another number of images. repeated: those of them that hold the same numbers for
            every image, which the constant holds once, by the axis of the images.
    """

    nodes: list[onnx.NodeProto]
    constants: dict[str, Array]
    shapes: dict[str, tuple[int, ...]]
    free: dict[str, int]
    counted: frozenset[str]
    repeated: dict[str, int]


def known_of(proto: onnx.ModelProto) -> Known:
    """The graph for one image, compared with the one for two.

    Raises:
        InferenceError: a shape that cannot be inferred.
    """
    (nodes, constants, shapes), (_, others, wide) = (_settled(proto, count) for count in (1, 2))
    free = {}
    for name, shape in shapes.items():
        apart = [k for k, (one, two) in enumerate(zip(shape, wide.get(name, shape), strict=False)) if one != two]
        if apart:
            free[name] = apart[0]
    counted = frozenset(name for name, value in constants.items() if name in others and not np.array_equal(value, others[name]))
    repeated = {name: axis for name in counted if (axis := _repeats(constants[name], others[name])) is not None}
    return Known(nodes, constants, shapes, free, counted, repeated)


def _repeats(one: Array, two: Array) -> int | None:
    """Along which axis a constant for two images is that for one image, twice."""
    for axis, (side, other) in enumerate(zip(one.shape, two.shape, strict=False)):
        if (side, other) == (1, 2) and np.array_equal(np.concatenate([one, one], axis), two):
            return axis
    return None


def _settled(proto: onnx.ModelProto, count: int) -> tuple[list[onnx.NodeProto], dict[str, Array], dict[str, tuple[int, ...]]]:
    """Nodes, constants and shapes for a number of images, with everything computed that no image decides."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    graph = made.graph
    for value in graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = count
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    versions = list(made.opset_import)
    for _ in range(ROUNDS):
        shaped = shape_inference.infer_shapes(made, strict_mode=True, data_prop=True).graph
        shapes = _shapes(shaped)
        kept = []
        for node in graph.node:
            found = _computed(node, constants, shapes, versions)
            if found is None:
                kept.append(node)
                continue
            for name, value in zip(node.output, found, strict=True):
                constants[name] = np.asarray(value)
                graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        if len(kept) == len(graph.node):
            break
        rest = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(rest)
    return list(graph.node), constants, {**shapes, **{name: value.shape for name, value in constants.items()}}


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    found = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.dim_value > 0 for dim in kind.shape.dim):
            found[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return found


def _computed(node: onnx.NodeProto, constants: dict[str, Array], shapes: dict[str, tuple[int, ...]], versions: Any) -> Any:
    """What a node gives, where no image goes into it; None where one does."""
    if node.op_type == "Shape" and node.input[0] in shapes:
        options = {one.name: one.i for one in node.attribute}
        whole = shapes[node.input[0]]
        return [np.asarray(whole[options.get("start", 0) : options.get("end", len(whole))], np.int64)]
    given = [name for name in node.input if name]
    if node.op_type in STAYING or any(name not in constants for name in given):
        return None
    if sum(constants[name].size for name in given) > LARGE:
        return None
    inputs = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(constants[n].dtype), None) for n in set(given)]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in node.output]
    alone = helper.make_model(helper.make_graph([node], "one", inputs, outputs), opset_imports=versions)
    return ReferenceEvaluator(alone).run(None, {name: constants[name] for name in given})
