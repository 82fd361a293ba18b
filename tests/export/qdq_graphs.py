"""Quantised graphs, legal and not, from a few knobs: what the linter and the compiler are asked about."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 8
FLOATS = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16, np.float64: TensorProto.DOUBLE}


@dataclass(frozen=True)
class Knobs:
    """One layer. The defaults are a convolution as octc writes it; every other value is a deviation, legal or not.

    op: Conv, ConvTranspose, Gemm, MatMul. pairs: which sides stand behind Q/DQ ("both", "activation", "weight", "none").
    weight: codes (int8 + DQ), q (float + Q + DQ), transposed, reshaped, scaled, computed (from the input).
    scale: of the activation: init, constant, identity, computed, input, vector. bias: none, float, int32, int8.
    axis: of the weight's scales (None: one for all). between: an operator between DQ and the layer.
    """

    op: str = "Conv"
    cin: int = 16
    cout: int = 16
    kernel: tuple[int, ...] = (3, 3)
    group: int = 1
    stride: int = 1
    dilation: int = 1
    pairs: str = "both"
    weight: str = "codes"
    axis: int | None = 0
    bias: str = "float"
    scale: str = "init"
    act_scale: float = 0.05
    weight_scale: float = 0.01
    zero: int = 0
    weight_zero: int = 0
    code: Any = np.int8
    weight_code: Any = np.int8
    zero_given: bool = True
    scale_type: Any = None
    dq_scale: float | None = None
    act: str = ""
    between: str = ""
    inner: str = ""
    trans: bool = True
    extra: str = ""


@dataclass
class Builder:
    """Nodes and constants of a graph that is being written."""

    dtype: Any
    opset: int
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    count: int = 0
    promised: list[str] = field(default_factory=list)
    rng: Any = field(default_factory=lambda: np.random.default_rng(0))

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}_{self.count}"

    def const(self, array: Any, stem: str = "c") -> str:
        name = self.name(stem)
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        name = self.name(op)
        outs = [f"{name}_out{i}" if i else f"{name}_out" for i in range(outputs)]
        domain = attributes.pop("domain", "")
        self.nodes.append(helper.make_node(op, list(inputs), outs, name=name, domain=domain, **attributes))
        return outs[0]

    def last(self) -> str:
        return str(self.nodes[-1].name)


def scale_of(b: Builder, x: str, how: str, value: np.ndarray) -> str:
    """The scale of an activation, from where the knob wants it."""
    if how == "input":
        name = b.name("scale_in")
        b.inputs.append(helper.make_tensor_value_info(name, FLOATS[value.dtype.type], []))
        return name
    if how == "cast":
        return b.add("Cast", b.const(value.astype(np.float16), "scale16"), to=FLOATS[value.dtype.type])
    if how == "reshape":
        return b.add("Reshape", b.const(value.reshape(1), "scale1"), b.const(np.zeros(0, np.int64)))
    scale = b.const(value, "scale")
    if how == "constant":
        return b.add("Constant", value=numpy_helper.from_array(value))
    if how == "dynamic":
        return b.add("ReduceMax", x, keepdims=0)
    operators = {"identity": "Identity", "computed": "Abs"}
    return b.add(operators[how], scale) if how in operators else scale


def pair(b: Builder, x: str, k: Knobs, channels: int) -> str:
    """Q and DQ of an activation, by the knobs."""
    kind = k.scale_type or b.dtype
    value = np.asarray(k.act_scale, kind)
    axis = {}
    if k.scale == "vector":
        value = np.full(channels, k.act_scale, kind)
        axis = {"axis": 1}
    elif k.scale == "one":
        value = np.asarray([k.act_scale], kind)
    scale = scale_of(b, x, k.scale, value)
    zero = [b.const(np.full(value.shape, k.zero, k.code), "zero")] if k.zero_given else []
    back = scale if k.dq_scale is None else b.const(np.asarray(k.dq_scale, kind), "scale")
    codes = b.add("QuantizeLinear", x, scale, *zero, **axis)
    if k.inner:
        codes = inner(b, codes, k.inner)
    return b.add("DequantizeLinear", codes, back, *zero, **axis)


def inner(b: Builder, codes: str, op: str) -> str:
    """An operator on the codes, between Q and DQ."""
    if op == "MaxPool":
        return b.add("MaxPool", codes, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return b.add(op, codes)


def weight(b: Builder, x: str, k: Knobs, shape: tuple[int, ...]) -> str:
    """The weight behind its DQ, by the knobs."""
    kind = k.scale_type or b.dtype
    if k.pairs in ("activation", "none"):
        return b.const(b.rng.normal(0, 0.3, shape).astype(b.dtype), "w")
    count = None if k.axis is None else shape[k.axis]
    value = np.full([] if count is None else [count], k.weight_scale, kind)
    zeros = b.const(np.full(value.shape, k.weight_zero, k.weight_code), "wzero")
    scale = b.const(value, "wscale")
    axis = {} if k.axis is None else {"axis": k.axis}
    codes = b.rng.integers(0 if k.weight_code == np.uint8 else -127, 128, shape).astype(k.weight_code)
    if k.weight in ("q", "q_identity", "q_other"):
        floats = b.const((codes.astype(np.float32) * np.float32(0.01)).astype(b.dtype), "w")
        floats = b.add("Identity", floats) if k.weight == "q_identity" else floats
        other = b.const(value * kind(1.5), "wscale") if k.weight == "q_other" else scale
        return b.add("DequantizeLinear", b.add("QuantizeLinear", floats, scale, zeros, **axis), other, zeros, **axis)
    if k.weight in ("one", "short", "blocked"):
        return scaled_wrongly(b, k, codes, value)
    if k.weight == "input":
        name = b.name("w_in")
        b.inputs.append(helper.make_tensor_value_info(name, TensorProto.INT8, shape))
        return b.add("DequantizeLinear", name, scale, zeros, **axis)
    if k.weight == "transposed":
        order = [1, 0, *range(2, len(shape))]
        turned = b.const(np.transpose(codes, order), "w")
        swapped = {} if k.axis is None else {"axis": order[k.axis]}
        return b.add("Transpose", b.add("DequantizeLinear", turned, scale, zeros, **swapped), perm=order)
    return behind(b, x, k, shape, b.add("DequantizeLinear", b.const(codes, "w"), scale, zeros, **axis))


def scaled_wrongly(b: Builder, k: Knobs, codes: np.ndarray, value: np.ndarray) -> str:
    """A DQ of stored codes with one scale, with one too few, or with one a block."""
    few = (len(value) - 1,) if k.weight == "short" else (len(codes) // 2, *codes.shape[1:])
    shape = (1,) if k.weight == "one" else few
    scales = b.const(np.full(shape, k.weight_scale, value.dtype), "wscale")
    more = {"block_size": 2} if k.weight == "blocked" else {}
    return b.add("DequantizeLinear", b.const(codes, "w"), scales, b.const(np.zeros(shape, np.int8), "wzero"), axis=0, **more)


def behind(b: Builder, x: str, k: Knobs, shape: tuple[int, ...], out: str) -> str:
    """An operator between the weight's DQ and the layer."""
    if k.weight == "cast":
        return b.add("Cast", out, to=FLOATS[b.dtype])
    if k.weight == "relu":
        return b.add("Relu", out)
    if k.weight == "scaled":
        return b.add("Mul", out, b.const(np.full((shape[0], *[1] * (len(shape) - 1)), 1.5, b.dtype)))
    if k.weight == "reshaped":
        return b.add("Reshape", out, b.const(np.array(shape, np.int64)))
    if k.weight == "computed":
        return b.add("Add", out, b.add("ReduceMean", x, keepdims=0))
    return out


