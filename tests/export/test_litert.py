"""ONNX to LiteRT: every operator that is translated gives onnxruntime's numbers, and what is not translated is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

from octc.core.errors import OctcError
from octc.export.litert.flatbuffer import to_bytes
from octc.export.litert.graph import Graph
from octc.export.litert.translate import translate
from octc.export.litert.write import write_litert
from octc.runtimes.onnxrt import reference_session

RNG = np.random.default_rng(0)
SHAPE = (4, 9, 10)  # channels, height, width of the image: sides that show transposed axes
Node = onnx.NodeProto


def made(nodes: Sequence[Node], constants: dict[str, Any]) -> onnx.ModelProto:
    """uint8 "image" [n, 4, 9, 10] -> Cast to "x" -> nodes -> float "y"."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", *SHAPE])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    cast = helper.make_node("Cast", ["image"], ["raw"], to=TensorProto.FLOAT)
    scaled = helper.make_node("Mul", ["raw", "scale"], ["x"])
    weights.append(numpy_helper.from_array(np.float32(1 / 64).reshape(1, 1, 1, 1), "scale"))
    graph = helper.make_graph([cast, scaled, *nodes], "g", [image], [out], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> Node:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def answers(proto: onnx.ModelProto, count: int = 1) -> tuple[Graph, Any, Any]:
    """The LiteRT graph, its answer and onnxruntime's, in ONNX's order of axes."""
    images = RNG.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    expected = reference_session(proto.SerializeToString()).run(None, {"image": images})[0]
    graph = translate(proto)
    interpreter = Interpreter(model_content=to_bytes(graph), num_threads=1)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (count, *SHAPE[1:], SHAPE[0]))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images.transpose(0, 2, 3, 1))
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return graph, found.transpose(0, 3, 1, 2) if found.ndim == 4 else found, expected


def kinds(graph: Graph) -> list[str]:
    return [f"{one.kind} {one.output.type}" for one in graph.operations[2:]]


def weight(*shape: int) -> Any:
    return RNG.normal(0, 0.3, shape).astype(np.float32)


