"""ONNX, as octc writes it, to a LiteRT graph: same operators, same quantisers, channels last.

An operator whose inputs are quantised and whose result is read by one QuantizeLinear alone becomes an INT8 operator with that
quantiser on its output; every other one computes in float between DEQUANTIZE and QUANTIZE. Codes of weights are the file's own,
bit for bit; uint8 activations become int8 by moving code and zero-point by 128. Biases are int32 with the scale of the product.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from octc.core.errors import OctcError
from octc.export.litert.graph import Array, Graph, Operation, Scales, Tensor, constant

HINT = "octc export --target onnx"
LARGEST_BIAS = 2.0**30  # codes
GATE = Scales((1 / 256,), -128)  # the only one that LOGISTIC gives
SAME, VALID = 0, 1  # Padding of the schema
NONE, RELU, RELU6 = 0, 1, 3  # ActivationFunctionType of the schema
TYPES = {"float32": 0, "uint8": 3}  # TensorType of the schema
Pair = tuple[int, int]


def translate(proto: onnx.ModelProto) -> Graph:
    """The graph, for one image (the batch axis stays free in the file).

    Raises:
        OctcError: E407 an operator, or a form of it, that is not translated.
    """
    return _Translation(_of_one_image(proto)).run()


def _of_one_image(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with batch 1 and all shapes known; what stands behind a pool of maxima is quantised before it too."""
    single = onnx.ModelProto()
    single.CopyFrom(proto)
    _quantise_before_pools(single.graph)
    for value in single.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    return shape_inference.infer_shapes(single, strict_mode=True, data_prop=True)


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
            codes, floats = f"{node.output[0]}/before/codes", f"{node.output[0]}/before"
            nodes.append(helper.make_node("QuantizeLinear", [source, scale, zero], [codes]))
            nodes.append(helper.make_node("DequantizeLinear", [codes, scale, zero], [floats]))
            node.input[0] = floats
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def refused(node: onnx.NodeProto, why: str) -> OctcError:
    """What cannot be written for LiteRT (E407)."""
    return OctcError("OCT-E407", f"LiteRT: {node.op_type} {node.output[0]}: {why}", hint=HINT, place=node.output[0])


