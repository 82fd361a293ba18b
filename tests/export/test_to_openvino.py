"""OpenVINO IR: what is written is read again, gives the same answers, and carries no padding."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from octc.compress.calibrate import observe, set_ranges
from octc.compress.placement import prepare
from octc.core.errors import OctcError
from octc.core.optional import openvino_core
from octc.export.onnx.encoding import ENCODINGS, encode
from octc.export.onnx.float import write_onnx
from octc.export.openvino import MAIN, write_openvino
from octc.imaging.preprocess import Preprocess
from octc.train.networks.models import build_model, normalise

PRE = Preprocess(64)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 1, 64, 64), dtype=np.uint8)


def write_product(path: Path, weights: Sequence[float]) -> None:
    """A network that multiplies three numbers with [3, 2] weights."""
    values = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], weights)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", k]) for name, k in (("x", 3), ("y", 2))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [values])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def test_the_description_is_not_indented_and_is_read_again(tmp_path: Path) -> None:
    write_product(tmp_path / "source.onnx", [1, 2, 3, 4, 5, 6])
    facts = write_openvino(tmp_path / "source.onnx", tmp_path, half=False)
    text = (tmp_path / MAIN).read_bytes()
    assert b"\n\t" not in text
    assert b"\n<layers>" in text
    assert facts["file_bytes"][MAIN] == len(text)
    compiled = openvino_core().compile_model(tmp_path / MAIN, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.allclose(compiled(np.float32([[1, 0, 2]]))[0], [[11, 14]])


@pytest.mark.parametrize("most", [0, 8, 600])
def test_files_that_cannot_be_written_are_no_fault_of_the_graph(most: int, tmp_path: Path) -> None:
    """A limit of bytes a file, as a full disk: none, in the weights, in the description."""
    write_product(tmp_path / "source.onnx", [1, 2, 3, 4, 5, 6])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(OctcError) as caught:
            write_openvino(tmp_path / "source.onnx", tmp_path, half=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E904", 4)


@pytest.mark.parametrize("wide", [70000.0, -1e6, float("inf"), float("nan")])
def test_a_weight_that_half_precision_would_cut_is_refused(wide: float, tmp_path: Path) -> None:
    """OpenVINO writes 65504 for each of these; in FP32 they stay what they are."""
    write_product(tmp_path / "source.onnx", [1, wide, 3, 4, 5, 6])
    with pytest.raises(OctcError) as caught:
        write_openvino(tmp_path / "source.onnx", tmp_path, half=True)
    assert caught.value.code == "OCT-E408"
    assert "--fp32" in caught.value.hint
    write_openvino(tmp_path / "source.onnx", tmp_path, half=False)
    read = openvino_core().read_model(str(tmp_path / MAIN))
    (weights,) = (node.data for node in read.get_ops() if node.get_type_name() == "Constant")
    np.testing.assert_array_equal(np.sort(weights, axis=None)[-1], np.sort(np.float32([1, wide, 3, 4, 5, 6]))[-1])


def test_weights_that_all_lie_beyond_half_precision_stay_what_they_are(tmp_path: Path) -> None:
    weights = [70000.0, 80000.0, 90000.0, 1e5, 1e6, -1e6]
    write_product(tmp_path / "source.onnx", weights)
    write_openvino(tmp_path / "source.onnx", tmp_path, half=True)
    compiled = openvino_core().compile_model(tmp_path / MAIN, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled(np.float32(np.eye(3)))[0].ravel(), weights)


def test_the_graph_is_simplified_and_codes_stay_codes(tmp_path: Path) -> None:
    """A quantised convolution: constants are folded but for the int8 weights, Q/DQ of the activation is one FakeQuantize."""
    module = prepare(build_model("test_resnet", 4).eval(), 64)
    observe(module, lambda: [normalise(torch.from_numpy(IMAGES), PRE)])
    set_ranges(module, "max")
    write_onnx(encode(module, ENCODINGS["mixed"], opset=20), PRE, tmp_path / "source.onnx", 20)
    write_openvino(tmp_path / "source.onnx", tmp_path, half=False)
    read, simple = (openvino_core().read_model(str(tmp_path / name)) for name in ("source.onnx", MAIN))
    kinds = Counter(node.get_type_name() for node in simple.get_ops())
    assert kinds["FakeQuantize"] == Counter(node.get_type_name() for node in read.get_ops())["FakeQuantize"] > 0
    assert kinds["Convolution"] == 15
    assert not kinds["ShapeOf"] + kinds["Subtract"] + kinds["Broadcast"]
    weights = [node for node in simple.get_ops() if node.get_type_name() == "Constant" and len(node.shape) == 4]
    assert sum(node.get_element_type() == openvino.Type.i8 for node in weights) == 15
    core = openvino_core()
    before, after = (
        core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(IMAGES)[0] for model in (read, simple)
    )
    assert np.abs(before - after).max() <= 1e-3 * np.ptp(before)


@pytest.mark.parametrize("between", ["nothing", "a concat", "a product"])
@pytest.mark.parametrize("kind", ["ReduceMax", "ReduceMin"])
def test_extremes_are_quantised_as_they_are(kind: str, between: str, tmp_path: Path) -> None:
    """OpenVINO rounds them to whole numbers where it fuses them with a quantiser, and half of this range is lost."""
    step, factor = np.float32(1 / 128), np.float32(0.75)
    channels = 2 if between == "a concat" else 1
    codes = (60 * np.eye(channels)).astype(np.int8).reshape(channels, channels, 1, 1)
    constants = {
        "axes": np.int64([1]), "factor": factor, "step": step, "zero": np.uint8(0), "codes": codes, "wide": np.float32(1 / 60),
    }  # fmt: skip
    nodes = [helper.make_node(kind, ["x", "axes"], ["found"])]
    if between == "a concat":
        nodes.append(helper.make_node("ReduceMean", ["x", "axes"], ["mean"]))
        nodes.append(helper.make_node("Concat", ["mean", "found"], ["given"], axis=1))
    elif between == "a product":
        nodes.append(helper.make_node("Mul", ["found", "factor"], ["given"]))
    nodes.append(
        helper.make_node("QuantizeLinear", ["found" if between == "nothing" else "given", "step", "zero"], ["quantised"])
    )
    nodes.append(helper.make_node("DequantizeLinear", ["quantised", "step", "zero"], ["read"]))
    nodes.append(helper.make_node("DequantizeLinear", ["codes", "wide"], ["weight"]))
    nodes.append(helper.make_node("Conv", ["read", "weight"], ["y"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", k, 6, 6]) for name, k in (("x", 4), ("y", channels))]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "source.onnx")
    write_openvino(tmp_path / "source.onnx", tmp_path, half=False)
    model = openvino_core().read_model(str(tmp_path / MAIN))
    model.reshape([2, 4, 6, 6])
    # halves of a code are left out, which engines round to either side
    x = (np.random.default_rng(0).integers(0, 1000, (2, 4, 6, 6)) / 512 + 1 / 4096).astype(np.float32)
    extreme = (x.max if kind == "ReduceMax" else x.min)(axis=1, keepdims=True)
    parts = {"nothing": [extreme], "a concat": [x.mean(axis=1, keepdims=True), extreme], "a product": [factor * extreme]}
    expected = np.rint(np.concatenate(parts[between], axis=1) / step) * step
    found = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)
