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


def answers(proto: onnx.ModelProto) -> tuple[Graph, Any, Any]:
    """The LiteRT graph, its answer and onnxruntime's, in ONNX's order of axes."""
    images = RNG.integers(0, 256, (1, *SHAPE), dtype=np.uint8)
    expected = reference_session(proto.SerializeToString()).run(None, {"image": images})[0]
    graph = translate(proto)
    interpreter = Interpreter(model_content=to_bytes(graph), num_threads=1)
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
    "a map as a row": ([node("Reshape", "x r", "f"), node("Gemm", "f w")], {"r": np.int64([-1, 360]), "w": weight(360, 3)}),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOAT)
def test_a_float_operator_gives_the_same_numbers(name: str) -> None:
    _, found, expected = answers(made(*FLOAT[name]))
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
    "no such operator": ([node("Tanh", "x")], {}),
    "bounds other than": ([node("Clip", "x low")], {"low": np.float32(1)}),
    "a mean over axes": ([node("ReduceMean", "x a")], {"a": np.int64([1])}),
    "auto_pad": ([node("Conv", "x w", auto_pad="SAME_LOWER")], {"w": weight(6, 4, 3, 3)}),
    "that the mean leaves out": ([node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 0, 0])], {}),
    "from 4 to 3 dimensions": ([node("Reshape", "x r")], {"r": np.int64([-1, 4, 90])}),
    "a matrix product of another form": (
        [node("Flatten", "x", "f"), node("Gemm", "f w", alpha=0.5)],
        {"w": weight(360, 3)},
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
