"""ONNX, as octc writes it, to a LiteRT graph: same operators, same quantisers, channels last.

An operator whose inputs are quantised and whose result is read by one QuantizeLinear alone becomes an INT8 operator with that
quantiser on its output; every other one computes in float between DEQUANTIZE and QUANTIZE. Codes of weights are the file's own,
bit for bit; uint8 activations become int8 by moving code and zero-point by 128. Biases are int32 with the scale of the product.
What only moves values (`moves`) takes codes as they are; what LiteRT has no INT8 kernel for is in `floats`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from octc.export.litert import floats, moves
from octc.export.litert.einsum import einsum
from octc.export.litert.graph import Array, Graph, Scales, Tensor, constant
from octc.export.litert.spread import transposed
from octc.export.litert.state import NONE, RELU, State, attributes, refused

LARGEST_BIAS = 2.0**30  # codes
GATE = Scales((1 / 256,), -128)  # the only one that LOGISTIC gives
SAME, VALID = 0, 1  # Padding of the schema
TYPES = {"float32": 0, "int32": 2, "uint8": 3, "bool": 6}  # TensorType of the schema
Pair = tuple[int, int]


def translate(proto: onnx.ModelProto) -> Graph:
    """The graph, for one image (the batch axis stays free in the file).

    Raises:
        OctcError: E407 an operator, or a form of it, that is not translated.
    """
    single = onnx.ModelProto()
    single.CopyFrom(proto)
    _quantise_before_pools(single.graph)
    _lines_as_maps(single.graph)
    it = State(single)
    for node in it.nodes:
        if node.output[0] in it.done:
            continue
        if node.op_type not in OPERATORS:
            raise refused(node, "there is no such operator in what octc writes for LiteRT")
        OPERATORS[node.op_type](it, node)
    (name,) = it.outputs
    return Graph(it.source, it.value(name), it.operations)


def _lines_as_maps(graph: onnx.GraphProto) -> None:
    """A convolution or pool along one axis becomes one of a map of one row."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "Conv" and len(node.input) > 1 else None
        known = attributes(node)
        line = node.op_type in ("MaxPool", "AveragePool") and len(known["kernel_shape"]) == 1
        if not line and (weight is None or len(weight.dims) != 3):
            nodes.append(node)
            continue
        name = node.output[0]
        graph.initializer.append(numpy_helper.from_array(np.array([2], np.int64), f"{name}/row"))
        nodes.append(helper.make_node("Unsqueeze", [node.input[0], f"{name}/row"], [f"{name}/above"]))
        given = [f"{name}/above", *node.input[1:]]
        if weight is not None:
            wide = numpy_helper.to_array(weight)[:, :, None, :]
            graph.initializer.append(numpy_helper.from_array(wide, f"{name}/weight"))
            given[1] = f"{name}/weight"
        for key, one in (("kernel_shape", 1), ("strides", 1), ("dilations", 1)):
            known |= {key: [one, *known[key]]} if known.get(key) else {}
        if pads := known.get("pads"):
            known["pads"] = [0, pads[0], 0, pads[1]]
        nodes.append(helper.make_node(node.op_type, given, [f"{name}/map"], **known))
        nodes.append(helper.make_node("Squeeze", [f"{name}/map", f"{name}/row"], [name]))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _quantise_before_pools(graph: onnx.GraphProto) -> None:
    """The largest of codes is the code of the largest: in front of the pool the quantiser lets the convolution give codes."""
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        behind = readers[node.output[0]]
        if node.op_type == "MaxPool" and len(behind) == 1 and behind[0].op_type == "QuantizeLinear":
            source, (_, scale, zero) = node.input[0], behind[0].input
            codes, back = f"{node.output[0]}/before/codes", f"{node.output[0]}/before"
            nodes.append(helper.make_node("QuantizeLinear", [source, scale, zero], [codes]))
            nodes.append(helper.make_node("DequantizeLinear", [codes, scale, zero], [back]))
            node.input[0] = back
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


# operators: (translation, node); each adds what it needs


def _quantize(it: State, node: onnx.NodeProto) -> None:
    source = it.codes.get(node.input[0]) or it.value(node.input[0])
    codes = Tensor(f"{node.input[0]}/codes/{node.output[0]}", source.shape, "int8", it.scales(node))
    it.add("QUANTIZE", (source,), codes)
    it.dequantised(node, codes)


def _dequantize(it: State, node: onnx.NodeProto) -> None:
    """Of weights: codes of activations are met behind their QuantizeLinear."""
    if node.input[0] not in it.constants:
        raise refused(node, "codes that no QuantizeLinear made")
    it.weights[node.output[0]] = it.constants[node.input[0]], np.atleast_1d(it.constants[node.input[1]])


