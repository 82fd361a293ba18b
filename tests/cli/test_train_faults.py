"""Faults of a training, made to happen: a full disk, a kill before the evaluation, little memory, a teacher at chance."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from octc.store.runs import Run
from octc.train import stages
from octc.train.evaluation.outcome import read_predictions
from octc.train.loop.checkpoint import read_checkpoint
from tests.cli.train_words import SMOKE, Said, one_processor, patterns, said

__all__ = ["one_processor", "patterns", "said"]  # fixtures
TEACHER = "r-0001-teacher-folder"
ON_A_SMALL_DISK = """
mkdir -p runs && mount -t tmpfs -o size=18m none runs || exit 99
"$@" train teacher {words} --epochs 2; echo "full: $?"
ls runs/{run}/train
mount -o remount,size=400m runs
"$@" train teacher --resume; echo "room: $?"
cp -r runs kept
"""


@pytest.mark.slow
def test_a_full_disk_ends_with_4_and_with_room_it_goes_on(tmp_path: Path, patterns: Path) -> None:
    """A file system of 18 MB, in a mount space of its own; where those are not allowed, a limit on the size of files."""
    octc = [sys.executable, "-m", "octc.cli._app.main"]
    words = " ".join(SMOKE)
    environment = {**os.environ, "OCTC_DATA": str(patterns)}
    script = ["unshare", "-rm", "sh", "-c", ON_A_SMALL_DISK.format(words=words, run=TEACHER), "sh", *octc]
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        limited = f'(ulimit -f 4000; "$@" train teacher {words} --epochs 2); echo "full: $?"\n'
        script = ["sh", "-c", f'{limited}"$@" train teacher --resume; echo "room: $?"; cp -r runs kept', "sh", *octc]
    made = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert "full: 4" in made.stdout, made.stdout + made.stderr
    assert "OCT-E904" in made.stderr
    assert "internal error" not in made.stderr
    assert ".tmp-" not in made.stdout  # nothing half-written is left
    assert "room: 0" in made.stdout, made.stderr
    checkpoint, _ = read_checkpoint(tmp_path / "kept" / TEACHER / "train")
    assert checkpoint.metrics["epochs"] == 2


KILLED = """
import os, signal, sys
from octc.cli._app.main import main
from octc.train import stages
stages.assess = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_kill_between_the_checkpoint_and_its_evaluation_loses_nothing(tmp_path: Path, patterns: Path, said: Said) -> None:
    words = [sys.executable, "-c", KILLED, "train", "teacher", *SMOKE, "--epochs", "1"]
    environment = {**os.environ, "OCTC_DATA": str(patterns)}
    killed = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = Run(tmp_path / "runs" / TEACHER)
    before, _ = read_checkpoint(run.path / "train")
    assert not (run.path / "eval").exists()
    (run.path / "train" / "curves.png").unlink(missing_ok=True)
    code, _, err = said("teacher", "--resume")
    assert code == 0, err
    after, _ = read_checkpoint(run.path / "train")
    assert after == before
    assert read_predictions(run.path / "eval" / "val-none").facts["checkpoint_sha256"] == before.sha256
    assert (run.path / "train" / "curves.png").is_file()
    assert [entry["stage"] for entry in run.read()["stages"]] == ["train"]
    assert run.read()["status"] == "done"
    assert said("teacher", "--resume", TEACHER)[0] == 0
    assert [entry["stage"] for entry in run.read()["stages"]] == ["train"]  # once more changes nothing


def short_of_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A step of more than `most` images raises what torch raises when a GPU is too small."""
    real = stages.label_loss

    def make(*words: Any) -> Any:
        loss = real(*words)

        def checked(logits: torch.Tensor, x: torch.Tensor, labels: torch.Tensor) -> Any:
            if len(x) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return loss(logits, x, labels)

        return checked

    monkeypatch.setattr(stages, "label_loss", make)


@pytest.mark.slow
def test_t11_auto_halves_the_batch_until_it_fits_and_keeps_the_update(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, 4)
    code, _, err = said("teacher", *SMOKE, "--epochs", "1")
    assert code == 0, err
    assert "batch 16 -> 8, 16 images an update" in err
    assert "batch 8 -> 4, 16 images an update" in err
    known = Run(tmp_path / "runs" / TEACHER).read()
    assert (known["recipe"]["teacher"]["batch"], known["recipe"]["teacher"]["accumulate"]) == (4, 4)
    assert [entry["stage"] for entry in known["stages"]] == ["changed", "changed", "train"]
    assert said("teacher", "--resume", TEACHER)[0] == 0  # the recipe of the run is the one that fitted


@pytest.mark.slow
def test_t11_a_batch_that_was_asked_for_is_not_changed_and_the_error_says_what_to_try(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, 4)
    code, _, err = said("teacher", *SMOKE, "--epochs", "1", "--batch", "12")
    assert (code, "OCT-E302" in err) == (4, True)
    assert "batches tried: 12" in err
    assert "--batch 6" in err
    assert "--batch auto" in err
    short_of_memory(monkeypatch, 0)
    code, _, err = said("teacher", *SMOKE, "--epochs", "1")
    assert (code, "batches tried: 16, 8, 4, 2\n" in err) == (4, True)


@pytest.mark.slow
def test_a_teacher_at_chance_does_not_teach(said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that learned nothing: one epoch at a rate of nothing. No recipe takes it unless that is asked for."""
    monkeypatch.delenv("OCTC_TRAIN__ANY_TEACHER")
    (tmp_path / "octc.toml").write_text("[train]\nlr = 1e-12\n")
    assert said("teacher", *SMOKE, "--epochs", "1")[0] == 0
    (tmp_path / "octc.toml").unlink()
    for recipe in ("edge", "smoke"):
        code, _, err = said("student", "--dataset", "folder", "--recipe", recipe, "--teacher", TEACHER)
        assert code == 1
        assert "OCT-E702" in err
        assert "the teacher is at chance: " in err
        assert "it answered " in err
        assert "--teacher none" in err
    assert len(list((tmp_path / "runs").glob("r-*"))) == 1  # a refusal leaves no run
    code, _, err = said("student", *SMOKE, "--teacher", TEACHER, "--any-teacher", "--dry-run")
    assert code == 0
    assert "it teaches because --any-teacher asks for it" in err
    known = json.loads((tmp_path / "runs" / TEACHER / "run.json").read_text())
    assert known["status"] == "done"