FLOAT: dict[str, tuple[list[Node], dict[str, Any]]] = {
    "conv": ([node("Conv", "x w b")], {"w": weight(6, 4, 3, 3), "b": weight(6)}),
    "conv, same on both sides": ([node("Conv", "x w", pads=[1, 1, 1, 1])], {"w": weight(6, 4, 3, 3)}),
    "conv, stride 2, torch's padding": ([node("Conv", "x w", pads=[1, 1, 1, 1], strides=[2, 2])], {"w": weight(6, 4, 3, 3)}),
    "conv, padded on one side": ([node("Conv", "x w", pads=[0, 0, 2, 1], strides=[2, 2])], {"w": weight(6, 4, 3, 3)}),
    "conv, kernel of two sides": ([node("Conv", "x w", pads=[2, 0, 2, 0])], {"w": weight(6, 4, 5, 1)}),
    "conv, dilated": ([node("Conv", "x w", dilations=[2, 2], pads=[2, 2, 2, 2])], {"w": weight(6, 4, 3, 3)}),
    "conv, groups": ([node("Conv", "x w", group=2)], {"w": weight(6, 2, 3, 3)}),
    "depthwise": ([node("Conv", "x w", group=4, pads=[1, 1, 1, 1])], {"w": weight(4, 1, 3, 3)}),
    "depthwise, two for each": ([node("Conv", "x w", group=4)], {"w": weight(8, 1, 3, 3)}),
    "conv and ReLU": ([node("Conv", "x w", "c"), node("Relu", "c")], {"w": weight(6, 4, 3, 3)}),
    "conv and ReLU6": (
        [node("Conv", "x w", "c"), node("Clip", "c low high")],
        {"w": 3 * weight(6, 4, 3, 3), "low": np.float32(0), "high": np.float32(6)},
    ),
    "a rectifier by itself": ([node("Sub", "x s", "d"), node("Relu", "d")], {"s": weight(1, 4, 1, 1) + 2}),
    "SiLU": ([node("Sigmoid", "x", "s"), node("Mul", "x s")], {}),
    "hard-swish": ([node("Sub", "x s", "d"), node("HardSwish", "d")], {"s": weight(1, 4, 1, 1) + 2}),
    "a sum for each channel": ([node("Add", "x s")], {"s": weight(1, 4, 1, 1)}),
    "largest": ([node("Sub", "x s", "d"), node("MaxPool", "d", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
                {"s": np.full((1, 4, 1, 1), 9, np.float32)}),
    "mean of two": ([node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)], {}),
    "mean that counts zeros": (
        [node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)], {},
    ),
    "mean of the map": ([node("GlobalAveragePool", "x")], {}),
    "mean over axes": ([node("ReduceMean", "x a", keepdims=0)], {"a": np.int64([2, 3])}),
    "side by side": ([node("Concat", "x x", axis=1)], {}),
    "head": (
        [node("GlobalAveragePool", "x", "p"), node("Flatten", "p", "f"), node("Gemm", "f w b", transB=1)],
        {"w": weight(3, 4), "b": weight(3)},
    ),
    "conditions": (
        [node("Greater", "x a", "p"), node("Less", "x b", "q"), node("And", "p q", "r"), node("Not", "q", "s"),
         node("Or", "r s", "t"), node("Cast", "t", to=TensorProto.FLOAT)], {"a": np.float32(1), "b": np.float32(3)},
    ),
    "einsum of every image's own": (
        [node("Flatten", "x", "f"), node("Reshape", "f s", "r"), node("Einsum", "r r", "a", equation="bhic,bhjc->bhij"),
         node("Einsum", "a r", equation="bhij,bhjc->bihc")], {"s": np.int64([0, 4, 9, 10])},
    ),
    "einsum with tables": (
        [node("Einsum", "x c h", equation="bchw,cd,hg->bdgw")], {"c": weight(4, 5), "h": weight(9, 3)},
    ),
    "einsum, images inside": ([node("Einsum", "w x", equation="ij, bjhw")], {"w": weight(5, 4)}),
    "einsum of one, with sums": ([node("Einsum", "x", equation="bchw->whb")], {}),
    "transposed": ([node("ConvTranspose", "x w b")], {"w": weight(4, 6, 3, 2), "b": weight(6)}),
    "transposed, strides": (
        [node("ConvTranspose", "x w", strides=[2, 3], pads=[1, 0, 1, 2], output_padding=[1, 2])], {"w": weight(4, 6, 3, 4)},
    ),
    "transposed, borders wider than the kernel": (
        [node("ConvTranspose", "x w", strides=[2, 2], pads=[3, 2, 4, 2])], {"w": weight(4, 6, 2, 3)},
    ),
    "transposed, groups and dilated": ([node("ConvTranspose", "x w", group=2, dilations=[2, 1])], {"w": weight(4, 3, 3, 3)}),
    "transposed, a group a channel": ([node("ConvTranspose", "x w", group=4, strides=[2, 2])], {"w": weight(4, 2, 2, 2)}),
    "functions": (
        [node("Tanh", "x", "a"), node("Exp", "a", "b"), node("Log", "b", "c"), node("Sqrt", "b", "d"), node("Neg", "c", "e"),
         node("Sin", "e", "f"), node("Cos", "d", "g"), node("Abs", "f", "h"), node("Sum", "g h d")], {},
    ),
    "GELU": ([node("Sub", "x s", "d"), node("Gelu", "d")], {"s": weight(1, 4, 1, 1) + 2}),
    "GELU by tanh": ([node("Sub", "x s", "d"), node("Gelu", "d", approximate="tanh")], {"s": weight(1, 4, 1, 1) + 2}),
    "ELU, CELU and SELU": (
        [node("Sub", "x s", "d"), node("Elu", "d", "a", alpha=0.5), node("Celu", "d", "b", alpha=2.0), node("Selu", "d", "c"),
         node("Elu", "d", "e"), node("Sum", "a b c e")], {"s": weight(1, 4, 1, 1) + 2},
    ),
    "Mish, softplus and softsign": (
        [node("Sub", "x s", "d"), node("Mish", "d", "a"), node("Softplus", "d", "b"), node("Softsign", "d", "c"),
         node("Sum", "a b c")],
        {"s": np.float32(2)},
    ),
    "hard sigmoid": (
        [node("Sub", "x s", "d"), node("HardSigmoid", "d", "a", alpha=1 / 6, beta=0.5), node("Mul", "d a")],
        {"s": np.float32(2)},
    ),
    "leaky, and a slope for each channel": (
        [node("Sub", "x s", "d"), node("LeakyRelu", "d", "a", alpha=0.2), node("PRelu", "d p", "b"), node("Add", "a b")],
        {"s": np.float32(2), "p": weight(4, 1, 1)},
    ),
    "other bounds": ([node("Clip", "x low high")], {"low": np.float32(0.5), "high": np.float32(2.5)}),
    "powers": (
        [node("Pow", "x two", "a"), node("Pow", "x three", "b"), node("Pow", "x odd", "c"), node("Sum", "a b c")],
        {"two": np.float32(2), "three": np.float32(3), "odd": np.float32(1.7)},
    ),
    "a row for each channel, of three axes": ([node("Mul", "x s")], {"s": weight(4, 1, 1)}),
    "a row for each column": ([node("Add", "x s")], {"s": weight(10)}),
    "a map of two axes": ([node("Div", "x s")], {"s": weight(9, 10) + 2}),
    "values that are chosen": (
        [node("Greater", "x t", "m"), node("Mul", "x h", "a"), node("Where", "m x a")],
        {"t": np.float32(1.5), "h": np.float32(0.1)},
    ),
    "largest and smallest": ([node("Max", "x s", "a"), node("Min", "a t")], {"s": weight(4, 1, 1) + 1, "t": np.float32(2)}),
    "largest of the map": ([node("GlobalMaxPool", "x")], {}),
    "means and maxima of channels": (
        [node("ReduceMean", "x c", "a"), node("ReduceMax", "x c", "b"), node("Concat", "a b", axis=1)], {"c": np.int64([1])},
    ),
    "mean of rows": ([node("ReduceMean", "x c", keepdims=0)], {"c": np.int64([2])}),
    "length of a row": ([node("ReduceL2", "x c", "a"), node("Div", "x a")], {"c": np.int64([1])}),
    "mean that leaves zeros out": ([node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 0, 0])], {}),
    "mean that counts zeros, stride 1": (
        [node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)], {},
    ),
    "mean past the end": (
        [node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1, count_include_pad=1)],
        {},
    ),
    "largest past the end": ([node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}),
    "borders": ([node("Pad", "x p")], {"p": np.int64([0, 0, 1, 0, 0, 0, 2, 1])}),
    "borders of a number": ([node("Pad", "x p v")], {"p": np.int64([0, 1, 1, 0, 0, 0, 2, 1]), "v": np.float32(0.5)}),
    "mirrored borders": ([node("Pad", "x p", mode="reflect")], {"p": np.int64([0, 0, 1, 0, 0, 0, 2, 3])}),
    "repeated borders": ([node("Pad", "x p", mode="edge")], {"p": np.int64([0, 0, 1, 0, 0, 0, 2, 3])}),
    "twice as large": ([node("Resize", "x none s", mode="linear")], {"none": np.float32([]), "s": np.float32([1, 1, 2, 2])}),
    "nearest": (
        [node("Resize", "x none s", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")],
        {"none": np.float32([]), "s": np.float32([1, 1, 2, 3])},
    ),
    "corners": (
        [node("Resize", "x none s", mode="linear", coordinate_transformation_mode="align_corners")],
        {"none": np.float32([]), "s": np.float32([1, 1, 2, 2])},
    ),
    "parts": (
        [helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2), node("Concat", "b a", axis=1)], {},
    ),
    "a slice, turned round": (
        [node("Slice", "x s e a t")],
        {"s": np.int64([-1, 1]), "e": np.int64([-100, 9]), "a": np.int64([3, 2]), "t": np.int64([-1, 2])},
    ),
    "places": ([node("Gather", "x i", axis=1)], {"i": np.int64([3, 0, 0, -2, 1])}),
    "one place": ([node("Gather", "x i", axis=2)], {"i": np.int64(4)}),
    "channels shuffled": (
        [node("Reshape", "x a", "b"), node("Transpose", "b", "c", perm=[0, 2, 1, 3, 4]), node("Reshape", "c d")],
        {"a": np.int64([-1, 2, 2, 9, 10]), "d": np.int64([-1, 4, 9, 10])},
    ),
    "pixels shuffled": ([node("DepthToSpace", "x", blocksize=2, mode="CRD")], {}),
    "pixels shuffled, depth first": ([node("DepthToSpace", "x", blocksize=2)], {}),
    "pixels unshuffled": ([node("Slice", "x s e a", "c"), node("SpaceToDepth", "c", blocksize=2)],
                          {"s": np.int64([1]), "e": np.int64([9]), "a": np.int64([2])}),
    "einops: six axes": (
        [node("Reshape", "x a", "b"), node("Transpose", "b", "c", perm=[0, 2, 4, 3, 5, 1]), node("Reshape", "c d")],
        {"a": np.int64([-1, 4, 3, 3, 5, 2]), "d": np.int64([-1, 15, 24])},
    ),
    "norm over channels that lie last": (
        [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("LayerNormalization", "t w b", "n"),
         node("Transpose", "n", perm=[0, 3, 1, 2])], {"w": weight(4), "b": weight(4)},
    ),
    "norm over the map": ([node("LayerNormalization", "x w b", axis=-2)], {"w": weight(9, 10), "b": weight(9, 10)}),
    "norm of instances": ([node("InstanceNormalization", "x w b")], {"w": weight(4), "b": weight(4)}),
    "gate along channels": (
        [node("ReduceMean", "x m", "p", keepdims=0), node("Unsqueeze", "p o", "q"), node("Conv", "q w", "c", pads=[1, 1]),
         node("Squeeze", "c o", "s"), node("Sigmoid", "s", "g"), node("Unsqueeze", "g m", "h"), node("Mul", "x h")],
        {"m": np.int64([2, 3]), "o": np.int64([1]), "w": weight(1, 1, 3)},
    ),
    "attention": (
        [node("Reshape", "x r", "a"), node("Transpose", "a", "t", perm=[0, 2, 1]), node("MatMul", "t wq", "q0"),
         node("Add", "q0 bq", "q"), node("MatMul", "t wk", "k"), node("Transpose", "k", "kt", perm=[0, 2, 1]),
         node("MatMul", "q kt", "l"), node("Softmax", "l", "s"), node("MatMul", "s t", "o"), node("Add", "o t")],
        {"r": np.int64([0, 4, 90]), "wq": weight(4, 6), "bq": weight(6), "wk": weight(4, 6)},
    ),
    "a softmax over channels": ([node("Softmax", "x", axis=1)], {}),
    "a softmax over rows": ([node("Softmax", "x", axis=2)], {}),
    "a token in front": (
        [node("Shape", "x", "n", end=1), node("Concat", "n one four", "f", axis=0), node("Expand", "c f", "e"),
         node("Reshape", "x r", "a"), node("Transpose", "a", "t", perm=[0, 2, 1]), node("Concat", "e t", "k", axis=1),
         node("Gather", "k i", axis=1)],
        {"one": np.int64([1]), "four": np.int64([4]), "c": weight(1, 1, 4), "r": np.int64([0, 4, 90]), "i": np.int64(0)},
    ),
    "positions that are made for every image": (
        [node("Shape", "x", "n", end=1), node("Concat", "n sides", "f", axis=0), node("Expand", "zero f", "z"),
         node("Cast", "z", "b", to=TensorProto.BOOL), node("Not", "b", "o"), node("Cast", "o", "p", to=TensorProto.FLOAT),
         node("CumSum", "p two", "c"), node("Sin", "c", "s"), node("Tile", "s r", "t"), node("Add", "x t", "a"),
         node("Concat", "a s", axis=1)],
        {"sides": np.int64([2, 9, 10]), "zero": np.float32(0), "two": np.int64(2), "r": np.int64([1, 2, 1, 1])},
    ),
    "a product of scaled rows": (
        [node("Flatten", "x", "f"), node("Gemm", "f w b", alpha=0.5, beta=2.0)], {"w": weight(360, 3), "b": weight(3)},
    ),
    "a map as a row": ([node("Reshape", "x r", "f"), node("Gemm", "f w")], {"r": np.int64([-1, 360]), "w": weight(360, 3)}),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOAT)
