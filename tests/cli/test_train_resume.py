"""A run goes on as it was asked for: the stored request counts, another one is refused, and what a kill left is removed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from octc.core.files import publishing
from octc.store.runs import Run, owning
from octc.train.jobs.resume import FIXED, HELD
from octc.train.loop import fit
from octc.train.loop.checkpoint import read_checkpoint, write_checkpoint
from octc.train.recipes.registry import RECIPES
from tests.cli.train_words import SMOKE, Said, one_processor, patterns, said
from tests.house.tree import ROOT

__all__ = ["one_processor", "patterns", "said"]  # fixtures
NAME = "r-0001-student-folder"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, patterns: Path, warm: tuple[str, ...]) -> Path:
    """Runs with a student that was begun with --no-qat and an epoch fewer than the configuration that stood there."""
    place = tmp_path_factory.mktemp("plain")
    (place / "octc.toml").write_text("[train]\nepochs = 3\nlr = 0.01\n")
    words = ["train", "student", *SMOKE, "--teacher", "none", "--no-qat", "--epochs", "2", "--quiet"]
    done = subprocess.run(
        [*warm, "-m", "octc.cli._app.main", *words], cwd=place, env={**os.environ, "OCTC_DATA": str(patterns)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def begun(plain: Path, tmp_path: Path) -> Run:
    shutil.copytree(plain / "runs", tmp_path / "runs")
    shutil.copy(plain / "octc.toml", tmp_path)
    run = Run(tmp_path / "runs" / NAME)
    run.update(status="interrupted")
    return run


def test_the_printed_command_adds_nothing(begun: Run, said: Said) -> None:
    assert begun.read()["request"]["qat"] is False
    code, _, err = said("student", "--resume", begun.id)
    assert code == 0, err
    assert begun.read()["status"] == "done"
    assert not (begun.path / "qat").exists()
    assert "QAT" not in err
    code, out, _ = said("student", "--resume", begun.id, "--no-qat", "--recipe", "smoke", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["data"]["recipe"]["student"]["epochs"] == 2


def test_a_finished_run_that_is_resumed_says_so_and_changes_nothing(begun: Run, said: Said) -> None:
    assert said("student", "--resume", begun.id)[0] == 0
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in begun.path.rglob("*") if path.is_file()}
    for more in ((), ("--no-qat",), ("--allow-change",), ("--epochs", "2")):
        code, out, err = said("student", "--resume", begun.id, *more)
        assert code == 0, err
        assert f"{begun.id} is finished: nothing was changed" in err
        assert begun.id in out
    code, _, err = said("student", "--resume", begun.id, "--qat")  # switched on: another request
    assert (code, "OCT-E110" in err) == (2, True)
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in begun.path.rglob("*") if path.is_file()}


def test_a_refusal_after_the_run_began_leaves_no_run(said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start weights that are not here are found out when the network is built."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    code, _, err = said("teacher", "--dataset", "folder", "--recipe", "kd-oct", "--epochs", "1", "--batch", "2")
    assert (code, "OCT-E310" in err) == (4, True), err
    assert not [path for path in (tmp_path / "runs").glob("*") if path.is_dir()]


@pytest.mark.parametrize(
    ("words", "named"),
    [("--qat", ("--no-qat", "--qat")), ("--precision fp32", ("auto", "fp32")), ("--skip-bad", ("no --skip-bad", "--skip-bad")),
     ("--weights none", ("--weights the recipe", "none")), ("--protocol as-released", ("clean", "as-released")),
     ("--dataset ucsd", ("folder", "ucsd")), ("--epochs 5", ("2 -> 5",)), ("--batch 3", ("-> 3",)), ("--seed 3", ("0 -> 3",)),
     ("--recipe edge", ("smoke -> edge",)), ("--distil dkd", ("-> dkd",)), ("--cached-views 2", ("-> 2",)),
     ("--teacher-precision bf16", ("-> bf16",)),
     ("--standardise", ("False -> True",)), ("--calibrate", ("False -> True",))],
)  # fmt: skip
def test_another_request_is_refused_with_both_values(begun: Run, said: Said, words: str, named: tuple[str, ...]) -> None:
    before = (begun.path / "run.json").read_bytes()
    code, out, err = said("student", "--resume", begun.id, *words.split(), "--json")
    error = json.loads(out)["error"]
    assert (code, error["code"]) == (2, "OCT-E110"), err
    assert all(value in error["message"] for value in named), error["message"]
    assert (begun.path / "run.json").read_bytes() == before


@pytest.mark.parametrize("words", ["--with-teacher", "--folds 3"])
def test_what_makes_another_run_contradicts_resume(begun: Run, said: Said, words: str) -> None:
    code, out, _ = said("student", "--resume", begun.id, *words.split(), "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "OCT-E102")


def test_another_teacher_is_refused(begun: Run, said: Said) -> None:
    code, _, err = said("teacher", *SMOKE, "--epochs", "2", "--quiet")
    assert code == 0, err
    checkpoint, state = read_checkpoint(begun.path.parent / "r-0002-teacher-folder" / "train")
    sure = {**checkpoint.metrics, "val_n": None}  # two epochs teach it next to nothing
    write_checkpoint(begun.path.parent / "r-0002-teacher-folder" / "train", state, replace(checkpoint, metrics=sure))
    before = (begun.path / "run.json").read_bytes()
    code, out, _ = said("student", "--resume", begun.id, "--teacher", "r-0002", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "OCT-E110")
    assert "none -> r-0002" in json.loads(out)["error"]["message"]
    assert said("student", "--resume", begun.id, "--teacher", "r-0002", "--allow-change", "--dry-run")[0] == 0
    assert (begun.path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [("EPOCHS", "3", 0), ("EPOCHS", "2", 0), ("EPOCHS", "7", 2), ("LR", "0.01", 0), ("LR", "0.02", 2), ("SEED", "9", 2),
     ("RECIPE", "edge", 2), ("RECIPE", "smoke", 0), ("VAL", "0.4", 2)],
)  # fmt: skip
def test_configuration_that_stood_there_is_no_new_request_and_another_one_is(
    begun: Run, said: Said, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, code: int
) -> None:
    monkeypatch.setenv(f"OCTC_TRAIN__{variable}", value)
    found, out, err = said("student", "--resume", begun.id, "--dry-run", "--json")
    assert found == code, err
    error = json.loads(out)["error"]
    assert (error and error["code"]) == (None if code == 0 else "OCT-E110")


def test_what_may_differ_may(begun: Run, said: Said, patterns: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(patterns, tmp_path / "moved")
    words = ("--device", "cpu", "--data", str(moved), "--fetch-weights", "--quiet", "--no-color", "--offline", "--dry-run")
    assert said("student", "--resume", begun.id, *words)[0] == 0


def test_allow_change_says_it_and_keeps_it(begun: Run, said: Said) -> None:
    before = (begun.path / "train" / "model.safetensors").read_bytes()
    code, _, err = said("student", "--resume", begun.id, "--qat", "--allow-change")
    assert code == 0, err
    assert "--no-qat -> --qat" in err
    assert begun.read()["request"]["qat"] is True
    assert (begun.path / "qat" / "checkpoint.json").is_file()
    assert (begun.path / "train" / "model.safetensors").read_bytes() == before
    code, out, _ = said("student", "--resume", begun.id, "--no-qat", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "OCT-E110")


def test_a_finished_network_that_goes_on_with_changes_and_is_killed_goes_on_with_them(
    begun: Run, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that is printed then: the network that was finished before does not stand for the one that was asked for."""

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    before = read_checkpoint(begun.path / "train")[0]
    with monkeypatch.context() as patch:
        patch.setattr(fit, "_train_epoch", stopped)  # before any state of the changed training is written
        assert said("student", "--resume", begun.id, "--epochs", "3", "--allow-change")[0] == 130
    assert begun.read()["recipe"]["student"]["epochs"] == 3
    code, _, err = said("student", "--resume", begun.id)
    assert code == 0, err
    made = read_checkpoint(begun.path / "train")[0]
    assert (before.metrics["epochs"], made.metrics["epochs"]) == (2, 3)
    assert made.recipe["student"]["epochs"] == 3
    assert [one["stage"] for one in begun.read()["stages"]] == ["train", "changed", "train"]
    code, _, err = said("student", "--resume", begun.id)
    assert (code, f"{begun.id} is finished: nothing was changed" in err) == (0, True)
    assert (
        said("student", "--resume", begun.id, "--epochs", "2", "--allow-change")[0] == 0
    )  # no epoch is left: the same network
    assert [one["stage"] for one in begun.read()["stages"]][3:] == ["changed", "train"]
    code, _, err = said("student", "--resume", begun.id)
    assert (code, f"{begun.id} is finished: nothing was changed" in err) == (0, True)


