"""The encoding for OpenVINO on Arm: one type of codes through each dense convolution, and the values of the network."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx, nn

from octc.compress.calibrate import observe, set_ranges
from octc.compress.placement import ACL, prepare, quantisers, set_mode
from octc.core.optional import openvino_core
from octc.export.formats import FORMATS, for_cpu
from octc.export.lint.check import require_clean
from octc.export.onnx.encoding import AGAIN, ENCODINGS, Encoding, encode, encoding_for
from octc.export.onnx.float import read_onnx, write_onnx
from octc.export.openvino import MAIN, write_openvino
from octc.imaging.preprocess import Preprocess
from octc.machine.cpu import family_of
from octc.runtimes.openvino import IN_FLOAT, layer_precisions
from octc.train.networks.models import WithInput, normalise
from tests.compress.test_placement import random_network

PRE = Preprocess(64)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 1, 64, 64), dtype=np.uint8)
PLAIN = Encoding("plain", rectified="uint8", residual=True)  # the same grids, each once


@pytest.fixture(scope="module", params=["tf_efficientnet_lite0", "mobilenetv4_conv_small"])
def network(request: pytest.FixtureRequest) -> fx.GraphModule:
    module = prepare(random_network(request.param), 64, placement=ACL)
    observe(module, lambda: [normalise(torch.from_numpy(IMAGES), PRE)])
    set_ranges(module, "max")
    set_mode(module, "on")
    return module


def logits(module: nn.Module) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = WithInput(module, PRE)(torch.from_numpy(IMAGES)).numpy()
    return found


def written(module: fx.GraphModule, folder: Path) -> None:
    write_onnx(encode(module, ENCODINGS["acl"], opset=20), PRE, folder / "m.onnx", 20)
    require_clean(read_onnx(folder / "m.onnx"), "openvino-arm")
    write_openvino(folder / "m.onnx", folder, half=False)


def test_the_target_has_it_for_every_network_that_its_placement_takes(network: fx.GraphModule) -> None:
    assert encoding_for(network, "openvino-arm") is ENCODINGS["acl"]
    assert FORMATS["openvino-arm"].placement == ACL
    for cpu in ("arm", "arm-nofp16"):
        assert for_cpu("openvino", "int8", cpu) == "openvino-arm"
        assert for_cpu("openvino", "fp16", cpu) == "openvino"
        assert for_cpu("onnx", "int8", cpu) == "onnx"
    assert for_cpu("openvino", "int8", "x86") == for_cpu("openvino", "int8", "") == "openvino"


def test_training_sees_the_grids_of_the_file(network: fx.GraphModule) -> None:
    """But for second quantisers, whose step is 2^-14 wider, and the end of a ReLU6's grid: rounding alone."""
    found, plain = logits(encode(network, ENCODINGS["acl"])), logits(network)
    assert float(np.median(np.abs(plain - found))) <= 0.05 * float(np.ptp(plain))
    grids = {name: part.grid for name, part in encode(network, ENCODINGS["acl"]).named_modules() if hasattr(part, "grid")}
    spread = [name for name, part in quantisers(network).items() if part.least == 0]
    assert len(spread) > 20
    for name in spread:
        assert grids[name].scale == pytest.approx(127 * float(quantisers(network)[name].scale) / 255, rel=2e-6)


@pytest.mark.parametrize("scale", [6 / 127, 0.0123, 3.7e-5, 41.0])
@pytest.mark.parametrize(("low", "high"), [(0, 255), (-127, 127)])
def test_a_second_quantiser_leaves_every_code_as_it_is(scale: float, low: int, high: int) -> None:
    codes = torch.arange(low, high + 1, dtype=torch.float32)
    again = torch.round(codes * scale / (scale * AGAIN)).clamp(low, high)
    assert torch.equal(again, codes)