def test_a_float_operator_gives_the_same_numbers(name: str) -> None:
    _, found, expected = answers(made(*FLOAT[name]), 2)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-6 * max(1.0, float(np.abs(expected).max())) * 10)


def pair(source: str, name: str, constants: dict[str, Any], scale: float, zero: int = 0, kind: str = "int8") -> list[Node]:
    """Q and DQ of a value; the result is NAME."""
    constants |= {f"{name}.s": np.float32(scale), f"{name}.z": np.array(zero, kind)}
    parts = f"{name}.s {name}.z"
    return [node("QuantizeLinear", f"{source} {parts}", f"{name}.q"), node("DequantizeLinear", f"{name}.q {parts}", name)]


def codes(constants: dict[str, Any], name: str, *shape: int) -> Node:
    """Weights as codes of seven bits with a scale for each channel."""
    constants |= {f"{name}.c": RNG.integers(-63, 64, shape).astype(np.int8), f"{name}.z": np.zeros(shape[0], np.int8)}
    constants[f"{name}.s"] = RNG.uniform(0.004, 0.02, shape[0]).astype(np.float32)
    return node("DequantizeLinear", f"{name}.c {name}.s {name}.z", name, axis=0)


def quantised(depthwise: bool = False, bias: float = 1.0) -> tuple[list[Node], dict[str, Any]]:
    """A convolution between quantisers, rectified, its result uint8."""
    known: dict[str, Any] = {"b": (bias * RNG.normal(0, 1, 4)).astype(np.float32)}
    nodes = [*pair("x", "a", known, 0.017, 3, "uint8"), codes(known, "w", 4, 1 if depthwise else 4, 3, 3)]
    nodes.append(node("Conv", "a w b", "c", group=4 if depthwise else 1, pads=[1, 1, 1, 1], strides=[2, 2]))
    return [*nodes, node("Relu", "c", "r"), *pair("r", "y", known, 0.02, 0, "uint8")], known


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_convolution_between_quantisers_computes_in_codes(depthwise: bool) -> None:
    nodes, known = quantised(depthwise)
    graph, found, expected = answers(made(nodes, known))
    kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    assert kinds(graph) == ["QUANTIZE int8", "PAD int8", f"{kind} int8", "DEQUANTIZE float32"]
    conv = graph.operations[4]
    assert conv.output.scales is not None
    assert (conv.output.scales.zero, round(conv.output.scales.scale[0], 6)) == (-128, 0.02)
    away = np.abs(found - expected)
    assert away.max() <= 0.02 * 1.001  # a code, where a product lies between two
    assert (away > 0.01).mean() < 0.02
    kept = conv.inputs[1].data
    assert kept is not None
    back = kept.transpose(3, 0, 1, 2) if depthwise else kept.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(back, known["w.c"])  # bit for bit


