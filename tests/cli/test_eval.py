"""`octc eval`: figures of a run on its parts, files beside it, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octc.datasets.split import read_split
from octc.store.runs import Run
from octc.store.test_set_log import read_log
from octc.train.evaluation.outcome import evaluate, newest_evaluation, read_predictions
from tests.tiny_run import make_run, write_patterns

Octc = Callable[..., "subprocess.CompletedProcess[str]"]
HERE = True  # commands in this process (tests/conftest.py)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a set and a run on it."""
    folder = tmp_path_factory.mktemp("eval")
    write_patterns(folder / "set", patients=6, images=2)
    make_run(folder / "runs", folder / "set")
    return folder


@pytest.fixture
def run(place: Path) -> Run:
    return Run(next((place / "runs").glob("r-0001*")))


def test_the_newest_run_on_its_select_part(place: Path, run: Run, octc: Octc) -> None:
    done = octc("eval", cwd=place)
    assert done.returncode == 0, done.stderr
    assert f"using run {run.id}" in done.stderr
    assert "it chose the epoch: no claim" in done.stderr
    found = evaluate(read_predictions(run.path / "eval" / "val-none"))
    assert f"select accuracy {100 * (found.figures.accuracy or 0):.2f}" in done.stderr
    assert "macro avg" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("eval/val-none")


def test_val_is_the_part_that_is_called_select_too(place: Path, run: Run, octc: Octc) -> None:
    found = [octc("eval", run.id, "--split", name, "--json", cwd=place) for name in ("val", "select")]
    assert [one.returncode for one in found] == [0, 0]
    one, other = (json.loads(done.stdout)["data"] for done in found)
    assert one["part"] == other["part"] == "select"
    assert one["confusion"] == other["confusion"]


def test_test_with_views_as_json_and_in_the_log(place: Path, run: Run, octc: Octc) -> None:
    done = octc("eval", run.id, "--split", "test", "--tta", "hflip", "--average", "logits", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    assert value["run_id"] == run.id
    stored = read_predictions(run.path / "eval" / "test-hflip")
    found = evaluate(stored, "logits")
    assert value["data"]["confusion"] == found.matrix.tolist()
    assert value["data"]["accuracy"] == found.figures.accuracy
    assert stored.views == ("identity", "hflip")
    entry = run.read()["stages"][-1]
    assert (entry["stage"], entry["part"], entry["tta"]) == ("evaluated", "test", "hflip")


def test_a_second_evaluation_has_its_own_folder_and_every_reading_is_in_the_log(place: Path, octc: Octc) -> None:
    run = make_run(place / "more", place / "set")
    words = ("eval", run.id, "--split", "test", "--run-dir", str(place / "more"), "--json")
    first = json.loads(octc(*words, cwd=place).stdout)["data"]["folder"]
    before = {path.name: path.read_bytes() for path in Path(place, first).iterdir()}
    again = [json.loads(octc(*words, *more, cwd=place).stdout)["data"]["folder"] for more in ((), ("--average", "logits"))]
    assert [Path(one).name for one in (first, *again)] == ["test-none", "test-none-2", "test-none-3"]
    assert {path.name: path.read_bytes() for path in Path(place, first).iterdir()} == before
    assert newest_evaluation(run.path, "test") == run.path / "eval" / "test-none-3"
    assert newest_evaluation(run.path, "val") == run.path / "eval" / "val-none"  # there is none: the name of a first one
    shutil.rmtree(run.path / "eval" / "test-none-2")
    (run.path / "eval" / "test-none-4").mkdir()  # what is not finished is passed over
    assert newest_evaluation(run.path, "test").name == "test-none-3"
    log = read_log(run.path)
    assert [(one.command, one.part, one.plan) for one in log.readings] == [("eval", "test", None)] * 3
    assert (log.uses, log.complete) == (2, True)
    assert {one.images for one in log.readings} == {len(read_split(run.split).parts["test"])}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--split", "train"), "OCT-E104"),
        (("--tta", "7"), "OCT-E104"),
        (("r-0099",), "OCT-E107"),
        (("--device", "tpu"), "OCT-E104"),
        (("--split", "official"), "OCT-E104"),
    ],
)
def test_what_is_not_there_is_a_mistake_of_the_command(place: Path, octc: Octc, words: tuple[str, ...], code: str) -> None:
    done = octc("eval", *words, cwd=place)
    assert done.returncode == 2, done.stderr
    assert f"error[{code}]" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_image_that_changed_since_the_split_is_named(place: Path, run: Run, octc: Octc) -> None:
    samples = json.loads(run.split.read_text())["parts"]["val"]
    path = place / "set" / samples[0]["path"]
    kept = path.read_bytes()
    try:
        path.write_bytes(kept + b"x")
        done = octc("eval", run.id, cwd=place)
    finally:
        path.write_bytes(kept)
    assert done.returncode == 3
    assert "error[OCT-E216]" in done.stderr
    assert samples[0]["path"] in done.stderr
