"""Rules on values and types: what TensorRT rejects, or computes otherwise than the file says. Each yields (node, message)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from octc.core.errors import first_line
from octc.export.lint.graph import DQ, FLOAT_TYPES, FOLDED, LAYERS, Graph, Q, attribute

Hit = tuple[Any, str]  # the node (or a name), and what is wrong with it
INTEGER = {"QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
CODES = (TensorProto.INT8, TensorProto.UINT8)
OTHER_CODES = tuple(getattr(TensorProto, n) for n in ("FLOAT8E4M3FN",) if hasattr(TensorProto, n))
# asked of NVIDIA's parser (TensorRT for RTX 1.7.1), which knows more than older ones do
MISSING = frozenset({
    "AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
    "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "CumProd", "DFT", "DeformConv", "Det", "ImageDecoder",
    "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss", "Optional",
    "OptionalGetElement", "OptionalHasElement", "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty",
    "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence",
    "StringConcat", "StringNormalizer", "StringSplit", "SwiGLU", "TfIdfVectorizer", "Unique",
})  # fmt: skip
BOUNDS = ("Clip", "Where", "Min", "Max")  # an infinity there is no number to compute with
# what passes a mask of -inf on, and what takes -inf as "not this one"
MASKED = (
    "Add",
    "Cast",
    "Concat",
    "Expand",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
    "Where",
)
HIDING = ("LogSoftmax", "Max", "MaxPool", "ReduceMax", "Softmax")
SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
HALF_MAX, HALF_LEAST = 65504.0, 6e-8


def pairs(graph: Graph) -> Iterator[Any]:
    return (node for node in graph.of(Q, DQ) if len(node.input) > 1)


def zero_points(graph: Graph) -> Iterator[Hit]:
    for node in graph.of(Q, DQ):
        zero = graph.zero_point(node)
        if zero is not None and np.any(zero != 0):
            yield node, f"zero-point {zero.ravel()[np.flatnonzero(zero.ravel())[0]]}"
        elif len(node.input) > 2 and node.input[2] and zero is None:
            yield node, "zero-point is computed at run time"


def code_types(graph: Graph) -> Iterator[Hit]:
    """Element types of codes; uint8 weights are not read, uint8 activations see `unsigned`."""
    for node in graph.of(Q, DQ):
        names = [*node.input[2:3], *(node.input[:1] if node.op_type == DQ else ())]
        known = {int(graph.constants[n].data_type) for n in names if n in graph.constants} | {
            attribute(node, "output_dtype", 0)
        }
        bad = known - {0, *CODES, *OTHER_CODES, TensorProto.INT32}
        constant = node.op_type == DQ and node.input[0] in graph.constants
        if bad:
            yield node, f"codes of type {TensorProto.DataType.Name(bad.pop())}"
        elif constant and graph.constants[node.input[0]].data_type == TensorProto.UINT8:
            yield node, "weight codes of type UINT8"


def quantised_bias(graph: Graph) -> Iterator[Hit]:
    for node in graph.of(DQ):
        first = graph.constants.get(node.input[0]) if node.input else None
        is_bias = any(u.op_type in LAYERS and node.output[0] in u.input[2:3] for u in graph.users(node))
        if (first is not None and first.data_type == TensorProto.INT32) or is_bias:
            yield node, "quantised bias"


def scale_sources(graph: Graph) -> Iterator[Hit]:
    for node in pairs(graph):
        if graph.array(node.input[1]) is None and not graph.is_constant(node.input[1], FOLDED):
            known = graph.is_constant(node.input[1])
            yield node, "scale is computed in a way that the parser does not fold" if known else "scale is computed at run time"


def scale_values(graph: Graph) -> Iterator[Hit]:
    for node in pairs(graph):
        scale = graph.array(node.input[1])
        if scale is None or scale.dtype.kind == "V":
            continue
        if scale.dtype.kind != "f":
            yield node, f"scale of type {scale.dtype}"
            continue
        wide = scale.astype(np.float64)
        if not (np.isfinite(wide).all() and (wide > 0).all()):
            yield node, f"scale {_worst(wide):g} is not finite and positive"
        elif scale.dtype == np.float32 and (wide < SMALLEST_NORMAL).any():
            yield node, f"scale {float(wide.min()):g} lies below the normal numbers: a GPU may take it for 0"


def _worst(values: Any) -> float:
    bad = values[~np.isfinite(values) | (values <= 0)]
    return float(bad.ravel()[0])


def scale_shapes(graph: Graph) -> Iterator[Hit]:
    """As many scales as channels, on an axis that exists; no blocks."""
    for node in pairs(graph):
        scale, shape = graph.array(node.input[1]), graph.shapes.get(node.input[0])
        if attribute(node, "block_size", 0):
            yield node, "blocked scales are not INT8 convolutions"
            continue
        if scale is not None and (scale.ndim > 1 or not scale.size):
            yield node, f"scale of shape {list(scale.shape)}"
            continue
        zero = graph.zero_point(node)
        if scale is not None and zero is not None and zero.size not in (scale.size, 1):
            yield node, f"{zero.size} zero-points for {scale.size} scales"
        if scale is None or scale.size <= 1 or shape is None:
            continue
        axis = attribute(node, "axis", 1)
        if not -len(shape) <= axis < len(shape):
            yield node, f"scales of shape {list(scale.shape)} on axis {axis} of a tensor with {len(shape)} axes"
        elif shape[axis] not in (None, scale.size):
            yield node, f"{scale.size} scales for {shape[axis]} channels"


def mixed_types(graph: Graph) -> Iterator[Hit]:
    """A DQ gives the type of its scale; layers, additions and products want one type, Q the type of its scale."""
    for node in graph.of(*LAYERS, "Add", "Mul", "Sub", "Div", "Concat"):
        found = {graph.types.get(name) for name in node.input if name} & set(FLOAT_TYPES)
        if len(found) > 1:
            yield node, f"inputs of types {', '.join(sorted(TensorProto.DataType.Name(t or 0) for t in found))}"
    for node in graph.of(Q):
        types = {graph.types.get(name) for name in node.input[:2]} & set(FLOAT_TYPES)
        if len(types) > 1 and graph.opset < 23:
            yield node, "scale and tensor have different types"


def integer_operators(graph: Graph) -> Iterator[Hit]:
    for node in graph.nodes:
        if node.op_type in INTEGER or node.domain not in ("", "ai.onnx"):
            yield node, f"{node.domain + '.' if node.domain else ''}{node.op_type} is not portable"


def missing_operators(graph: Graph) -> Iterator[Hit]:
    for node in graph.nodes:
        if node.domain in ("", "ai.onnx") and node.op_type in MISSING:
            yield node, f"the parser has no {node.op_type}"


def dynamic_shapes(graph: Graph) -> Iterator[Hit]:
    """Only the batch axis may be open."""
    if graph.outer is not None:
        return
    constants = {t.name for t in graph.proto.initializer}
    for value in graph.proto.input:
        dims = value.type.tensor_type.shape.dim
        opened = [place for place, dim in enumerate(dims) if place > 0 and not dim.dim_value]
        if opened and value.name not in constants:
            yield value.name, f"axis {opened[0]} of input {value.name} has no fixed size"


def half_constants(graph: Graph) -> Iterator[Hit]:
    """What an FP16 remainder cannot hold, with the node that reads it."""
    half = any(t.data_type == TensorProto.FLOAT16 for t in graph.constants.values())
    for node in graph.nodes:
        epsilon = attribute(node, "epsilon")
        if epsilon is not None and 0 < epsilon < HALF_LEAST and graph.types.get(node.input[0]) == TensorProto.FLOAT16:
            yield node, f"epsilon {epsilon:g} is 0 in FP16"
        for name in node.input:
            array = graph.array(name) if name in graph.constants else None
            if array is None or array.dtype != np.float32 or not array.size or half:
                continue
            top = float(np.abs(array).max())
            if np.isfinite(top) and top > HALF_MAX and node.op_type not in (Q, DQ, "Clip"):
                yield node, f"constant {top:g} lies beyond FP16 ({HALF_MAX:g})"


def not_finite(graph: Graph) -> Iterator[Hit]:
    for node in graph.nodes:
        for name in node.input:
            array = graph.array(name) if name in graph.constants and node.op_type not in (Q, DQ, *BOUNDS) else None
            if array is None or array.dtype.kind != "f" or np.isfinite(array).all():
                continue
            hidden = bool((np.isfinite(array) | (array == -np.inf)).all()) and _only_hides(graph, node)
            if not hidden:
                yield node, "a constant is not finite"


def _only_hides(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether what a mask is added to, or put into, ends in a softmax or maximum, for which -inf is nothing."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.op_type not in (*MASKED, *HIDING):
            return False
        if one.op_type in MASKED:
            behind = graph.users(one)
            if not behind:
                return False
            waiting += behind
    return True


def doubles(graph: Graph) -> Iterator[Hit]:
    """TensorRT has no float64: the parser narrows it to float32 with a warning at most."""
    for node in graph.nodes:
        if TensorProto.DOUBLE in {graph.types.get(name) for name in (*node.input, *node.output)}:
            yield node, "float64 is narrowed to float32"


def unsigned(graph: Graph) -> Iterator[Hit]:
    """uint8 with zero-point 0 (or Q without one): the file says 0..255, TensorRT clips to -128..127 and says nothing."""
    for node in graph.of(Q):
        given = node.input[2] if len(node.input) > 2 else ""
        zero = graph.zero_point(node)
        if not given and attribute(node, "output_dtype", TensorProto.UINT8) == TensorProto.UINT8:
            yield node, "no zero-point: the codes are uint8, TensorRT computes int8"
        elif zero is not None and zero.dtype == np.uint8 and not np.any(zero):
            yield node, "uint8 codes: TensorRT computes int8 and clips what lies above 127"
    for node in graph.of(DQ):
        zero = graph.zero_point(node)
        if zero is not None and zero.dtype == np.uint8 and not np.any(zero) and graph.maker(node.input[0]) != Q:
            yield node, "uint8 codes: TensorRT computes int8"


def decomposed_norms(graph: Graph) -> Iterator[Hit]:
    """Squares in FP16 overflow above 256."""
    for node in graph.of("Pow", "ReduceL2", "ReduceSumSquare"):
        exponent = graph.array(node.input[1]) if node.op_type == "Pow" and len(node.input) > 1 else np.float32(2)
        squares = exponent is not None and exponent.size == 1 and float(exponent.ravel()[0]) == 2
        if squares and graph.types.get(node.input[0]) == TensorProto.FLOAT16:
            yield node, "squares in FP16 overflow above 256"


def early_half(graph: Graph) -> Iterator[Hit]:
    for node in pairs(graph):
        tensor = graph.constants.get(node.input[1])
        if tensor is not None and tensor.data_type == TensorProto.FLOAT16 and graph.opset < 19:
            yield node, f"FP16 scale in opset {graph.opset} (legal from 19)"


def opset_range(graph: Graph, highest: int) -> Iterator[Hit]:
    if graph.outer is None and not 9 <= graph.opset <= highest:
        yield "model", f"opset {graph.opset}: this TensorRT reads 9 to {highest}"


def validity(proto: onnx.ModelProto) -> Iterator[Hit]:
    why = _invalid(proto)
    if "'shape' of 'type'" in why or "'name' of 'graph'" in why:  # every engine does without these
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        copy.graph.name = copy.graph.name or "graph"
        for value in (*copy.graph.input, *copy.graph.output, *copy.graph.value_info):
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.shape.SetInParent()
        why = _invalid(copy)
    if why:
        yield "model", f"not valid ONNX: {why}"


def _invalid(proto: onnx.ModelProto) -> str:
    """What the checker says, in one line; "" when it has nothing to say."""
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # protobuf and the checker raise what they like
        return first_line(error)
    return ""