def test_a_bias_that_no_int32_holds_widens_the_scale_of_its_channel() -> None:
    """A channel whose weights are next to nothing has a scale next to nothing; its bias counts all the same."""
    nodes, known = quantised()
    known["w.s"][1], known["b"][1] = 1e-8, 2.5
    _, found, expected = answers(made(nodes, known))
    assert np.abs(found[:, 1] - expected[:, 1]).max() <= 0.02 * 1.001
    assert np.abs(expected[:, 1] - 2.5).max() < 0.02


def test_sums_products_gates_and_means_compute_in_codes() -> None:
    """What a squeeze-excite block and a shortcut are made of, with quantisers everywhere."""
    known: dict[str, Any] = {}
    nodes = [*pair("x", "a", known, 0.02), node("Sigmoid", "a", "g"), *pair("g", "gq", known, 1 / 256, 0, "uint8")]
    nodes += [node("Mul", "a gq", "m"), *pair("m", "mq", known, 0.016), node("Add", "a mq", "s"), *pair("s", "sq", known, 0.04)]
    nodes += [node("GlobalAveragePool", "sq", "p"), *pair("p", "pq", known, 0.03), node("Mul", "sq pq", "z")]
    graph, found, expected = answers(made([*nodes, *pair("z", "y", known, 0.1)], known))
    inside = ["QUANTIZE int8", "LOGISTIC int8", "MUL int8", "ADD int8", "MEAN int8", "MUL int8", "DEQUANTIZE float32"]
    assert kinds(graph) == inside
    assert np.abs(found - expected).max() <= 2 * 0.1 * 1.001


