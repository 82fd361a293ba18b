from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from octc.core.errors import OctcError
from octc.export.onnx.float import read_onnx, write_onnx
from octc.export.onnx.fp16 import float_nodes, write_fp16
from octc.export.onnx.ranges import tensor_ranges
from octc.imaging.preprocess import Preprocess
from octc.train.networks.models import build_model
from tests.stand_ins import normalised

PRE = Preprocess(64)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 1, 64, 64), dtype=np.uint8)


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, 4).eval()


@functools.cache
def written(name: str) -> bytes:
    """The ONNX file of a network, exported once for all tests here."""
    with tempfile.TemporaryDirectory() as folder:
        write_onnx(network(name), PRE, Path(folder) / "a.onnx", 20)
        return (Path(folder) / "a.onnx").read_bytes()


@pytest.mark.parametrize("name", ["test_efficientnet", "convnextv2_atto"])
def test_every_weight_is_fp16_and_the_answer_is_close(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(written(name))
    facts = write_fp16(tmp_path / "a.onnx", tmp_path / "b.onnx", IMAGES)
    proto = read_onnx(tmp_path / "b.onnx")
    assert proto.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert proto.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    kept = [t.name for t in proto.graph.initializer if len(t.dims) in (2, 4) and np.prod(t.dims) > 64 and t.data_type == 1]
    assert not kept
    assert facts["bytes"] < 0.62 * (tmp_path / "a.onnx").stat().st_size
    one, two = (onnxruntime.InferenceSession(str(tmp_path / f"{n}.onnx")).run(None, {"image": IMAGES})[0] for n in "ab")
    assert float(np.abs(one - two).max()) <= 1e-2 * float(np.ptp(one, axis=1).mean())


@pytest.mark.slow
def test_norms_and_grn_stay_fp32(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(written("convnextv2_atto"))
    before = read_onnx(tmp_path / "a.onnx")
    kinds = {node.op_type for node in before.graph.node if node.name in float_nodes(before)}
    assert {"LayerNormalization", "ReduceL2", "Div"} <= kinds
    assert "Conv" not in kinds
    write_fp16(tmp_path / "a.onnx", tmp_path / "b.onnx", IMAGES)
    typed = onnx.shape_inference.infer_shapes(read_onnx(tmp_path / "b.onnx"))
    types = {value.name: value.type.tensor_type.elem_type for value in typed.graph.value_info}
    sums = [types[node.output[0]] for node in typed.graph.node if node.op_type in ("ReduceL2", "LayerNormalization")]
    assert sums
    assert set(sums) == {TensorProto.FLOAT}


def written_out(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """float "x" [n, 4, 6, 6] -> nodes -> "logits"."""
    image, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4, 6, 6]) for name in ("x", "logits"))
    known = [numpy_helper.from_array(np.asarray(v), k) for k, v in {"two": np.float32(2), "a": np.int64([1])}.items()]
    graph = helper.make_graph(list(nodes), "g", [image], [out], known)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("square", [("Pow", "x", "two"), ("Mul", "x", "x")])
def test_squares_stay_fp32_up_to_what_brings_them_back(square: tuple[str, str, str]) -> None:
    """An RMS norm that is written out: at 300, the square alone would be beyond FP16."""
    kind, *inputs = square
    proto = written_out(
        helper.make_node(kind, inputs, ["s"], name="square"),
        helper.make_node("ReduceMean", ["s", "a"], ["m"], name="mean"),
        helper.make_node("Sqrt", ["m"], ["r"], name="root"),
        helper.make_node("Div", ["x", "r"], ["logits"], name="division"),
    )
    assert sorted(float_nodes(proto)) == ["mean", "root", "square"]


def test_scores_behind_a_mask_stay_fp32_up_to_their_softmax() -> None:
    proto = written_out(
        helper.make_node("Add", ["x", "mask"], ["s"], name="masked"),
        helper.make_node("Softmax", ["s"], ["t"], name="softmax"),
        helper.make_node("Add", ["t", "x"], ["logits"], name="sum"),
    )
    for value, wanted in ((-np.inf, ["masked", "softmax"]), (np.inf, []), (np.nan, []), (0.0, [])):
        del proto.graph.initializer[:]
        proto.graph.initializer.append(numpy_helper.from_array(np.float32([0, value, 1, 0, 0, 0]), "mask"))
        assert sorted(float_nodes(proto)) == wanted


def test_x12_weight_beyond_the_range_names_the_operator(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(written("test_efficientnet"))
    proto = read_onnx(tmp_path / "a.onnx")
    conv = [node for node in proto.graph.node if node.op_type == "Conv"][3]
    weight = next(t for t in proto.graph.initializer if t.name == conv.input[1])
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = 7e4
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(proto, str(tmp_path / "a.onnx"))
    with pytest.raises(OctcError) as caught:
        write_fp16(tmp_path / "a.onnx", tmp_path / "b.onnx", IMAGES)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E408", 1)
    assert conv.name in caught.value.message
    assert not (tmp_path / "b.onnx").exists()


def test_x12_result_beyond_the_range_names_the_operator(tmp_path: Path) -> None:
    model = network("test_resnet")
    first = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    with torch.no_grad():
        first.weight.mul_(3e5)
    write_onnx(model, PRE, tmp_path / "a.onnx", 20)
    with pytest.raises(OctcError) as caught:
        write_fp16(tmp_path / "a.onnx", tmp_path / "b.onnx", IMAGES)
    assert caught.value.code == "OCT-E408"
    assert "(Conv): " in caught.value.message


def test_x12_result_that_is_not_finite_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(written("test_resnet"))
    proto = read_onnx(tmp_path / "a.onnx")
    weight = next(t for t in proto.graph.initializer if len(t.dims) == 4 and np.prod(t.dims) > 64)
    weight.CopyFrom(numpy_helper.from_array(np.full(tuple(weight.dims), np.nan, np.float32), weight.name))
    onnx.save(proto, str(tmp_path / "a.onnx"))
    with pytest.raises(OctcError) as caught:
        write_fp16(tmp_path / "a.onnx", tmp_path / "b.onnx", IMAGES)
    assert caught.value.code == "OCT-E408"


def test_ranges_are_those_of_the_network(tmp_path: Path) -> None:
    model = network("test_resnet")
    (tmp_path / "a.onnx").write_bytes(written("test_resnet"))
    ranges = tensor_ranges(read_onnx(tmp_path / "a.onnx"), IMAGES)
    with torch.no_grad():
        logits = model(torch.from_numpy(np.ascontiguousarray(normalised(IMAGES, PRE))))
    assert ranges["logits"] == pytest.approx(float(logits.abs().max()), rel=1e-3)
