"""A search that is given again: with what was lacking, on another device, beside a newer teacher, with other data options."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from octc.cli._app.main import main
from octc.core.errors import OctcError
from octc.core.files import write_json
from octc.core.progress import LogReporter
from octc.datasets.layouts.folders import scan_folder
from octc.export.search import finish, job, rounds
from octc.export.search.candidates import check_targets
from octc.export.search.select import Budget
from octc.export.search.state import Book
from octc.schemas.common import builtins
from octc.schemas.search import Candidate, Measured, SearchOptions
from octc.train.recipes.registry import RECIPES
from tests.export.search.test_rounds import TRAINING, fresh
from tests.export.search.test_times import book_of, measured
from tests.tiny_run import make_run, write_patterns

SMALL = {"name": "a", "model": "test_resnet", "size": 32, "weights": "none"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """patterns/, runs/ with two teachers, and a candidate."""
    base = tmp_path_factory.mktemp("again")
    write_patterns(base / "patterns", patients=6, images=2)
    digest = scan_folder(base / "patterns", None).digest
    for _ in range(2):
        make_run(
            base / "runs", base / "patterns", "teacher", recipe=asdict(RECIPES["smoke"]()), seed=0, data_digest=digest,
            protocol="clean",
        )  # fmt: skip
    (base / "candidates.json").write_text(json.dumps({"candidates": [SMALL]}))
    return base


def prepared(place: Path, runs: Path, **options: Any) -> job.Ready:
    given = SearchOptions(
        budget=["5ms"], candidates=place / "candidates.json", recipe="smoke", epochs=1, target="onnx", dataset="folder",
        cached_views=1, **options,
    )  # fmt: skip
    return job.prepare(job.SearchJob(given, runs, str(place / "patterns")))


def begin(ready: job.Ready) -> Path:
    folder = ready.job.run_dir / ready.name
    folder.mkdir()
    write_json(folder / "search.json", builtins(job._fresh(ready)))
    return folder


def test_a_search_goes_on_with_the_teacher_that_it_began_with(place: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(place / "runs", runs)
    newer = runs / "r-0002-teacher-folder"
    newer.rename(tmp_path / "newer")
    ready = prepared(place, runs)
    folder = begin(ready)
    (tmp_path / "newer").rename(newer)
    again = prepared(place, runs)
    assert (again.name, Path(str(again.training.asked.teacher)).name) == (ready.name, "r-0001-teacher-folder")
    named = prepared(place, runs, teacher="r-0002")
    assert (named.name != ready.name, Path(str(named.training.asked.teacher)).name) == (True, "r-0002-teacher-folder")
    (runs / "r-0001-teacher-folder").rename(tmp_path / "gone")
    with pytest.raises(OctcError) as caught:
        prepared(place, runs)
    assert (caught.value.code, caught.value.place) == ("OCT-E107", str(folder))
    done = json.loads((folder / "search.json").read_text())
    (folder / "search.json").write_text(json.dumps({**done, "status": "done"}))
    assert prepared(place, runs).name == ready.name, "one that is done needs no teacher"
    shutil.rmtree(folder)
    assert Path(str(prepared(place, runs).training.asked.teacher)).name == "r-0002-teacher-folder"


def test_how_images_are_read_is_part_of_a_search_and_of_its_trials(place: Path, tmp_path: Path) -> None:
    plain = prepared(place, tmp_path / "runs", teacher="none")
    ranged = prepared(place, tmp_path / "runs", teacher="none", value_range="0,200")
    assert ranged.training.base.student.value_range == (0, 200)
    assert ranged.recipe(ranged.candidates["a"]).student.value_range == (0, 200)
    nobody = prepared(place, tmp_path / "other", teacher="none", patients="unknown")
    assert len({plain.name, ranged.name, nobody.name}) == 3
    run = rounds.train_trial(ranged.training, ranged.name, ranged.candidates["a"], 1)
    assert run.read()["recipe"]["student"]["value_range"] == [0, 200]
    assert json.loads((run.path / "train" / "checkpoint.json").read_text())["preprocess"]["value_range"] == [0, 200]
    found = finish.commands(
        ranged.training, Book(tmp_path / "runs" / "s", job._fresh(ranged)), ranged.candidates["a"], "onnx", ranged.options
    )
    assert all(f"--run-dir {tmp_path / 'runs'}" in one for one in found)
    assert "--value-range 0,200" in found[0]
    evaluation = run.path / "eval" / "val-none"
    whole = json.loads((evaluation / "figures.json").read_text())["figures"]["accuracy"]
    shutil.rmtree(evaluation)
    again = rounds.train_trial(ranged.training, ranged.name, ranged.candidates["a"], 1)
    trial = rounds._new("a", 1)
    rounds._fill(trial, again)
    assert (again.id, trial.accuracy) == (run.id, whole), "it is evaluated again, not trained"


def lacking(name: str, state: Any) -> Measured:
    row = measured(name, 1, 1)
    row.chosen, row.timings, row.state, row.why = None, [], state, "not here"
    return row


@pytest.mark.parametrize("state", ["no_weights", "not_exported", "not_measured"])
def test_what_was_lacking_is_tried_again_and_what_was_measured_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    asked: list[str] = []

    def measure(_ready: Any, candidate: Candidate) -> Measured:
        asked.append(candidate.name)
        return measured(candidate.name, 3, 5)

    monkeypatch.setattr(job, "_measure_one", measure)
    book = book_of(tmp_path, measured("b", 2, 500), lacking("a", state))
    ready = device(tmp_path, book, "box", "a", "b")
    job._measure(ready, book)
    assert asked == ["a"]
    assert [(row.candidate.name, row.state) for row in book.document.candidates] == [("a", "kept"), ("b", "kept")]


def device(folder: Path, book: Book, host: str, *names: str) -> Any:
    """A search that is ready on a device; the book was begun on "box"."""
    book.document.device = {"host": "box", "engines": {"onnx": "1"}, "on": None}
    target = SimpleNamespace(device={"host": host}, engines={"onnx": "1"}, on=None)
    reporter = LogReporter()
    return SimpleNamespace(
        target=target, candidates={name: Candidate(name=name, model="m") for name in names}, budget=Budget(ms=5),
        options=SearchOptions(), job=SimpleNamespace(reporter=reporter, run_dir=folder), name="search-1",
    )  # fmt: skip


def test_times_of_two_devices_do_not_stand_in_one_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that measured is gone; another one takes the search up, before anything is planned."""
    monkeypatch.setattr(job, "_measure_one", lambda _ready, one: measured(one.name, 3, 5))
    book = book_of(tmp_path, measured("a", 2, 500))
    job._measure(device(tmp_path, book, "elsewhere", "a", "b"), book)
    assert book.document.device["host"] == "elsewhere"
    assert [row.timings[0].ms for row in book.document.candidates] == [3, 3]