def test_a_run_that_another_process_owns_is_not_changed(begun: Run, said: Said) -> None:
    before = (begun.path / "run.json").read_bytes()
    with owning(begun):
        code, out, _ = said("student", "--resume", begun.id, "--epochs", "3", "--allow-change", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "OCT-E108")
    assert (begun.path / "run.json").read_bytes() == before


@pytest.mark.parametrize("told", [{"model": "vit_tiny_patch16_224", "size": 64}, {"model_kwargs": {"global_pool": ""}}])
def test_a_network_that_does_not_take_its_pictures_is_refused_before_any_work(
    said: Said, tmp_path: Path, told: dict[str, Any]
) -> None:
    recipe = RECIPES["smoke"]()
    changed = replace(recipe, name="own", student=replace(recipe.student, **told))
    (tmp_path / "own.json").write_text(json.dumps(asdict(changed)))
    words = ("student", "--dataset", "folder", "--recipe", "own.json", "--teacher", "none", "--no-qat", "--json")
    code, out, _ = said(*words)
    assert (code, json.loads(out)["error"]["code"]) == (3, "OCT-E307")
    assert not list((tmp_path / "runs").glob("r-*"))


def test_a_run_of_an_older_octc_goes_on_and_that_is_said(begun: Run, said: Said) -> None:
    value = begun.read()
    del value["request"]
    (begun.path / "run.json").write_text(json.dumps(value))
    (begun.path.parent.parent / "octc.toml").unlink()
    code, _, err = said("student", "--resume", begun.id, "--no-qat")
    assert code == 0, err
    assert "older octc" in err or "less of the request" in err
    assert begun.read()["request"]["qat"] is False


