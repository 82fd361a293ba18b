"""`octc lint` as a function: a file in, findings out, a repaired file beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from octc.core.errors import OctcError
from octc.export.lint.files import lint_file
from tests.export.qdq_graphs import Knobs, model


def test_a_clean_file_is_clean_and_nothing_is_written(tmp_path: Path) -> None:
    onnx.save(model([Knobs()]), str(tmp_path / "m.onnx"))
    found = lint_file(tmp_path / "m.onnx", repair=True)
    assert found.clean
    assert found.repairs == ()
    assert found.to_json()["findings_after"] == [one.to_json() for one in found.findings]
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(("name", "target", "code"), [("m.onnx", "coreml", "OCT-E104"), ("none.onnx", "onnx", "OCT-E107")])
def test_what_cannot_be_checked_is_refused(tmp_path: Path, name: str, target: str, code: str) -> None:
    onnx.save(model([Knobs()]), str(tmp_path / "m.onnx"))
    with pytest.raises(OctcError) as caught:
        lint_file(tmp_path / name, target)
    assert caught.value.code == code
    (tmp_path / "text.onnx").write_text("no model at all, " * 9)
    with pytest.raises(OctcError) as caught:
        lint_file(tmp_path / "text.onnx")
    assert caught.value.code == "OCT-E502"


def test_an_empty_file_is_no_clean_one(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(OctcError, match="no graph in it") as caught:
        lint_file(tmp_path / "m.onnx", "onnx")
    assert caught.value.code == "OCT-E502"


@pytest.mark.parametrize("inside", [False, True], ids=["operators", "and those of a branch"])
def test_another_name_of_the_operators_is_no_fault(tmp_path: Path, *, inside: bool) -> None:
    proto = model([Knobs()])
    if inside:
        info = onnx.helper.make_tensor_value_info("way", onnx.TensorProto.FLOAT, None)
        way = onnx.helper.make_graph([onnx.helper.make_node("Relu", [proto.graph.input[0].name], ["way"])], "way", [], [info])
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
        proto.graph.node.append(onnx.helper.make_node("If", ["yes"], ["end"], then_branch=way, else_branch=way))
    onnx.save(proto, str(tmp_path / "m.onnx"))
    before = [one.rule for one in lint_file(tmp_path / "m.onnx", "onnx").findings]
    parts = [one.g.node for node in proto.graph.node for one in node.attribute if one.HasField("g")]
    for one in (*proto.opset_import, *proto.graph.node, *(node for nodes in parts for node in nodes)):
        one.domain = one.domain or "ai.onnx"
    onnx.save(proto, str(tmp_path / "other.onnx"))
    assert [one.rule for one in lint_file(tmp_path / "other.onnx", "onnx").findings] == before
    assert "E15" not in before


@pytest.mark.parametrize("target", ["onnx", "openvino", "tensorrt"])
@pytest.mark.parametrize("how", ["a cycle", "no such operator", "a tensor that is not there"])
def test_a_file_that_no_engine_opens_is_not_clean(how: str, target: str, tmp_path: Path) -> None:
    proto = model([Knobs()])
    if how == "a cycle":
        proto.graph.node[0].input[0] = proto.graph.node[-1].output[0]
    elif how == "no such operator":
        proto.graph.node[-1].op_type = "Quux"
    else:
        proto.graph.node[-1].input[0] = "nowhere"
    onnx.save(proto, str(tmp_path / "m.onnx"))
    found = lint_file(tmp_path / "m.onnx", target)
    assert not found.clean
    assert "E" in {one.severity for one in found.findings}