def test_second_quantisers_move_logits_by_rounding_alone(network: fx.GraphModule) -> None:
    """Their values are others by 2^-14 of themselves: what lies at a tie behind them may fall to the other side."""
    plain, found = logits(encode(network, PLAIN)), logits(encode(network, ENCODINGS["acl"]))
    assert float(np.median(np.abs(plain - found))) <= 0.05 * float(np.ptp(plain))


def test_dense_convolutions_keep_one_type_of_codes(network: fx.GraphModule, tmp_path: Path) -> None:
    """Read from the IR: behind a dense convolution, its bias and its rectifier is one FakeQuantize; where codes of its range
    are not of the type that the convolution reads, no dense convolution reads them but through another FakeQuantize."""
    written(network, tmp_path)
    nodes = openvino_core().read_model(str(tmp_path / MAIN)).get_ops()
    dense = [node for node in nodes if node.get_type_name() == "Convolution" and quantised(node)]
    assert len(dense) == {49: 33, 45: 30}[len(quantisers(network, "input"))]
    doubled = 0
    for node in dense:
        step = only_reader(only_reader(node))  # the bias, and what follows
        step = only_reader(step) if step.get_type_name() in ("Relu", "Clamp") else step
        assert step.get_type_name() == "FakeQuantize", step
        readers = [target.get_node() for target in step.output(0).get_target_inputs()]
        if signed(node.input_value(0).get_node()) != signed(step):
            assert not any(is_dense(reader) for reader in readers), node
            doubled += any(reader.get_type_name() == "FakeQuantize" for reader in readers)
    assert doubled > 0


def only_reader(node: object) -> object:
    (target,) = node.output(0).get_target_inputs()  # type: ignore[attr-defined]
    return target.get_node()


def quantised(node: object) -> bool:
    return bool(node.input_value(0).get_node().get_type_name() == "FakeQuantize")  # type: ignore[attr-defined]


def is_dense(node: object) -> bool:
    return bool(node.get_type_name() == "Convolution")  # type: ignore[attr-defined]


def signed(node: object) -> bool:
    """Whether the codes of a FakeQuantize are int8 without a zero-point, as OpenVINO chooses them: its range begins below 0."""
    low = node.input_value(1).get_node().get_data()  # type: ignore[attr-defined]
    return bool(np.min(low) < 0)


def test_ranges_end_with_their_rectifier(network: fx.GraphModule, tmp_path: Path) -> None:
    """A range that ends above 6 leaves the Clamp in the compiled network, and its convolution without an INT8 kernel on Arm."""
    wide = copy.deepcopy(network)
    for name, one in quantisers(wide).items():
        if "act" in name or "relu" in name:
            one.scale.fill_(6.001 / 127)
    written(wide, tmp_path)
    nodes = openvino_core().read_model(str(tmp_path / MAIN)).get_ops()
    clamps = [node for node in nodes if node.get_type_name() == "Clamp"]
    tops = [float(np.max(only_reader(node).input_value(2).get_node().get_data())) for node in clamps if readers(node) == 1]  # type: ignore[attr-defined]
    assert all(5.99 < top <= 6 for top in tops)


def readers(node: object) -> int:
    return len(node.output(0).get_target_inputs())  # type: ignore[attr-defined]


@pytest.mark.skipif(family_of() != "x86", reason="on Arm it is computed in INT8")
def test_the_file_states_the_values_of_the_network(network: fx.GraphModule, tmp_path: Path) -> None:
    """In f32, as it is computed where it is not made for; codes at ties differ with the order of additions."""
    written(network, tmp_path)
    model = openvino_core().read_model(str(tmp_path / MAIN))
    model.reshape([len(IMAGES), 1, 64, 64])
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **IN_FLOAT})
    reference, found = logits(encode(network, ENCODINGS["acl"])), compiled(IMAGES)[0]
    assert float(np.median(np.abs(found - reference))) <= 0.05 * float(np.ptp(reference))  # 0.012 with AVX2
    assert set(layer_precisions(compiled.get_runtime_model())) == {"fp32"}
