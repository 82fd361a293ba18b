from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import fx

from octc.compress.calibrate import observe, set_ranges
from octc.compress.placement import convolutions, prepare, set_mode
from octc.core.errors import OctcError
from octc.core.optional import openvino_core
from octc.export.onnx.encoding import ENCODINGS, Encoding, encode, encoding_for, is_rectified
from octc.export.onnx.float import write_onnx
from octc.imaging.preprocess import Preprocess
from octc.train.networks.models import WithInput, build_model, normalise

PRE = Preprocess(64)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 1, 64, 64), dtype=np.uint8)


def calibrated(name: str) -> fx.GraphModule:
    torch.manual_seed(0)
    module = prepare(build_model(name, 4).eval(), 64)
    observe(module, lambda: [normalise(torch.from_numpy(IMAGES), PRE)])
    set_ranges(module, "max")
    set_mode(module, "on")
    return module


@pytest.fixture(scope="module")
def resnet() -> fx.GraphModule:
    return calibrated("test_resnet")


def logits(module: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = WithInput(module, PRE)(torch.from_numpy(IMAGES)).numpy()
    return found


@pytest.mark.parametrize(
    ("name", "rectified"),
    [
        ("tf_efficientnet_lite0", True),
        ("mobilenetv4_conv_small", True),
        ("test_resnet", True),
        ("resnet18", True),
        ("efficientnet_b2", False),
    ],
)
def test_relu_networks_are_told_from_silu_ones(name: str, rectified: bool) -> None:
    module = prepare(build_model(name, 4), 64)
    assert is_rectified(module) == rectified
    assert encoding_for(module, "onnx").name == ("uint8" if rectified else "int8")
    assert encoding_for(module, "openvino") is ENCODINGS["mixed" if rectified else "int8"]
    assert encoding_for(module, "tensorrt") is encoding_for(module, "tensorrt-rtx") is ENCODINGS["half"]


def test_int8_reference_is_the_trained_network_without_residual_quantisers(resnet: fx.GraphModule) -> None:
    set_mode(resnet, "on", residual=False)
    expected = logits(resnet)
    set_mode(resnet, "on")
    assert np.allclose(logits(encode(resnet, ENCODINGS["int8"])), expected, atol=1e-6)


def test_unsigned_codes_at_128_are_the_signed_ones() -> None:
    """On a network without rectifiers every tensor keeps its values, bit for bit."""
    module = calibrated("test_efficientnet")
    signed = logits(encode(module, Encoding("s", residual=True)))
    assert np.array_equal(logits(encode(module, Encoding("u", "uint8", "uint8", residual=True))), signed)


def test_encoding_leaves_the_trained_network_alone(resnet: fx.GraphModule) -> None:
    before = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    encode(resnet, ENCODINGS["uint8"], opset=20, floats=frozenset(list(convolutions(resnet))[:3]))
    assert list(before) == list(resnet.state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in resnet.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["int8", "mixed", "uint8"])
def test_onnxruntime_without_optimisation_computes_the_reference(resnet: fx.GraphModule, name: str, tmp_path: Path) -> None:
    encoding = ENCODINGS[name]
    write_onnx(encode(resnet, encoding, opset=20), PRE, tmp_path / "m.onnx", 20)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), options).run(None, {"image": IMAGES})[0]
    reference = logits(encode(resnet, encoding))
    assert float(np.abs(found - reference).max()) <= 1e-2 * float(np.ptp(reference, axis=1).mean())


@pytest.mark.slow
def test_onnxruntime_fuses_the_unsigned_graph_into_integer_kernels(resnet: fx.GraphModule, tmp_path: Path) -> None:
    found = {}
    for encoding in ENCODINGS.values():
        path, optimised = tmp_path / f"{encoding.name}.onnx", tmp_path / f"{encoding.name}.optimised.onnx"
        write_onnx(encode(resnet, encoding, opset=20), PRE, path, 20)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(optimised)
        options.log_severity_level = 4
        onnxruntime.InferenceSession(str(path), options)
        found[encoding.name] = [node.op_type for node in onnx.load(str(optimised)).graph.node].count("QLinearConv")
    assert found["uint8"] >= 13  # of 15: what the last one gives goes to the pooling
    assert found["int8"] < found["uint8"]


@pytest.mark.parametrize("name", [pytest.param("int8", marks=pytest.mark.slow), "mixed"])
def test_openvino_runs_every_quantised_convolution_in_int8(resnet: fx.GraphModule, name: str, tmp_path: Path) -> None:
    write_onnx(encode(resnet, ENCODINGS[name], opset=20), PRE, tmp_path / "m.onnx", 20)
    model = openvino_core().read_model(str(tmp_path / "m.onnx"))
    model.reshape({"image": [1, 1, 64, 64]})
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    precisions = [k["runtimePrecision"].astype(str) for k in kinds if k["layerType"].astype(str) == "Convolution"]
    assert len(precisions) == 15
    assert sum(p in ("i8", "u8") for p in precisions) >= 13, precisions


def test_quantiser_without_a_range_is_refused() -> None:
    with pytest.raises(OctcError) as caught:
        encode(prepare(build_model("test_resnet", 4), 64), ENCODINGS["int8"])
    assert caught.value.code == "OCT-E404"
