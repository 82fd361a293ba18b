"""`octc train --use commercial`: refused before the training, with the words and the code of `octc export --use` after it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octc.cli._app.main import main
from octc.core.files import sha256_file
from octc.store.runs import Run
from octc.train.loop.checkpoint import read_checkpoint, write_checkpoint
from tests.cli.test_train_hub_teacher import cache, config, put_hub
from tests.cli.train_words import SMOKE, Said, one_processor, patterns, said
from tests.tiny_run import make_run

__all__ = ["cache", "one_processor", "patterns", "said"]  # fixtures
USE = ("--use", "commercial")


def stated(run: Run, **facts: Any) -> None:
    """Change what a checkpoint says of where it comes from."""
    checkpoint, state = read_checkpoint(run.path / "train")
    write_checkpoint(run.path / "train", state, replace(checkpoint, **facts))


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["error"]
    assert found["code"] == "OCT-E412"
    return {key: found[key] for key in ("code", "message", "why", "help")}


def test_start_weights_are_judged_before_the_images_are_looked_at(
    said: Said, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the student, and of the teacher that would be trained first; random weights and a file that is known are free."""
    assert said("teacher", *SMOKE, *USE, "--dry-run")[0] == 0
    monkeypatch.setenv("OCTC_DATA", str(tmp_path / "nowhere"))
    found = error_of(capsys, "train", "student", "--dataset", "ucsd", "--recipe", "kd-oct", "--with-teacher", *USE)
    assert "ConvNeXt V2" in found["message"] or "convnextv2" in found["message"]
    assert "teacher's start weights" in found["message"]
    file = tmp_path / "start.safetensors"
    file.write_bytes(b"of somebody")
    words = ("train", "teacher", *SMOKE, *USE, "--weights", str(file))
    assert "start weights" in error_of(capsys, *words)["message"]
    rows = [{"name": "ours", "licence": "MIT", "source": "contract 1", "digests": [sha256_file(file)]}]
    (tmp_path / "licences.json").write_text(json.dumps(rows))
    assert main([*words, "--licences", str(tmp_path / "licences.json")]) == 3, "allowed, and then there are no images"
    assert not (tmp_path / "runs").exists()


def test_a_teacher_that_forbids_it_is_refused_as_its_student_would_be_at_the_export(
    said: Said, tmp_path: Path, patterns: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {"source": "a copy", "licence": "apache-2.0 of a CC-BY-NC-4.0 network"}
    teacher = make_run(tmp_path / "runs", patterns, kind="teacher")
    stated(teacher, weights=weights)
    before = error_of(capsys, "train", "student", *SMOKE, *USE, "--teacher", teacher.id, "--epochs", "1")
    assert [one.id for one in map(Run, (tmp_path / "runs").glob("r-*"))] == [teacher.id]
    student = make_run(tmp_path / "runs", patterns, teacher_run=teacher.id)
    known = json.loads((teacher.path / "train" / "checkpoint.json").read_text())
    parent = {"model": known["model"], "sha256": "0" * 64, "weights": weights}
    stated(student, weights={"source": "random", "licence": "none"}, parent=parent)
    after = error_of(capsys, "export", student.id, "--target", "onnx", "--fp32", *USE)
    assert before == after


def test_a_teacher_of_a_hub_is_refused_before_it_is_asked_anything(
    said: Said, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_hub(cache, "o/n", config())
    found = error_of(capsys, "train", "student", *SMOKE, *USE, "--teacher", "hub:o/n", "--epochs", "1")
    assert "cc-by-nc-4.0" in found["message"]
    assert "teacher's data" in found["message"], "what it was trained on is not known"
    assert not list(Path("runs").glob("r-*"))


def test_the_use_of_a_configuration_is_kept_in_the_run(said: Said, tmp_path: Path) -> None:
    (tmp_path / "octc.toml").write_text('[train]\nuse = "commercial"\n')
    code, _, err = said("teacher", *SMOKE, "--epochs", "1")
    assert code == 0, err
    (run,) = map(Run, (tmp_path / "runs").glob("r-*"))
    assert run.read()["request"]["use"] == "commercial"
    (tmp_path / "octc.toml").unlink()
    assert said("teacher", *SMOKE, "--resume", run.id)[0] == 0
    (tmp_path / "octc.toml").write_text('[train]\nuse = "fun"\n')
    assert said("teacher", *SMOKE, "--dry-run")[0] == 2