def _conv(it: State, node: onnx.NodeProto) -> None:
    known = attributes(node)
    name, group = node.input[1], int(known.get("group", 1))
    codes, scale = it.weights.get(name, (None, None))
    if codes is None and any(one not in it.constants for one in node.input[1:] if one):
        raise refused(node, "weights that are computed from the image")
    weight = it.constants[name] if codes is None else codes
    bias = it.constants[node.input[2]].astype(np.float64) if len(node.input) > 2 else np.zeros(len(weight))
    channels = it.shapes[node.input[0]][1]
    depthwise = group > 1 and group == channels
    if weight.ndim != 4:
        raise refused(node, f"a convolution of {weight.ndim - 2} dimensions")
    int8 = codes is not None and node.input[0] in it.codes and it.ends_in_codes(node, activation=True) is not None
    source = it.codes[node.input[0]] if int8 else it.value(node.input[0])
    strides, dilations = _pair(known, "strides"), _pair(known, "dilations")
    source, padding = padded(it, node, source, (weight.shape[2], weight.shape[3]), strides, dilations)
    axis, order = (3, (1, 2, 3, 0)) if depthwise else (0, (0, 2, 3, 1))
    if int8:
        assert codes is not None
        assert scale is not None
        assert source.scales is not None
        parts = _int8_weights(name, codes, scale, bias, source.scales.scale[0], (axis, order))
    else:
        parts = _float_weights(it, name, weight, scale, bias, (axis, order))
    out, activation = it.result(node, int8=int8, activation=True)
    options = {"padding": padding, "strideH": strides[0], "strideW": strides[1], "fusedActivationFunction": activation}
    options |= {"dilationHFactor": dilations[0], "dilationWFactor": dilations[1]}
    if depthwise:
        options["depthMultiplier"] = len(weight) // channels
    it.add("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", (source, *parts), out, **options)


def _int8_weights(
    name: str, codes: Array, scale: Array, bias: Array, source: float, form: tuple[int, tuple[int, ...]]
) -> tuple[Tensor, Tensor]:
    """Codes and int32 biases. A channel whose bias would leave int32 (its weights are next to nothing) gets a wider scale."""
    axis, order = form
    wide = np.broadcast_to(scale.astype(np.float32), (len(codes),))
    least = (np.abs(bias) / (source * LARGEST_BIAS)).astype(np.float32)
    used = np.maximum(wide, least)
    if (used > wide).any():
        ratio = (wide / used).reshape(-1, 1, 1, 1)
        codes = np.where(ratio < 1, np.rint(codes * ratio), codes).astype(np.int8)
    weight = constant(name, np.transpose(codes, order), "int8", Scales(tuple(map(float, used)), axis=axis))
    product = (np.float32(source) * used).astype(np.float32)
    offsets = np.rint(bias / product.astype(np.float64))
    return weight, constant(f"{name}/bias", offsets, "int32", Scales(tuple(map(float, product))))


def _float_weights(
    it: State, name: str, weight: Array, scale: Array | None, bias: Array, form: tuple[int, tuple[int, ...]]
) -> tuple[Tensor, Tensor]:
    """Weights of a convolution that computes in float; codes stay codes in the file, and are dequantised when it is loaded."""
    axis, order = form
    offsets = constant(f"{name}/bias", bias)
    if scale is None:
        return constant(name, np.transpose(weight, order)), offsets
    wide = np.broadcast_to(scale.astype(np.float32), (len(weight),))
    codes = constant(f"{name}/codes", np.transpose(weight, order), "int8", Scales(tuple(map(float, wide)), axis=axis))
    made = Tensor(name, codes.shape)
    it.add("DEQUANTIZE", (codes,), made)
    return made, offsets