# what may be another one when a run goes on: where and how loudly it runs, and where things lie
FREE = (
    "allow_change",
    "any_teacher",
    "cached_views_on",
    "config",
    "data",
    "device",
    "dry_run",
    "fetch_weights",
    "json",
    "licences",
    "no_color",
    "offline",
    "quiet",
    "resume",
    "run_dir",
    "teacher_model",
    "trust_pickle",
    "verbose",
)
# compared as the recipe that they make
BY_RECIPE = ("cached_views", "calibrate", "distil", "epochs", "recipe", "standardise", "teacher_precision")
BY_ITSELF = (
    "fold",
    "folds",
    "leave_out",
    "seed",
    "teacher",
    "with_teacher",
)  # compared, or refused beside --resume, where they are read


def test_every_option_of_training_is_held_or_free() -> None:
    options = json.loads((ROOT / "tests" / "house" / "options.json").read_text())
    names = {
        name
        for command in options["commands"]
        if command.startswith("train ")
        for name in options["commands"][command]["options"]
    }
    names |= set(options["common"])
    plain = {name.split("/")[0].removeprefix("--").replace("-", "_") for name in names}
    assert plain == {*FREE, *HELD, *FIXED, *BY_RECIPE, *BY_ITSELF}


WRITER = """
import sys, time
from pathlib import Path
from octc.core.files import publishing
with publishing(Path(sys.argv[1])) as new:
    (new / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


def writer(folder: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_what_a_kill_left_goes_with_the_next_owner_and_a_living_process_keeps_its_own(tmp_path: Path) -> None:
    run = Run(tmp_path / "r-0001-student-folder")
    (run.path / ".tmp-export-abc" / "deep").mkdir(parents=True)
    with publishing(run.artifacts / "swapped") as new:
        (new / "whole").write_text("whole")
    dead, alive = writer(run.artifacts / "onnx-int8"), writer(run.artifacts / "onnx-fp32")
    try:
        dead.send_signal(signal.SIGKILL)
        dead.communicate()
        (run.path / f".tmp-{dead.pid}-run.json").write_text("{")
        (run.artifacts / "swapped").rename(run.artifacts / f".tmp-{dead.pid}-old-swapped")
        before = {path.name for path in run.artifacts.iterdir()}
        with owning(run, tidy=False):
            assert {path.name for path in run.artifacts.iterdir()} == before
        with owning(run):
            left = {path.name for path in run.path.rglob(".tmp-*")}
            assert left == {f".tmp-{alive.pid}-onnx-fp32"}
            assert (run.artifacts / f".tmp-{alive.pid}-onnx-fp32" / "half").is_file()
            assert (run.artifacts / "swapped" / "whole").read_text() == "whole"
    finally:
        alive.kill()
        alive.communicate()
    with owning(run):
        assert not list(run.path.rglob(".tmp-*"))


def test_a_reused_number_of_a_process_protects_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "r-0001-student-folder")
    left = run.path / f".tmp-{os.getpid()}-train"
    left.mkdir(parents=True)
    os.utime(left, (1_000_000_000, 1_000_000_000))  # long before this process was started
    with owning(run):
        assert not left.exists()