class _Translation:
    """The state of one translation. values: what stands for a float value of ONNX; codes: its quantised form, if it has one."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = proto.graph
        self.nodes = list(graph.node)
        self.constants: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        typed = [*graph.value_info, *graph.input, *graph.output]
        self.shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in typed}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)
        self.values: dict[str, Tensor] = {}
        self.codes: dict[str, Tensor] = {}
        self.weights: dict[str, tuple[Array, Array]] = {}
        self.done: set[str] = set()  # outputs of nodes that are part of another operator
        self.outputs = {value.name for value in graph.output}
        (image,) = [v for v in graph.input if v.name not in self.constants]
        self.source = Tensor(image.name, channels_last(self.shapes[image.name]), "uint8")
        self.values[image.name] = self.source
        self.operations: list[Operation] = []

    def run(self) -> Graph:
        for node in self.nodes:
            if node.output[0] in self.done:
                continue
            if node.op_type not in OPERATORS:
                raise refused(node, "there is no such operator in what octc writes for LiteRT")
            OPERATORS[node.op_type](self, node)
        (name,) = self.outputs
        return Graph(self.source, self.value(name), self.operations)

    # values

    def value(self, name: str) -> Tensor:
        """A float tensor; what is there in codes alone is dequantised, once."""
        if name not in self.values and name in self.constants:
            data = self.constants[name]
            self.values[name] = constant(name, np.transpose(data, (0, 2, 3, 1)) if data.ndim == 4 else data, str(data.dtype))
        if name not in self.values:
            made = Tensor(f"{name}/float", self.codes[name].shape)
            self.add("DEQUANTIZE", (self.codes[name],), made)
            self.values[name] = made
        return self.values[name]

    def shape(self, node: onnx.NodeProto) -> tuple[int, ...]:
        return channels_last(self.shapes[node.output[0]])

    def add(self, kind: str, inputs: tuple[Tensor, ...], output: Tensor, **options: Any) -> None:
        self.operations.append(Operation(kind, inputs, output, options))

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads a value, if one does and it is no output of the graph."""
        found = self.readers[name]
        return found[0] if len(found) == 1 and name not in self.outputs else None

    # quantisers

    def scales(self, node: onnx.NodeProto) -> Scales:
        scale, zero = self.constants[node.input[1]], self.constants[node.input[2]]
        if scale.size != 1:
            raise refused(node, "activations with several scales")
        return Scales((float(scale.reshape(())),), int(zero.reshape(())) - (128 if zero.dtype == np.uint8 else 0))

    def quantised(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """The tensor of codes of a value that one QuantizeLinear alone reads; that node is then part of the operator."""
        node = self.only_reader(name)
        if node is None or node.op_type != "QuantizeLinear":
            return None
        made = Tensor(f"{name}/codes", shape, "int8", self.scales(node))
        self.done.add(node.output[0])
        self.dequantised(node, made)
        return made

    def dequantised(self, node: onnx.NodeProto, codes: Tensor) -> None:
        """What every DequantizeLinear behind a QuantizeLinear gives is known by its codes."""
        for reader in self.readers[node.output[0]]:
            if reader.op_type != "DequantizeLinear":
                raise refused(reader, "an operator of ONNX that reads codes")
            self.codes[reader.output[0]] = codes
            self.done.add(reader.output[0])

    def result(self, node: onnx.NodeProto, *, int8: bool, activation: bool = False) -> tuple[Tensor, int]:
        """The tensor that an operator writes, and the activation that is part of it.

        int8: the operator can write codes (all its inputs are codes). activation: it can end in a rectifier.
        """
        name, shape, fused = node.output[0], self.shape(node), NONE
        reader = self.only_reader(name) if activation else None
        if reader is not None and (kind := self.rectifier(reader)):
            fused, name = kind, reader.output[0]
            self.done.add(name)
        made = self.quantised(name, shape) if int8 else None
        if made is None:
            made = self.values[name] = Tensor(name, shape)
        return made, fused

    def rectifier(self, node: onnx.NodeProto) -> int:
        if node.op_type == "Relu":
            return RELU
        if node.op_type == "Clip":
            bounds = [self.constants.get(name) for name in node.input[1:]]
            known = [None if bound is None else float(bound.reshape(())) for bound in bounds]
            return RELU6 if known == [0.0, 6.0] else NONE
        return NONE

    def inputs(self, node: onnx.NodeProto, *, int8: bool = True) -> tuple[tuple[Tensor, ...], bool]:
        """All inputs as codes where all are and one QuantizeLinear reads what comes of them, else as floats."""
        if int8 and all(name in self.codes for name in node.input):
            return tuple(self.codes[name] for name in node.input), True
        return tuple(self.value(name) for name in node.input), False

    def ends_in_codes(self, node: onnx.NodeProto, *, activation: bool = False) -> Scales | None:
        """The scales behind a node (and the rectifier that it can take up), where its result is quantised."""
        reader = self.only_reader(node.output[0])
        if activation and reader is not None and self.rectifier(reader):
            reader = self.only_reader(reader.output[0])
        return self.scales(reader) if reader is not None and reader.op_type == "QuantizeLinear" else None


# operators: (translation, node); each adds what it needs


def _quantize(it: _Translation, node: onnx.NodeProto) -> None:
    source = it.codes.get(node.input[0]) or it.value(node.input[0])
    codes = Tensor(f"{node.input[0]}/codes/{node.output[0]}", source.shape, "int8", it.scales(node))
    it.add("QUANTIZE", (source,), codes)
    it.dequantised(node, codes)


def _dequantize(it: _Translation, node: onnx.NodeProto) -> None:
    """Of weights: codes of activations are met behind their QuantizeLinear."""
    if node.input[0] not in it.constants:
        raise refused(node, "codes that no QuantizeLinear made")
    it.weights[node.output[0]] = it.constants[node.input[0]], np.atleast_1d(it.constants[node.input[1]])


def _conv(it: _Translation, node: onnx.NodeProto) -> None:
    known = attributes(node)
    name, group = node.input[1], int(known.get("group", 1))
    codes, scale = it.weights.get(name, (None, None))
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
    it: _Translation, name: str, weight: Array, scale: Array | None, bias: Array, form: tuple[int, tuple[int, ...]]
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
    it: _Translation, node: onnx.NodeProto, source: Tensor, kernel: Pair, strides: Pair, dilations: Pair = (1, 1)
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
    if all(
        -(-n // s) == o and a == total // 2 and (b == total - total // 2 or node.op_type == "AveragePool")
        for (n, _, s, o, (a, b)), total in zip(whole, same, strict=True)
    ):
        return source, SAME
    needed = [(a, max((o - 1) * s + k - n - a, 0)) for n, k, s, o, (a, _) in whole]  # what no window reaches is left out
    if any(extra > given for (_, extra), (_, given) in zip(needed, sides, strict=True)):
        raise refused(node, f"pads {[top, left, bottom, right]} with ceil_mode")
    if node.op_type == "AveragePool" and not known.get("count_include_pad", 0):
        raise refused(node, f"pads {[top, left, bottom, right]} that the mean leaves out")
    return _pad(it, node, source, needed), VALID


def _pad(it: _Translation, node: onnx.NodeProto, source: Tensor, sides: list[Pair]) -> Tensor:
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


def _pool(it: _Translation, node: onnx.NodeProto) -> None:
    """In codes only where both sides have one scale, as LiteRT's kernels ask for."""
    known = attributes(node)
    kernel, strides = tuple(known["kernel_shape"]), _pair(known, "strides")
    if len(kernel) != 2 or _pair(known, "dilations") != (1, 1):
        raise refused(node, "a pool of another form than two dimensions without dilation")
    codes = it.codes.get(node.input[0])
    int8 = codes is not None and it.ends_in_codes(node) == codes.scales
    source = codes if int8 and codes is not None else it.value(node.input[0])
    source, padding = padded(it, node, source, (kernel[0], kernel[1]), strides)
    out, _ = it.result(node, int8=int8)
    options = {"padding": padding, "strideH": strides[0], "strideW": strides[1]}
    kind = "MAX_POOL_2D" if node.op_type == "MaxPool" else "AVERAGE_POOL_2D"
    it.add(kind, (source,), out, filterHeight=kernel[0], filterWidth=kernel[1], **options)


def _mean(it: _Translation, node: onnx.NodeProto) -> None:
    shape = it.shapes[node.input[0]]
    axes = [2, 3] if node.op_type == "GlobalAveragePool" else it.constants[node.input[1]].reshape(-1).tolist()
    if len(shape) != 4 or sorted(a % 4 for a in axes) != [2, 3]:
        raise refused(node, f"a mean over axes {axes} of {len(shape)}")
    keep = node.op_type == "GlobalAveragePool" or bool(attributes(node).get("keepdims", 1))
    int8 = node.input[0] in it.codes and it.ends_in_codes(node) is not None
    source = it.codes[node.input[0]] if int8 else it.value(node.input[0])
    out, _ = it.result(node, int8=int8)
    it.add("MEAN", (source, constant(f"{node.output[0]}/axes", [1, 2], "int32")), out, keepDims=keep)


def _binary(it: _Translation, node: onnx.NodeProto) -> None:
    kind = {"Add": "ADD", "Mul": "MUL", "Sub": "SUB"}[node.op_type]
    inputs, int8 = it.inputs(node, int8=kind != "SUB" and it.ends_in_codes(node, activation=True) is not None)
    out, activation = it.result(node, int8=int8, activation=True)
    it.add(kind, inputs, out, fusedActivationFunction=activation)


def _sigmoid(it: _Translation, node: onnx.NodeProto) -> None:
    inputs, int8 = it.inputs(node, int8=it.ends_in_codes(node) == GATE)
    out, _ = it.result(node, int8=int8)
    it.add("LOGISTIC", inputs, out)


def _hard_swish(it: _Translation, node: onnx.NodeProto) -> None:
    inputs, int8 = it.inputs(node, int8=it.ends_in_codes(node) is not None)
    out, _ = it.result(node, int8=int8)
    it.add("HARD_SWISH", inputs, out)


def _rectify(it: _Translation, node: onnx.NodeProto) -> None:
    kind = it.rectifier(node)
    if kind == NONE:
        raise refused(node, "bounds other than 0 and 6")
    out, _ = it.result(node, int8=False)
    it.add("RELU" if kind == RELU else "RELU6", (it.value(node.input[0]),), out)


def _concat(it: _Translation, node: onnx.NodeProto) -> None:
    rank, axis = len(it.shapes[node.output[0]]), attributes(node)["axis"]
    behind = it.ends_in_codes(node)
    inputs, int8 = it.inputs(node, int8=all(n in it.codes and it.codes[n].scales == behind for n in node.input))
    out, _ = it.result(node, int8=int8)
    it.add("CONCATENATION", inputs, out, axis=(0, 3, 1, 2)[axis % rank] if rank == 4 else axis % rank)


def _reshape(it: _Translation, node: onnx.NodeProto) -> None:
    """Of a map to a row: where it is larger than 1 x 1, its values are put into ONNX's order first."""
    source, out = it.value(node.input[0]), it.shape(node)
    if len(out) != 2 or len(source.shape) not in (2, 4):
        raise refused(node, f"from {len(source.shape)} to {len(out)} dimensions")
    if len(source.shape) == 4 and source.shape[1] * source.shape[2] > 1:
        n, h, w, c = source.shape
        moved = Tensor(f"{node.output[0]}/moved", (n, c, h, w))
        it.add("TRANSPOSE", (source, constant(f"{node.output[0]}/order", [0, 3, 1, 2], "int32")), moved)
        source = moved
    made = it.values[node.output[0]] = Tensor(node.output[0], out)
    row = [-1, out[1]]
    it.add("RESHAPE", (source, constant(f"{node.output[0]}/shape", row, "int32")), made, newShape=row)


def _gemm(it: _Translation, node: onnx.NodeProto) -> None:
    known = attributes(node)
    weight = it.constants.get(node.input[1])
    plain = known.get("alpha", 1.0) == 1.0 and known.get("beta", 1.0) == 1.0 and not known.get("transA", 0)
    if weight is None or not plain or it.shapes[node.input[0]][0] != 1:
        raise refused(node, "a matrix product of another form than rows times constant weights")
    weight = weight if known.get("transB", 0) else weight.T
    bias = it.constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight))
    out, activation = it.result(node, int8=False, activation=True)
    parts = constant(node.input[1], weight), constant(f"{node.input[1]}/bias", np.broadcast_to(bias.reshape(-1), len(weight)))
    it.add("FULLY_CONNECTED", (it.value(node.input[0]), *parts), out, fusedActivationFunction=activation)


def _cast(it: _Translation, node: onnx.NodeProto) -> None:
    source = it.value(node.input[0])
    if source.type not in TYPES or attributes(node)["to"] != onnx.TensorProto.FLOAT:
        raise refused(node, f"from {source.type}")
    out, _ = it.result(node, int8=False)
    it.add("CAST", (source,), out, inDataType=TYPES[source.type], outDataType=TYPES["float32"])


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


def _pair(known: dict[str, Any], name: str) -> Pair:
    first, second = known.get(name) or (1, 1)
    return first, second


OPERATORS: dict[str, Callable[[_Translation, onnx.NodeProto], None]] = {
    "Add": _binary, "AveragePool": _pool, "Cast": _cast, "Clip": _rectify, "Concat": _concat, "Conv": _conv,
    "DequantizeLinear": _dequantize, "Flatten": _reshape, "Gemm": _gemm, "GlobalAveragePool": _mean, "HardSwish": _hard_swish,
    "MaxPool": _pool, "Mul": _binary, "QuantizeLinear": _quantize, "ReduceMean": _mean, "Relu": _rectify, "Reshape": _reshape,
    "Sigmoid": _sigmoid, "Sub": _binary,
}  # fmt: skip