def padded(
    it: State, node: onnx.NodeProto, source: Tensor, kernel: Pair, strides: Pair, dilations: Pair = (1, 1)
) -> tuple[Tensor, int]:
    """The source and the kind of padding; where ONNX's numbers are neither of LiteRT's two, the source is padded before."""
    known = attributes(node)
    if known.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise refused(node, f"auto_pad {known['auto_pad'].decode()}")
    top, left, bottom, right = known.get("pads") or (0, 0, 0, 0)
    sides = ((top, bottom), (left, right))
    out = it.shape(node)[1:3]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    whole = list(zip(source.shape[1:3], spans, strides, out, sides, strict=True))
    if not any((top, left, bottom, right)) and all((n - k) // s + 1 == o for n, k, s, o, _ in whole):
        return source, VALID
    same = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s, *_ in whole]
    mean = node.op_type == "AveragePool"
    counted = mean and bool(known.get("count_include_pad", 0)) and any((top, left, bottom, right))
    if not counted and all(
        -(-n // s) == o and a == total // 2 and (b == total - total // 2 or mean)
        for (n, _, s, o, (a, b)), total in zip(whole, same, strict=True)
    ):
        return source, SAME
    needed = [(a, max((o - 1) * s + k - n - a, 0)) for n, k, s, o, (a, _) in whole]  # what no window reaches is left out
    if node.op_type == "Conv" and any(extra > given for (_, extra), (_, given) in zip(needed, sides, strict=True)):
        raise refused(node, f"pads {[top, left, bottom, right]} that windows leave")
    return _pad(it, node, source, needed), VALID


def _pad(it: State, node: onnx.NodeProto, source: Tensor, sides: list[Pair]) -> Tensor:
    (top, bottom), (left, right) = sides
    n, h, w, c = source.shape
    made = Tensor(f"{node.output[0]}/padded", (n, h + top + bottom, w + left + right, c), source.type, source.scales)
    amounts = constant(f"{node.output[0]}/pads", [[0, 0], [top, bottom], [left, right], [0, 0]], "int32")
    lowest = source.scales is not None and source.scales.zero == -128  # zero is the lowest value then
    if node.op_type != "MaxPool" or lowest:
        it.add("PAD", (source, amounts), made)
        return made
    least = -128 if source.type == "int8" else float(np.finfo(np.float32).min)
    it.add("PADV2", (source, amounts, constant(f"{node.output[0]}/least", [least], source.type, source.scales)), made)
    return made


def _pool(it: State, node: onnx.NodeProto) -> None:
    """In codes only where both sides have one scale, as LiteRT's kernels ask for."""
    known = attributes(node)
    kernel = tuple(known["kernel_shape"])
    if any(name in it.readers for name in node.output[1:]):
        raise refused(node, "with the places of its maxima as a result")
    if len(kernel) != 2 or _pair(known, "dilations") != (1, 1):
        raise refused(node, "a pool of another form than two dimensions without dilation")
    strides = _pair(known, "strides")
    codes, parts = it.codes.get(node.input[0]), None
    before = it.shapes[node.input[0]][2:]
    int8 = codes is not None and it.ends_in_codes(node) == codes.scales
    source = codes if int8 and codes is not None else it.value(node.input[0])
    source, padding = padded(it, node, source, (kernel[0], kernel[1]), strides)
    if node.op_type == "AveragePool" and padding == VALID:
        parts = _counted(before, known, kernel, strides, it.shape(node)[1:3])
        if parts is not None and int8:
            int8, (source, padding) = False, padded(it, node, it.value(node.input[0]), (kernel[0], kernel[1]), strides)
    out, _ = it.result(node, int8=int8)
    options: dict[str, Any] = {"padding": padding, "strideH": strides[0], "strideW": strides[1]}
    options |= {"filterHeight": kernel[0], "filterWidth": kernel[1]}
    if node.op_type == "MaxPool" or parts is None:
        it.add("MAX_POOL_2D" if node.op_type == "MaxPool" else "AVERAGE_POOL_2D", (source,), out, **options)
        return
    means = it.emit("AVERAGE_POOL_2D", (source,), out.shape, f"{out.name}/means", **options)
    it.add("MUL", (means, constant(f"{out.name}/counted", parts)), out, fusedActivationFunction=NONE)


def _counted(
    before: Sequence[int], known: dict[str, Any], kernel: Sequence[int], strides: Pair, after: Sequence[int]
) -> Array | None:  # fmt: skip
    """float32 [1, H, W, 1]: places of a window by those that its mean is of, where one is not of all; None: all are."""
    pads, include = known.get("pads") or [0] * 4, bool(known.get("count_include_pad", 0))
    rows = []
    for k in range(2):
        starts = np.arange(after[k]) * strides[k] - pads[k]
        low, high = (-pads[k], before[k] + pads[k + 2]) if include else (0, before[k])
        rows.append(kernel[k] / (np.minimum(starts + kernel[k], high) - np.maximum(starts, low)))
    found = np.outer(*rows)
    return None if (found == 1).all() else found.reshape(1, *found.shape, 1).astype(np.float32)


def _mean(it: State, node: onnx.NodeProto) -> None:
    shape = it.shapes[node.input[0]]
    axes = [2, 3] if node.op_type == "GlobalAveragePool" else []
    if not axes and len(node.input) > 1 and node.input[1]:
        axes = it.constants[node.input[1]].reshape(-1).tolist()
    if len(shape) != 4 or sorted(a % 4 for a in axes) != [2, 3]:
        floats.reduced("MEAN", it, node)
        return
    keep = node.op_type == "GlobalAveragePool" or bool(attributes(node).get("keepdims", 1))
    int8 = node.input[0] in it.codes and it.ends_in_codes(node) is not None
    source = it.codes[node.input[0]] if int8 else it.value(node.input[0])
    out, _ = it.result(node, int8=int8)
    it.add("MEAN", (source, constant(f"{node.output[0]}/axes", [1, 2], "int32")), out, keepDims=keep)


def _largest(it: State, node: onnx.NodeProto) -> None:
    source, out = it.value(node.input[0]), it.shape(node)
    axes = constant(f"{node.output[0]}/axes", list(range(1, len(out) - 1)), "int32")
    if len(out) != 4:
        raise refused(node, f"a map of {len(out)} axes")
    it.values[node.output[0]] = it.emit("REDUCE_MAX", (source, axes), out, node.output[0], keepDims=True)


def _binary(it: State, node: onnx.NodeProto) -> None:
    kind = {"Add": "ADD", "Mul": "MUL", "Sub": "SUB"}[node.op_type]
    inputs, int8 = it.inputs(node, int8=kind != "SUB" and it.ends_in_codes(node, activation=True) is not None)
    if int8:
        out, activation = it.result(node, int8=True, activation=True)
        it.add(kind, inputs, out, fusedActivationFunction=activation)
        return
    parts, order = floats.common(it, node)
    name, fused = node.output[0], NONE
    reader = it.only_reader(name)
    if reader is not None and (fused := it.rectifier(reader)):
        it.done.add(reader.output[0])
        name = reader.output[0]
    shape = [it.shapes[name][axis] for axis in order]
    moves.keep(it, name, it.emit(kind, tuple(parts), shape, name, fusedActivationFunction=fused), order)


def _sigmoid(it: State, node: onnx.NodeProto) -> None:
    inputs, int8 = it.inputs(node, int8=it.ends_in_codes(node) == GATE)
    out, _ = it.result(node, int8=int8)
    it.add("LOGISTIC", inputs, out)


def _hard_swish(it: State, node: onnx.NodeProto) -> None:
    inputs, int8 = it.inputs(node, int8=it.ends_in_codes(node) is not None)
    out, _ = it.result(node, int8=int8)
    it.add("HARD_SWISH", inputs, out)


def _rectify(it: State, node: onnx.NodeProto) -> None:
    kind = it.rectifier(node)
    if kind == NONE:
        floats.clip(it, node)
    else:
        floats.unary("RELU" if kind == RELU else "RELU6", it, node)


def _gemm(it: State, node: onnx.NodeProto) -> None:
    known = attributes(node)
    weight = it.constants.get(node.input[1])
    bias = it.constants.get(node.input[2]) if len(node.input) > 2 else np.float32(0)
    if weight is None or bias is None or known.get("transA", 0) or np.asarray(bias).shape[:-1] not in ((), (1,)):
        raise refused(node, "a matrix product of another form than rows times constant weights")
    weight = (weight if known.get("transB", 0) else weight.T) * np.float32(known.get("alpha", 1.0))
    bias = np.asarray(bias) * np.float32(known.get("beta", 1.0))
    out, activation = it.result(node, int8=False, activation=True)
    parts = constant(node.input[1], weight), constant(f"{node.input[1]}/bias", np.broadcast_to(bias.reshape(-1), len(weight)))
    it.add("FULLY_CONNECTED", (it.value(node.input[0]), *parts), out, fusedActivationFunction=activation)


def _cast(it: State, node: onnx.NodeProto) -> None:
    source = it.value(node.input[0])
    if source.type == "float32" and attributes(node)["to"] == onnx.TensorProto.FLOAT:
        moves.same(it, node)
        return
    if source.type not in TYPES or attributes(node)["to"] != onnx.TensorProto.FLOAT:
        raise refused(node, f"from {source.type}")
    out, _ = it.result(node, int8=False)
    it.add("CAST", (source,), out, inDataType=TYPES[source.type], outDataType=TYPES["float32"])


def _pair(known: dict[str, Any], name: str) -> Pair:
    first, second = known.get(name) or (1, 1)
    return first, second


OPERATORS: dict[str, Callable[[Any, onnx.NodeProto], None]] = {
    **moves.OPERATORS, **floats.OPERATORS,
    "Add": _binary, "AveragePool": _pool, "Cast": _cast, "Clip": _rectify, "Conv": _conv, "ConvTranspose": transposed,
    "DequantizeLinear": _dequantize, "Einsum": einsum,
    "Gemm": _gemm, "GlobalAveragePool": _mean, "GlobalMaxPool": _largest, "HardSwish": _hard_swish, "MaxPool": _pool,
    "Mul": _binary, "QuantizeLinear": _quantize, "ReduceMean": _mean, "Relu": _rectify, "Sigmoid": _sigmoid, "Sub": _binary,
}  # fmt: skip
