"""`octc lint` as a function: a file in, findings out, a repaired file beside it."""

from __future__ import annotations

from pathlib import Path

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
