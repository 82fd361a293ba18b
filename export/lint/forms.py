"""Rules on forms of operators that the parser does not take, and on shapes that cannot be. Each yields (node, message)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from onnx import shape_inference

from octc.export.lint.graph import Graph, attribute
from octc.export.lint.values import Hit

TRANSFORMS = {"half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "tf_half_pixel_for_nn", "tf_crop_and_resize"}
UNREAD_CASTS = tuple(
    getattr(onnx.TensorProto, name)
    for name in ("STRING", "INT16", "UINT16", "UINT32", "UINT64", "FLOAT8E5M2", "FLOAT8E4M3FN", "INT4")
)
UNREAD_INPUTS = (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
UNREAD = ("sparse_value", "value_string", "value_strings")  # attributes of a Constant


def _constant(_graph: Graph, node: Any) -> str:
    found = [a.name for a in node.attribute if a.name in UNREAD]
    return f"a Constant with {found[0]}" if found else ""


def _resize(_graph: Graph, node: Any) -> str:
    mode = attribute(node, "coordinate_transformation_mode", b"half_pixel").decode()
    return "" if mode in TRANSFORMS else f"Resize with {mode}"


def _convolution(graph: Graph, node: Any) -> str:
    if len(node.input) > 2 and not node.input[2]:
        return "an empty name stands for the bias: leave the input out"
    shape, kernel = graph.shapes.get(node.input[1]) or (), attribute(node, "kernel_shape")
    channels = (graph.shapes.get(node.input[0]) or (None, None))[1:2] or (None,)
    wanted = (shape[1] or 0) * attribute(node, "group", 1) if len(shape) > 2 and node.op_type == "Conv" else None
    if wanted and channels[0] and channels[0] != wanted:
        return f"a weight for {wanted} input channels, there are {channels[0]}"
    if kernel and len(shape) > 2 and None not in shape[2:] and list(kernel) != list(shape[2:]):
        return f"kernel_shape {list(kernel)} for a weight of shape {list(shape)}"
    return ""


def _blocks(graph: Graph, node: Any) -> str:
    shape, size = graph.shapes.get(node.input[0]) or (), attribute(node, "blocksize", 1)
    known = shape[1] if len(shape) == 4 else None
    return f"{known} channels cannot be cut into blocks of {size} x {size}" if known and known % (size * size) else ""


def _cast(_graph: Graph, node: Any) -> str:
    kind = attribute(node, "to", 0)
    return f"a Cast to {onnx.TensorProto.DataType.Name(kind)}" if kind in UNREAD_CASTS else ""


def _reshape(graph: Graph, node: Any) -> str:
    before, wanted = graph.shapes.get(node.input[0]), graph.array(node.input[1]) if len(node.input) > 1 else None
    if not before or None in before or wanted is None or (wanted <= 0).any():
        return ""
    same = math.prod(side or 0 for side in before) == math.prod(int(side) for side in wanted.ravel())
    return "" if same else f"{list(before)} cannot become {wanted.tolist()}"


def _pool(_graph: Graph, node: Any) -> str:
    if len([name for name in node.output if name]) > 1:
        return f"{node.op_type} with indices"
    return f"{node.op_type} with dilations" if any(step != 1 for step in attribute(node, "dilations", ())) else ""


FORMS: dict[str, Callable[[Graph, Any], str]] = {
    "Constant": _constant, "Resize": _resize, "Conv": _convolution, "ConvTranspose": _convolution, "DepthToSpace": _blocks,
    "Cast": _cast, "MaxPool": _pool, "AveragePool": _pool, "LpPool": _pool, "Reshape": _reshape,
}  # fmt: skip


def forms(graph: Graph) -> Iterator[Hit]:
    """Each was tried with NVIDIA's parser (TensorRT for RTX 1.7.1)."""
    for node in graph.nodes:
        if node.op_type in FORMS and (reason := FORMS[node.op_type](graph, node)):
            yield node, reason
        for name in node.output:
            if any(side is not None and side < 0 for side in graph.shapes.get(name, ())):
                yield node, f"its result would have the shape {list(graph.shapes[name])}"
    for value in graph.proto.input:
        if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in UNREAD_INPUTS:
            yield value.name, "an input of a type that is not read"


def impossible(proto: onnx.ModelProto) -> Iterator[Hit]:
    """Shapes that do not fit each other. Types are looked at by rules of their own."""
    try:
        shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except Exception as error:  # the checker raises what it likes
        text = " ".join(str(error).split())
        if "existing" not in text and "QuantizeLinear" not in text:  # shapes that a file declares are not read
            yield "model", text.replace("[ShapeInferenceError]", "").strip()[:200]