def bias(b: Builder, k: Knobs, count: int) -> list[str]:
    """The bias, by the knobs."""
    kind = k.scale_type or b.dtype
    if k.bias == "none":
        return []
    if k.bias == "float":
        return [b.const(b.rng.normal(0, 1, count).astype(b.dtype), "b")]
    code = np.int32 if k.bias == "int32" else np.int8
    scale = b.const(np.asarray(k.act_scale * k.weight_scale, kind), "bscale")
    zero = b.const(np.zeros([], code), "bzero")
    return [b.add("DequantizeLinear", b.const(b.rng.integers(-100, 100, count).astype(code), "b"), scale, zero)]


def between(b: Builder, a: str, k: Knobs) -> str:
    """An operator between the DQ and the layer."""
    if k.between in ("MaxPool", "AveragePool"):
        return b.add(k.between, a, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    if k.between == "Pad":
        return b.add("Pad", a, b.const(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)))
    if k.between == "Cast":
        return b.add("Cast", a, to=FLOATS[b.dtype])
    if k.between == "Transpose":
        return b.add("Transpose", a, perm=[0, 1, 3, 2])
    if k.between == "Concat":
        return b.add("Concat", a, a, axis=2)
    if k.between == "Slice":
        return b.add("Slice", a, *(b.const(np.array([v], np.int64)) for v in (0, 6, 2)))
    if k.between == "Reshape":
        return b.add("Reshape", a, b.const(np.array([1, k.cin, 4, 16], np.int64)))
    if k.between == "Mul":
        return b.add("Mul", a, b.const(np.asarray(2, b.dtype)))
    if k.between == "Resize":
        return b.add("Resize", a, "", b.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    return b.add(k.between, a)


def layer(b: Builder, x: str, k: Knobs) -> str:
    """One layer with what stands around it."""
    a = pair(b, x, k, k.cin) if k.pairs in ("both", "activation") else x
    if k.between:
        a = between(b, a, k)
    if k.op in ("Gemm", "MatMul"):
        flat = b.add("Flatten", b.add("GlobalAveragePool", x))
        a = pair(b, flat, k, k.cin) if k.pairs in ("both", "activation") else flat
        shape = (k.cout, k.cin) if k.trans and k.op == "Gemm" else (k.cin, k.cout)
        w = weight(b, x, k, shape)
        out = b.add("Gemm", a, w, *bias(b, k, k.cout), transB=int(k.trans)) if k.op == "Gemm" else b.add("MatMul", a, w)
    else:
        turned = k.op == "ConvTranspose"
        shape = (k.cin, k.cout // k.group, *k.kernel) if turned else (k.cout, k.cin // k.group, *k.kernel)
        pads = [k.dilation * (side // 2) for side in k.kernel] * 2
        more = {"kernel_shape": list(k.kernel), "pads": pads, "group": k.group, "strides": [k.stride] * len(k.kernel)}
        w, v = weight(b, x, k, shape), bias(b, k, k.cout)
        out = b.add(k.op, a, w, *v, dilations=[k.dilation] * len(k.kernel), **more)
    b.promised += [b.last()] if k.pairs != "none" else []
    if k.act == "Silu":
        out = b.add("Mul", out, b.add("Sigmoid", out))
    elif k.act:
        out = b.add(k.act, out)
    return extra(b, out, k)


def extra(b: Builder, x: str, k: Knobs) -> str:
    """Something else behind the layer."""
    plain = replace(Knobs(), act_scale=0.03)
    if k.extra == "quantised_silu":
        return b.add("Mul", x, pair(b, b.add("Sigmoid", x), plain, k.cout))
    if k.extra == "residual":
        return b.add("Add", x, pair(b, b.add("Identity", x), plain, k.cout))
    if k.extra in ("Col2Im", "DynamicQuantizeLinear"):
        b.add(k.extra, x, outputs=3 if k.extra.startswith("Dyn") else 1)
    if k.extra == "microsoft":
        return b.add("BiasGelu", x, b.const(np.zeros(SIDE, b.dtype)), domain="com.microsoft")
    if k.extra == "integer":
        codes = b.const(np.ones((k.cout, k.cout, 1, 1), np.int8))
        q = b.add("QuantizeLinear", x, b.const(np.float32(1)), b.const(np.int8(0)))
        return b.add("Cast", b.add("ConvInteger", q, codes), to=FLOATS[b.dtype])
    if k.extra == "nan":
        return b.add("Add", x, b.const(np.full(1, np.nan, b.dtype)))
    if k.extra == "int8_output":
        q = b.add("QuantizeLinear", x, b.const(np.asarray(0.1, b.dtype)), b.const(np.int8(0)))
        b.outputs.append(helper.make_tensor_value_info(q, TensorProto.INT8, [None] * 4))
    return x


def model(
    layers: list[Knobs], *, opset: int = 17, dtype: Any = np.float32, batch: Any = 1, side: Any = SIDE
) -> onnx.ModelProto:
    """A chain of layers on an input [batch, cin, side, side]; promised layers stand in the metadata."""
    b = Builder(dtype, opset)
    spatial = len(layers[0].kernel)
    b.inputs.append(helper.make_tensor_value_info("image", FLOATS[dtype], [batch, layers[0].cin, *[side] * spatial]))
    x, flat = "image", any(k.op in ("Gemm", "MatMul") for k in layers)
    for k in layers:
        x = layer(b, x, k)
    b.outputs.insert(0, helper.make_tensor_value_info(x, FLOATS[dtype], [None] * (2 if flat else spatial + 2)))
    domains = [helper.make_opsetid("", opset)] + [helper.make_opsetid("com.microsoft", 1)] * any(n.domain for n in b.nodes)
    proto = helper.make_model(
        helper.make_graph(b.nodes, "g", b.inputs, b.outputs, b.constants),
        opset_imports=domains,
        ir_version=10 if opset > 20 else 9,
    )
    proto.metadata_props.add(key="promised", value=" ".join(b.promised))
    return proto
