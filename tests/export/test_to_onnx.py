from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from octc.core.errors import OctcError
from octc.export.formats import FORMATS, choose_opset
from octc.export.onnx import float as to_onnx
from octc.export.onnx.float import check_batches, check_written, compare_batches, opset_of, read_onnx, write_onnx
from octc.imaging.preprocess import Preprocess
from octc.runtimes.onnxrt import reference_session
from octc.train.networks.models import WithInput, build_model
from tests.stand_ins import normalised

PRE = Preprocess(64)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_model("test_efficientnet", 4).eval()


@pytest.mark.parametrize("opset", [18, 21])
def test_file_is_what_was_asked_for(model: nn.Module, tmp_path: Path, opset: int) -> None:
    path = tmp_path / "m.onnx"
    facts = write_onnx(model, PRE, path, opset)
    proto = read_onnx(path)
    assert facts["opset"] == opset_of(proto) == opset
    reads = FORMATS["tensorrt"].reads
    assert reads is not None
    assert proto.ir_version <= reads.ir
    image, logits = proto.graph.input[0], proto.graph.output[0]
    assert (image.name, logits.name) == ("image", "logits")
    assert image.type.tensor_type.elem_type == TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 1, 64, 64]
    assert "BatchNormalization" not in facts["operators"]
    assert not proto.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 64, 64), dtype=np.uint8)
    found = onnxruntime.InferenceSession(str(path)).run(None, {"image": images})[0]
    with torch.no_grad():
        expected = WithInput(model, PRE)(torch.from_numpy(images)).numpy()
    assert float(np.abs(found - expected).max()) <= 1e-4 * float(np.ptp(expected, axis=1).mean())