def test_a_gate_on_another_grid_than_litert_gives_stays_in_float() -> None:
    known: dict[str, Any] = {}
    nodes = [*pair("x", "a", known, 0.02), node("Sigmoid", "a", "g"), *pair("g", "y", known, 1 / 127)]
    graph, found, expected = answers(made(nodes, known))
    assert "LOGISTIC float32" in kinds(graph)
    assert np.abs(found - expected).max() < 1e-6


def test_the_quantiser_behind_a_pool_of_maxima_reaches_the_convolution() -> None:
    nodes, known = quantised()
    last = [
        node("MaxPool", "r", "p", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        *pair("p", "y", known, 0.02, 0, "uint8"),
    ]
    graph, found, expected = answers(made([*nodes[:-2], *last], known))
    assert [one for one in kinds(graph) if one.split()[0] in ("CONV_2D", "MAX_POOL_2D")] == ["CONV_2D int8", "MAX_POOL_2D int8"]
    assert np.abs(found - expected).max() <= 0.02 * 1.001


def test_a_convolution_whose_result_nothing_quantises_computes_in_float_with_its_codes_in_the_file() -> None:
    known: dict[str, Any] = {}
    nodes = [*pair("x", "a", known, 0.017), codes(known, "w", 6, 4, 3, 3), node("Conv", "a w")]
    graph, found, expected = answers(made(nodes, known))
    assert "CONV_2D float32" in kinds(graph)
    stored = [one for op in graph.operations for one in op.inputs if one.data is not None and one.data.size == 216]
    assert [one.type for one in stored] == ["int8"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


REFUSED: dict[str, tuple[list[Node], dict[str, Any]]] = {
    "no such operator": ([node("CumSum", "x a")], {"a": np.int64(2)}),
    "a pool of another form": (
        [node("Unsqueeze", "x a", "u"), node("AveragePool", "u", kernel_shape=[3, 1, 1], strides=[1, 1, 1])],
        {"a": np.int64([1])},
    ),
    "the places of its maxima": (
        [helper.make_node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2]), node("Cast", "i", to=TensorProto.FLOAT)],
        {},
    ),
    "auto_pad": ([node("Conv", "x w", auto_pad="SAME_LOWER")], {"w": weight(6, 4, 3, 3)}),
    "over the images of a batch": ([node("ReduceMean", "x a")], {"a": np.int64([0, 2])}),
    "images of a batch": ([node("Slice", "x s e a")], {"s": np.int64([0]), "e": np.int64([-1]), "a": np.int64([0])}),
    "mode cubic": ([node("Resize", "x none s", mode="cubic")], {"none": np.float32([]), "s": np.float32([1, 1, 2, 2])}),
    "weights that are computed from the image": (
        [node("Slice", "x s e a", "c"), node("Transpose", "c", "w", perm=[1, 0, 2, 3]), node("Conv", "x w", group=4)],
        {"s": np.int64([0, 0]), "e": np.int64([3, 3]), "a": np.int64([2, 3])},
    ),
    "a matrix product of another form": (
        [node("Flatten", "x", "f"), node("Slice", "f s e a", "c"), node("Gemm", "f c", transB=1)],
        {"s": np.int64([0]), "e": np.int64([360]), "a": np.int64([1])},
    ),
}


