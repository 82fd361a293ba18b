"""What `octc export` keeps of the validation set, so that a box is watched at once and without its images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import octc
from octc.cli._app.main import main
from octc.datasets.base import Sample
from octc.export import reference
from octc.export.kept_validation import read_validation
from octc.export.reference import exchangeable, exported_details, whole_patients
from octc.export.source import read_source
from octc.stats.cluster_bootstrap import clusters_of
from octc.stats.reference_sketch import OWN, ReferenceSketch, stated_sketch
from octc.store.artifacts import read_artifact
from octc.store.runs import Run
from tests.cli.verify_runs import made_pair


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    made = made_pair()
    shutil.copytree(made.path.parent, tmp_path / "runs")
    shutil.copytree(made.path.parent.parent / "patterns", tmp_path / "patterns")
    monkeypatch.chdir(tmp_path)
    for one in (tmp_path / "runs").glob("r-*"):
        Run(one).update(data_root=str(tmp_path / "patterns"))
    return Run(tmp_path / "runs" / made.id)


def sketch_of(folder: Path) -> ReferenceSketch | None:
    return stated_sketch(read_artifact(folder).details)


def test_every_students_artifact_knows_its_validation_set_as_learning_it_later_would(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each from its own answers (INT8 those of the gate), the same bits again, small, and what `octc.fit_reference` stores; a
    teacher answers on no box, and keeps nothing."""
    folders = sorted(run.artifacts.iterdir())
    first = {folder.name: sketch_of(folder) for folder in folders}
    assert {"onnx-fp32", "onnx-int8", "openvino-int8"} < set(first)
    octc.fit_reference(run.artifacts, run_dir="runs")
    assert {folder.name: sketch_of(folder) for folder in folders} == first
    assert main(["export", run.id, "--target", "onnx", "--fp32", "--force", "-q"]) == 0
    assert sketch_of(run.artifacts / "onnx-fp32") == first["onnx-fp32"]
    (teacher,) = (one for one in Path("runs").glob("r-*-teacher-*/artifacts/torch-fp32"))
    assert sketch_of(teacher) is None
    for folder in folders:
        found = first[folder.name]
        assert found is not None
        assert found.patients == len(found.streams["confidence"])
        assert set(OWN) < set(found.streams), "and the statistics of pictures"
        assert len(json.dumps(read_artifact(folder).details["monitor"])) < 64 * 1024
    artifact, source = read_artifact(folders[0]), read_source(run, Path("patterns"))
    monkeypatch.setattr(reference, "MOST_IMAGES", 10)
    some = read_validation(source, lambda _done, _total: None)
    answers = np.random.default_rng(0).normal(size=(len(source.split.parts["val"]), 4)).astype(np.float32)
    kept = exported_details(some, artifact, answers)
    assert 0 < len(some.places) <= 10 < len(answers)
    assert kept == exported_details(some, artifact, answers[some.places])
    assert exported_details(some, artifact, np.full_like(answers, np.nan)) == {}


def test_a_box_is_watched_where_the_run_and_its_images_are_not(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = tmp_path / "box"
    shutil.copytree(run.artifacts / "onnx-fp32", box / "onnx-fp32")
    pictures = [str(shutil.copy(path, box)) for path in sorted((tmp_path / "patterns").rglob("*.png"))[:4]]
    shutil.rmtree(tmp_path / "runs")
    shutil.rmtree(tmp_path / "patterns")
    assert main(["predict", "box/onnx-fp32", *pictures, "--monitor", "box.sqlite", "-q"]) == 0
    capsys.readouterr()
    assert main(["monitor", "box/onnx-fp32", "box.sqlite", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["data"]["report"]
    assert report["without_labels"] is not None


def test_where_validation_images_are_not_here_the_artifact_is_made_and_it_is_said(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    split = json.loads(run.split.read_text())
    shutil.rmtree(run.path.parent / ".cache", ignore_errors=True)
    Path("patterns", split["parts"]["val"][0]["path"]).unlink()
    assert main(["export", run.id, "--target", "onnx", "--fp32", "--force"]) == 0
    assert "monitor        not kept" in capsys.readouterr().err
    assert sketch_of(run.artifacts / "onnx-fp32") is None


def test_patients_are_whole_and_come_by_their_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    one = Sample("a.png", 0, "p", None, "")
    samples = [replace(one, patient=f"p{rng.integers(12)}", sha256=f"{rng.integers(1 << 60):x}") for _ in range(60)]
    assert whole_patients(samples) == list(range(60))
    monkeypatch.setattr(reference, "MOST_IMAGES", 20)
    kept = [samples[k] for k in whole_patients(samples)]
    people = {each.patient for each in kept}
    assert 0 < len(kept) <= 20
    assert sorted(each.sha256 for each in kept) == sorted(each.sha256 for each in samples if each.patient in people)
    chosen = [kept[k] for k in exchangeable(kept, clusters_of([each.patient for each in kept]))]
    assert len(chosen) == len(people)
    assert all(each.sha256 == min(other.sha256 for other in kept if other.patient == each.patient) for each in chosen)
