"""Cross-modal distillation end to end at tiny size: a fundus teacher, an OCT student with QAT, resume, refusals, eval."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octc.cli._app.main import main
from octc.datasets.split import read_split
from octc.store.runs import Run, find_run
from octc.train.loop.checkpoint import read_checkpoint
from tests.paired_set import write_pairs

SET = ("--dataset", "paired-phantom", "--recipe", "retnet-smoke")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a data set, a teacher of each modality, and an OCT student with its quantised form (FDDM and QAT)."""
    root = tmp_path_factory.mktemp("retnet")
    before = Path.cwd()
    os.chdir(root)
    write_pairs(root / "Dataset" / "paired-phantom")
    try:
        for words in (
            ("train", "retnet-teacher", *SET, "--modality", "fundus", "--epochs", "2"),
            ("train", "retnet-student", "--any-teacher", *SET, "--modality", "oct", "--qat", "--epochs", "2"),
        ):
            assert main((*words, "--quiet")) == 0, words
        yield root
    finally:
        os.chdir(before)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main((*words, "--json", "--quiet"))
    return code, json.loads(capsys.readouterr().out)


def student(place: Path) -> Run:
    return find_run(place / "runs", "r-0002")


def test_f22_f25_a_student_run_holds_both_networks_and_no_align_in_them(place: Path) -> None:
    run = student(place)
    stored = run.read()
    assert (stored["status"], stored["task"], stored["modality"], stored["kind"]) == ("done", "multilabel", "oct", "student")
    assert stored["teacher_run"] == "r-0001-teacher-paired-phantom"
    known, state = read_checkpoint(run.path / "train")
    assert known.preprocess.channels == 1
    assert not any(name.startswith(("align", "student")) for name in state)
    assert known.parent is not None
    assert known.parent["modality"] == "fundus"
    assert len(known.metrics["thresholds"]) == 6
    tuned, _ = read_checkpoint(run.path / "qat")
    assert tuned.quantisation is not None
    train = {s.sha256 for s in read_split(run.split).parts["train"]}
    assert set(tuned.quantisation["calibration"]) <= train  # B4
    split = read_split(run.split)
    assert {s.modality for items in split.parts.values() for s in items} == {"oct"}
    teacher = read_checkpoint(find_run(place / "runs", "r-0001").path / "train")[0]
    assert teacher.preprocess.channels == 3


def test_a_configuration_for_other_students_is_said_and_left_out(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", "retnet-student", "--any-teacher", "--dataset", "paired-phantom", "--modality", "oct", "--dry-run")
    (place / "mine.toml").write_text(
        '[train]\ndistil = "dist"\nstandardise = true\ncalibrate = true\ncached_views = 4\nepochs = 3\n'
    )
    assert main((*words, "--recipe", "retnet-smoke", "--config", "mine.toml")) == 0
    heard = capsys.readouterr().err
    for number, key in enumerate(("distil", "standardise", "calibrate", "cached_views"), 2):
        assert f"[train] {key} (file:mine.toml:{number}) is left out" in heard
    assert "epochs (" not in heard  # that one counts for every training
    monkeypatch.setenv("OCTC_TRAIN__DISTIL", "kl")
    monkeypatch.setenv("OCTC_TRAIN__RECIPE", "smoke")
    assert said(capsys, *words, "--teacher", "hub:o/n")[1]["error"]["code"] == "OCT-E102"
    code, out = said(capsys, *words, "--teacher", "r-0001")
    assert code == 0
    assert out["data"]["recipe"]["name"] == "retnet"
    code, out = said(capsys, *words, "--distil", "kl")  # asked for with the command: refused
    assert (code, out["error"]["code"]) == (2, "OCT-E102")


def test_a_finished_run_resumes_to_the_same_and_a_changed_one_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (student(place).path / "train" / "model.safetensors").read_bytes()
    assert main(("train", "retnet-student", "--any-teacher", "--resume", "r-0002", "--quiet")) == 0
    assert (student(place).path / "train" / "model.safetensors").read_bytes() == before
    code, out = said(capsys, "train", "retnet-student", "--any-teacher", "--resume", "r-0002", "--epochs", "9")
    assert (code, out["error"]["code"]) == (2, "OCT-E110")
    code, out = said(capsys, "train", "retnet-teacher", "--resume", "r-0002")
    assert (code, out["error"]["code"]) == (2, "OCT-E107")


def test_x2_a_teacher_of_the_wrong_modality_or_split_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("train", "retnet-student", "--any-teacher", *SET, "--modality", "fundus", "--teacher", "r-0001", "--epochs", "1")
    code, out = said(capsys, *words)
    assert (code, out["error"]["code"]) == (2, "OCT-E104")
    assert "fundus images" in out["error"]["message"]
    code, out = said(
        capsys, "train", "retnet-student", "--any-teacher", *SET, "--modality", "oct", "--seed", "5", "--epochs", "1"
    )
    assert (code, out["error"]["code"]) == (1, "OCT-E212")
    code, out = said(capsys, "train", "retnet-student", "--any-teacher", *SET, "--modality", "fundus", "--epochs", "1")
    assert (code, out["error"]["code"]) == (2, "OCT-E107")  # no OCT teacher yet
    code, out = said(capsys, "train", "retnet-student", "--any-teacher", "--dataset", "phantom", "--modality", "oct")
    assert (code, out["error"]["code"]) == (2, "OCT-E104")


def test_f49_f50_eval_by_eye_on_the_console_as_csv_and_as_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = said(capsys, "eval", "r-0002", "--split", "test")
    assert code == 0
    found = out["data"]
    assert found["eyes"] == 12
    assert [row["class"] for row in found["per_class"]] == ["NOR", "DRU", "CNV", "EDE", "HEM", "MEM"]
    assert {"f1", "f1_ss", "ap", "auc", "sensitivity"} <= set(found["per_class"][0])
    assert found["thresholds"] == read_checkpoint(student(place).path / "train")[0].metrics["thresholds"]  # B12: of val
    low, high = found["map_patient_bootstrap_95"]
    assert low <= found["overall"]["ap"] <= high
    folder = Path(found["folder"])
    assert {"predictions.csv", "per_class.csv", "figures.json", "report.txt"} <= {p.name for p in folder.iterdir()}
    assert "mAP" in (folder / "report.txt").read_text()
    assert any(stage["stage"] == "evaluated" for stage in student(place).read()["stages"])