def test_what_could_not_be_trained_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = [True]

    def train(_training: Any, _search: str, candidate: Candidate, epochs: int) -> str:
        if full[0]:
            raise OctcError("OCT-E302", "memory is exhausted", hint="h")
        return f"{candidate.name}-e{epochs}"

    def fill(trial: Any, run: str) -> None:
        trial.run, trial.accuracy, trial.loss = run, 0.9, None

    monkeypatch.setattr(rounds, "train_trial", train)
    monkeypatch.setattr(rounds, "_fill", fill)
    book = Book(tmp_path, fresh([[4, 1]]))
    candidates = {row.candidate.name: row.candidate for row in book.document.candidates}
    with pytest.raises(OctcError) as caught:
        rounds.run_rounds(TRAINING, book, candidates, None)
    assert caught.value.code == "OCT-E301"
    full[0] = False
    rounds.run_rounds(TRAINING, book, candidates, None)
    assert {trial.state for trial in book.document.rounds[0].trials} == {"finalist"}


def test_a_candidate_for_an_engine_that_is_not_measured_is_refused_before_any_work(place: Path, tmp_path: Path) -> None:
    table = tmp_path / "candidates.json"
    table.write_text(json.dumps({"candidates": [{**SMALL, "target": "openvino"}]}))
    words = [
        "search",
        "--budget",
        "5ms",
        "--candidates",
        str(table),
        "--recipe",
        "smoke",
        "--teacher",
        "none",
        "--target",
        "onnx",
    ]
    words += ["--dataset", "folder", "--data", str(place / "patterns"), "--run-dir", str(tmp_path / "runs")]
    assert main(words) == 2
    assert not (tmp_path / "runs").exists()
    with pytest.raises(OctcError) as caught:
        check_targets([Candidate(name="a", model="m", target="openvino")], ("onnx",), SearchOptions())
    assert (caught.value.code, "octc[openvino]" in caught.value.hint) == ("OCT-E901", True)
    check_targets([Candidate(name="a", model="m", target="onnx")], ("onnx",), SearchOptions())


@pytest.mark.parametrize("told", [{"size": 192, "model": "vit_tiny_patch16_224"}, {"model_kwargs": {"act_layer": "nope"}}])
def test_a_network_that_does_not_run_is_listed_with_the_reason(place: Path, tmp_path: Path, told: dict[str, Any]) -> None:
    ready = prepared(place, tmp_path / "runs", teacher="none")
    one = Candidate(**{**SMALL, **told})
    row = job._measure_one(device_of(ready, one), one)
    assert (row.state, row.chosen) == ("not_exported", None)
    assert "OCT-E307" in row.why


def device_of(ready: job.Ready, one: Candidate) -> job.Ready:
    return replace(ready, candidates={one.name: one})


def test_a_verdict_of_another_file_is_none_of_the_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """verify.json of what lay there before, or of a look at the validation set alone: the test set is looked at now."""
    looked: list[Path] = []

    class Looked:
        def write(self) -> None:
            looked.append(tmp_path)

    monkeypatch.setattr(finish, "artifact_sha256", lambda _folder: "a" * 64)
    monkeypatch.setattr(finish, "verify_artifact", lambda *_, **__: Looked())
    training: Any = TRAINING
    monkeypatch.setattr(training.job, "data", None, raising=False)
    monkeypatch.setattr(training.job, "run_dir", tmp_path, raising=False)
    head = {"schema_version": "1.0", "artifact": "a", "select": None, "golden": None, "test": None}
    for text in ("{", json.dumps({**head, "artifact_sha256": "b" * 64}), json.dumps({**head, "artifact_sha256": "a" * 64})):
        (tmp_path / "verify.json").write_text(text)
        assert finish._tested(training, tmp_path, SearchOptions()) is None
    assert len(looked) == 3