def test_three_channels_and_another_normalisation(model: nn.Module, tmp_path: Path) -> None:
    pre = Preprocess(64, channels=3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    write_onnx(model, pre, tmp_path / "m.onnx", 20)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    found = onnxruntime.InferenceSession(str(tmp_path / "m.onnx")).run(None, {"image": images})[0]
    with torch.no_grad():
        expected = model(torch.from_numpy(normalised(images, pre))).numpy()
    assert float(np.abs(found - expected).max()) <= 1e-4 * float(np.ptp(expected, axis=1).mean())


@pytest.mark.parametrize(("target", "opset"), [("tensorrt", 21), ("onnx", 22), ("openvino", 23), ("onnx", 17), ("tensorrt", 0)])
def test_x02_opset_that_the_target_does_not_read_is_refused(target: str, opset: int) -> None:
    if opset == 0:  # not asked
        assert choose_opset(target, None) == 19
        return
    with pytest.raises(OctcError) as caught:
        choose_opset(target, opset)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E401", 2)
    assert str(opset) in caught.value.message


def test_x02_another_opset_than_asked_is_found_in_the_file() -> None:
    with pytest.raises(OctcError) as caught:
        check_written(graph_of([], opset=18), 17)
    assert caught.value.code == "OCT-E401"


class Frozen(nn.Module):
    """Two images are reshaped as one row: right for the traced batch only."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(x.mean((2, 3)).reshape(2, 3))
        return y


class Looking(nn.Module):
    """What it does depends on the values of an image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if bool(x.sum() > 0) else x.amax((2, 3))


def test_what_cannot_be_exported_is_named_and_not_the_step_of_the_exporter(tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        write_onnx(Looking(), PRE, tmp_path / "m.onnx", 20)
    assert caught.value.code == "OCT-E407"
    assert "data-dependent" in caught.value.message
    assert "\x1b" not in caught.value.message
    assert "Looking), test_to_onnx.py:" in caught.value.message


class Grouped(nn.Module):
    """A part that convolves each image with weights of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = x.mean((2, 3)).reshape(-1, 1, 1, 1)
        found: torch.Tensor = torch.conv2d(x.flatten(0, 1)[None], weights, groups=weights.shape[0])
        return found.reshape(x.shape).mean((2, 3))


def test_the_module_and_line_of_an_operator_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        write_onnx(nn.Sequential(nn.Identity(), Grouped()), PRE, tmp_path / "m.onnx", 20)
    assert (caught.value.code, caught.value.place) == ("OCT-E407", "1")
    assert "1 (Grouped), test_to_onnx.py:" in caught.value.message
    assert "conv2d" in caught.value.message
    assert "octc import" in caught.value.hint


class Masked(nn.Module):
    """An encoder of torch that is given a causal mask, which torch asks whether it is one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 16, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 1)
        self.register_buffer("mask", torch.ones(16, 16).triu(1).bool())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.encoder(self.stem(x).flatten(2).transpose(1, 2), mask=self.mask)[:, -2]
        return found


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_encoder_with_a_mask_is_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Masked().eval()
    write_onnx(model, PRE, tmp_path / "m.onnx", 20)
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 64, 64), dtype=np.uint8)
    (found,) = reference_session(tmp_path / "m.onnx").run(None, {"image": images})
    with torch.no_grad():
        np.testing.assert_allclose(found, WithInput(model, PRE)(torch.from_numpy(images)), atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()


def test_x03_frozen_batch_is_found_by_the_exporter(tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        write_onnx(Frozen(), PRE, tmp_path / "m.onnx", 20)
    assert caught.value.code in ("OCT-E402", "OCT-E407")
    assert caught.value.exit_code == 5
    assert not (tmp_path / "m.onnx").exists()


def graph_of(
    nodes: list[onnx.NodeProto], batch: int | str = "batch", opset: int = 20, **constants: np.ndarray
) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def frozen_inside(rows: int) -> onnx.ModelProto:
    """The batch axis reads as dynamic; a Reshape inside holds `rows`."""
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    w = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    return graph_of(nodes, shape=np.array([rows, 64], np.int64), w=w)


def test_x03_frozen_batch_inside_the_graph_is_found_by_running_it(tmp_path: Path) -> None:
    onnx.save(frozen_inside(-1), str(tmp_path / "good.onnx"))
    assert check_batches(tmp_path / "good.onnx", Preprocess(8)) == [1, 2, 5]
    for rows in (1, 2, 5):
        onnx.save(frozen_inside(rows), str(tmp_path / "bad.onnx"))
        with pytest.raises(OctcError) as caught:
            check_batches(tmp_path / "bad.onnx", Preprocess(8))
        assert caught.value.code == "OCT-E402"


def mixing(how: str) -> Callable[[Any], Any]:
    """Logits [N, 4] of images uint8 [N, 1, 8, 8]; in all but "none" those of an image depend on the others of its batch."""
    weight = np.random.default_rng(0).normal(size=(64, 4))

    def run(images: Any) -> Any:
        values = images.reshape(len(images), -1) / 255.0
        if how == "gate of the first":
            values = values * values[:1].mean()
        elif how == "statistics of a batch":
            values = (values - values.mean(0)) / (values.std() + 0.1)
        elif how == "the other way round":
            values = values[::-1] if len(values) > 2 else values
        return values @ weight

    return run


@pytest.mark.parametrize("how", ["gate of the first", "statistics of a batch", "the other way round"])
def test_images_that_change_each_others_logits_are_found_in_any_place(how: str) -> None:
    assert compare_batches(mixing("none"), Preprocess(8), "here", coded=False) == [1, 2, 5]
    for coded in (False, True):
        with pytest.raises(OctcError, match="has other logits than alone") as caught:
            compare_batches(mixing(how), Preprocess(8), "here", coded=coded)
        assert caught.value.code == "OCT-E402"


def test_x03_frozen_batch_axis_is_refused() -> None:
    with pytest.raises(OctcError) as caught:
        check_written(graph_of([], batch=1), 20)
    assert caught.value.code == "OCT-E402"


def test_external_data_is_refused(tmp_path: Path) -> None:
    onnx.save(frozen_inside(-1), str(tmp_path / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(OctcError) as caught:
        read_onnx(tmp_path / "m.onnx")
    assert caught.value.code == "OCT-E503"


def test_quantiser_nodes_get_names_of_their_own() -> None:
    scale, zero = np.float32(0.1), np.int8(0)
    nodes = [helper.make_node("QuantizeLinear", ["x", "model.q.scale", "z"], [f"y{i}"]) for i in range(3)]
    proto = graph_of(nodes, **{"model.q.scale": np.array(scale), "z": np.array(zero)})
    to_onnx.name_quantisers(proto)
    to_onnx.strip(proto)
    assert [n.name for n in proto.graph.node] == ["q/QuantizeLinear", "q/QuantizeLinear_2", "q/QuantizeLinear_3"]
    assert to_onnx.facts_of(proto)["operators"] == {"QuantizeLinear": 3}