@pytest.mark.parametrize("word", REFUSED)
def test_what_is_not_translated_is_refused_with_its_place(word: str) -> None:
    with pytest.raises(OctcError, match=word) as caught:
        translate(made(*REFUSED[word]))
    assert (caught.value.code, caught.value.hint) == ("OCT-E407", "octc export --target onnx")


def test_the_same_graph_is_the_same_bytes_and_nothing_is_quantised_unseen(tmp_path: Path) -> None:
    nodes, known = quantised()
    onnx.save(made(nodes, known), tmp_path / "m.onnx")
    facts = write_litert(tmp_path / "m.onnx", tmp_path, int8=True)
    first = (tmp_path / "model.tflite").read_bytes()
    assert facts == {**facts, "int8_convolutions": 1, "float_convolutions": 0, "bytes": len(first)}
    write_litert(tmp_path / "m.onnx", tmp_path, int8=True)
    assert (tmp_path / "model.tflite").read_bytes() == first
    onnx.save(made(*FLOAT["conv"]), tmp_path / "float.onnx")
    with pytest.raises(OctcError) as caught:
        write_litert(tmp_path / "float.onnx", tmp_path, int8=True)
    assert caught.value.code == "OCT-E404"


def test_constants_begin_at_multiples_of_sixteen_bytes() -> None:
    from ai_edge_litert import schema_py_generated as schema

    data = to_bytes(translate(made(*quantised())))
    model = schema.Model.GetRootAs(data)
    starts = [model.Buffers(i).DataAsNumpy() for i in range(model.BuffersLength()) if model.Buffers(i).DataLength()]
    base = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    assert len(starts) == 4
    assert {(one.__array_interface__["data"][0] - base) % 16 for one in starts} == {0}
