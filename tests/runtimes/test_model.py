"""octc.load: an artifact that is checked, opened and ready; the answers are those of `octc predict`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import octc
from octc.core.errors import OctcError
from octc.store.runs import Run

HERE = True  # commands in this process (tests/conftest.py)


def pictures(run: Run) -> list[Path]:
    return sorted((run.path.parent.parent / "patterns").rglob("*.png"))[:5]


@pytest.mark.parametrize("name", ["onnx-fp32", "onnx-int8", "openvino-int8", "torch-fp32"])
def test_an_artifact_predicts(run: Run, name: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with octc.load(run.artifacts / name, threads=1) as model:
        assert model.golden.ok
        found = model.predict([*pictures(run), bad], batch=2)
    assert [one.file for one in found] == [str(path) for path in [*pictures(run), bad]]
    for one in found[:-1]:
        assert one.error is None
        assert one.probabilities is not None
        assert tuple(one.probabilities) == model.classes
        assert sum(one.probabilities.values()) == pytest.approx(1)
        assert one.confidence == max(one.probabilities.values())
        assert one.label is None or one.probabilities[one.label] == one.confidence
    assert found[-1].label is None
    assert found[-1].error is not None
    assert found[-1].error.code == "OCT-E202"


def test_answers_come_one_by_one_and_do_not_depend_on_the_batch(run: Run) -> None:
    with octc.load(run.artifacts / "onnx-fp32", threads=1) as model:
        alone = [one.probabilities for one in model.iter_predict(pictures(run), batch=1)]
        together = [one.probabilities for one in model.iter_predict(pictures(run), batch=8)]
        views = model.predict(pictures(run)[:1], views="hflip")
    assert len(views) == 1
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_a_lone_path_is_one_image_and_not_its_letters(run: Run) -> None:
    path = pictures(run)[0]
    with octc.load(run.artifacts / "onnx-fp32", threads=1) as model:
        (listed,) = model.predict([path])
        assert model.predict(path) == [listed] == model.predict(str(path))
        assert len(model.maps(str(path), patch=model.preprocess.size // 2, stride=model.preprocess.size // 2)) == 1


@pytest.mark.parametrize("given", [[Image.new("L", (9, 9))], np.zeros((2, 9, 9), np.uint8), [None], 3])
def test_what_is_no_file_is_refused_with_what_to_give(run: Run, given: Any) -> None:
    with octc.load(run.artifacts / "onnx-int8", threads=1) as model:
        for ask in (model.predict, model.maps):
            with pytest.raises(OctcError) as caught:
                ask(given)
            assert caught.value.code == "OCT-E104"


def test_the_command_says_the_same(run: Run, octc: object) -> None:
    import octc as library

    paths = pictures(run)
    done = octc("predict", run.artifacts / "onnx-int8", *paths, "--json", "--threads", "1")  # type: ignore[operator]
    said = json.loads(done.stdout)["data"]
    with library.load(run.artifacts / "onnx-int8", threads=1) as model:
        ours = model.predict(paths)
    rows = said["predictions"] if "predictions" in said else said["records"]
    assert [row["label"] for row in rows] == [one.label for one in ours]
    for row, one in zip(rows, ours, strict=True):
        assert row["probabilities"] == pytest.approx(one.probabilities, abs=1e-6)


def test_what_is_damaged_is_refused(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(run.artifacts / "onnx-int8", folder)
    (folder / "model.onnx").write_bytes(b"x" + (folder / "model.onnx").read_bytes()[1:])
    with pytest.raises(OctcError) as caught:
        octc.load(folder)
    assert caught.value.code == "OCT-E501"
    with pytest.raises(OctcError) as caught:
        octc.load(tmp_path / "nothing")
    assert caught.value.code == "OCT-E107"


@pytest.mark.parametrize("words", [{"views": "many"}, {"batch": 0}])
def test_arguments_out_of_range_are_refused(run: Run, words: dict[str, object]) -> None:
    with octc.load(run.artifacts / "onnx-fp32", threads=1) as model, pytest.raises(OctcError) as caught:
        model.predict(pictures(run), **words)  # type: ignore[arg-type]
    assert caught.value.code == "OCT-E104"
