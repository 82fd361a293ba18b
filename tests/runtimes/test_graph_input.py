"""What a graph takes, read from its file, is what its engine says that it takes."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from octc.bench.report.feed import input_rows, values_words
from octc.core.errors import OctcError
from octc.core.optional import openvino_core
from octc.imaging.preprocess import Preprocess
from octc.runtimes.graph_input import GraphInput, read_graph_input
from octc.store.artifacts import read_artifact
from octc.store.find import find_artifacts
from octc.store.runs import Run
from tests.tiny_artifacts import shared_run

TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


def test_every_target_gives_the_input_that_its_engine_has(run: Run) -> None:
    seen = set()
    for folder in sorted(run.artifacts.iterdir()):
        artifact = read_artifact(folder)
        found = read_graph_input(folder, artifact)
        if artifact.target == "torch":
            assert found is None
            continue
        assert found is not None
        pre = artifact.preprocess
        assert (found.name, found.type) == ("image", "uint8")
        assert found.shape[1:] == (str(pre.channels), str(pre.size), str(pre.size))
        if artifact.target == "onnx":
            (one,) = onnxruntime.InferenceSession(folder / artifact.main_file).get_inputs()
            assert (found.name, found.type, list(found.shape)) == (one.name, TYPES[one.type], [str(side) for side in one.shape])
        elif artifact.target == "openvino":
            model = openvino_core().read_model(folder / artifact.main_file)
            assert found.name in model.input(0).names
            assert [side != "?" for side in found.shape] == [not side.is_dynamic for side in model.input(0).partial_shape]
        seen.add(artifact.target)
    assert {"onnx", "openvino", "tensorrt"} <= seen
    rows = input_rows(tuple(find_artifacts(run.id, run.path.parent, {})[0]))
    assert {row[1:3] for row in rows if "torch" not in row[0]} == {("image", "uint8")}


def test_a_foreign_graph_that_takes_floats_is_said_as_it_is(run: Run, tmp_path: Path) -> None:
    shape = ["n", 3, 8, 8]
    value = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph([helper.make_node("Relu", ["pixels"], ["y"])], "g", [value], [out])
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    artifact = read_artifact(run.artifacts / "onnx-fp32")
    found = read_graph_input(tmp_path, artifact)
    assert found == GraphInput("pixels", "float32", ("n", "3", "8", "8"))
    assert "not normalised" not in values_words(found, Preprocess(8))
    for data in (b"", b"\xff\xff", b"no model"):
        (tmp_path / "model.onnx").write_bytes(data)
        with pytest.raises(OctcError) as caught:
            read_graph_input(tmp_path, artifact)
        assert caught.value.code == "OCT-E502"
