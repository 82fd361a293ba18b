"""Where the images of a run are, and of which run an artifact is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from octc.core.errors import OctcError
from octc.datasets.layouts.folders import scan_folder
from octc.datasets.registry import find_root
from octc.datasets.split import make_split
from octc.store.artifacts import Artifact
from octc.store.locations import image_root, run_of
from octc.store.runs import Run, create_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    for name in ("dry", "wet"):
        for patient in range(12):
            path = tmp_path / "set" / name / f"{name}-{patient + 100 * (name == 'wet')}-1.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), patient * 9 + (name == "wet"), np.uint8)).save(path)
    run = create_run(tmp_path / "runs", "student", "folder", data_root=str(tmp_path / "set"))
    make_split(scan_folder(tmp_path / "set", None), "folder", 0).write(run.split)
    return run


def test_the_first_place_that_holds_the_images(run: Run, tmp_path: Path) -> None:
    assert image_root(run, None, {}) == tmp_path / "set"
    (tmp_path / "set").rename(tmp_path / "moved")
    assert image_root(run, None, {"OCTC_DATA": str(tmp_path / "moved")}) == tmp_path / "moved"
    (tmp_path / "set").mkdir()  # a folder, and none of the images in it
    assert image_root(run, None, {"OCTC_DATA": str(tmp_path / "moved")}) == tmp_path / "moved"
    assert image_root(run, None, {}) == tmp_path / "set"
    assert image_root(run, str(tmp_path / "moved"), {"OCTC_DATA": "elsewhere"}) == tmp_path / "moved"


def test_images_that_are_nowhere(run: Run, tmp_path: Path) -> None:
    (tmp_path / "set").rename(tmp_path / "away")
    with pytest.raises(OctcError, match="are not on this machine") as caught:
        image_root(run, None, {})
    assert caught.value.code == "OCT-E230"
    assert "--data DIR" in str(caught.value.hint)
    assert "OCTC_DATA" in str(caught.value.hint)
    assert "where it was trained" in str(caught.value.why)


def test_a_variable_that_leads_nowhere_is_an_error_and_no_default_takes_its_place(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Dataset" / "UCSD").mkdir(parents=True)
    (tmp_path / "a file").write_text("")
    for wrong in ("nothing", "a file"):
        environ = {"OCTC_DATA": str(tmp_path / wrong)}
        for name in ("ucsd", "phantom", "folder"):
            with pytest.raises(OctcError, match="OCTC_DATA names a folder that is not here") as caught:
                find_root(name, None, environ)
            assert caught.value.code == "OCT-E230"
        assert image_root(run, None, environ) == tmp_path / "set"  # where it was trained: the variable is not asked
        assert find_root("folder", str(tmp_path / "set"), environ) == tmp_path / "set"
    assert str(find_root("ucsd", None, {"OCTC_DATA": ""})) == "Dataset/UCSD"
    (tmp_path / "set").rename(tmp_path / "away")
    with pytest.raises(OctcError, match="OCTC_DATA names a folder that is not here"):
        image_root(run, None, {"OCTC_DATA": str(tmp_path / "nothing")})


@dataclass
class Made:
    """What `run_of` reads of an artifact."""

    lineage: dict[str, Any] = field(default_factory=dict)


def test_the_run_of_an_artifact_around_it_or_by_its_id(run: Run, tmp_path: Path) -> None:
    folder = run.artifacts / "onnx-int8"
    folder.mkdir(parents=True)
    made = cast(Artifact, Made({"run": run.id}))
    assert run_of(folder, made, tmp_path / "none") == run
    (tmp_path / "copied").mkdir()
    assert run_of(tmp_path / "copied", made, run.path.parent) == run
    assert run_of(tmp_path / "copied", made, tmp_path / "none") is None
    assert run_of(tmp_path / "copied", cast(Artifact, Made()), run.path.parent) is None
    renamed = run.path.rename(tmp_path / "runs" / "renamed")
    assert run_of(renamed / "artifacts" / "onnx-int8", made, tmp_path / "none") == Run(renamed)
    (renamed / "run.json").write_text(json.dumps([]))
    assert run_of(renamed / "artifacts" / "onnx-int8", made, tmp_path / "none") is None
