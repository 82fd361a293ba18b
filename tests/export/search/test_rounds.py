"""Rounds that workers share, with trainings that are made up: what --hours cuts, what is waited for, who ends the search."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from octc.core.errors import OctcError
from octc.core.progress import LogReporter
from octc.export.search import job, rounds
from octc.export.search.rounds import run_rounds
from octc.export.search.select import Rung, plan_rounds, seconds_of
from octc.export.search.state import Book, open_book
from octc.schemas.common import builtins, convert
from octc.schemas.search import Candidate, Measured, SearchFile, SearchPlan, Timing, Trial
from octc.store.claims import claiming, take_claim

NAMES = ("a", "b", "c", "d")


def timing(ms: float) -> Timing:
    return Timing(target="onnx", status="VALID", why=[], ms=ms, ms_ci95=[ms, ms], mj=None, bytes=1, engine="e", version="1",
                  sha256="0" * 64, cached=False)  # fmt: skip


def fresh(plan: list[list[int]]) -> SearchFile:
    candidates = {name: Candidate(name=name, model=name) for name in NAMES}
    rows = [
        Measured(candidate=one, state="kept", why="", macs=1, parameters=1, timings=[timing(ms)], chosen="onnx")
        for ms, one in enumerate(candidates.values(), 1)
    ]
    planned = SearchPlan(rounds=plan, seconds=1.0, full_seconds=1.0, cut=[], note="")
    return SearchFile(search="search-00000000", status="running", created="now", seconds=0.0, request={}, budget={"ms": 5.0},
                      device={"host": "here", "on": None}, criterion="c", margin_pp=1.0, teacher=None, candidates=rows,
                      plan=planned)  # fmt: skip


TRAINING: Any = SimpleNamespace(job=SimpleNamespace(reporter=LogReporter()))
CANDIDATES = {name: Candidate(name=name, model=name) for name in NAMES}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trials as they are begun, whose trainings take no time; "a" is the most accurate."""
    begun: list[str] = []

    def train(_training: Any, _search: str, candidate: Candidate, epochs: int) -> str:
        begun.append(f"{candidate.name}-e{epochs}")
        return begun[-1]

    def fill(trial: Trial, run: str) -> None:
        trial.run, trial.accuracy, trial.loss = run, 0.9 - 0.1 * NAMES.index(trial.name), 0.1

    monkeypatch.setattr(rounds, "train_trial", train)
    monkeypatch.setattr(rounds, "_fill", fill)
    return begun


def states(book: Book) -> list[dict[str, str]]:
    return [{trial.name: trial.state for trial in one.trials} for one in book.document.rounds]


def test_hours_that_end_in_the_first_round_leave_those_that_were_trained(tmp_path: Path, trained: list[str]) -> None:
    book = Book(tmp_path, fresh([[4, 1], [3, 3]]))
    run_rounds(TRAINING, book, CANDIDATES, -1.0)
    assert trained == ["a-e1"], "one at least"
    assert states(book) == [{"a": "finalist"}]
    assert "b, c, d not trained in it" in book.document.notes[0]
    again = open_book(tmp_path, fresh([]))
    run_rounds(TRAINING, again, CANDIDATES, -1.0)
    assert states(again) == [{"a": "finalist"}]
    assert (trained, again.document.notes) == (["a-e1"], book.document.notes), "what was cut stays so"


def test_hours_that_end_in_a_later_round_leave_the_round_before(tmp_path: Path, trained: list[str]) -> None:
    book = Book(tmp_path, fresh([[4, 1], [3, 3]]))
    run_rounds(TRAINING, book, CANDIDATES, None)
    assert trained == ["a-e1", "b-e1", "c-e1", "d-e1", "a-e3", "b-e3", "c-e3"]
    assert states(book)[0] == dict(zip(NAMES, ("promoted", "promoted", "promoted", "out"), strict=True))
    assert set(states(book)[1].values()) == {"finalist"}
    late = Book(tmp_path / "late", fresh([[4, 1], [3, 3]]))
    late.folder.mkdir()
    whole = builtins(book.document)
    whole["rounds"][1]["trials"] = [
        {**one, "state": "running", "accuracy": one["accuracy"] if one["name"] == "a" else None}
        for one in whole["rounds"][1]["trials"]
    ]
    late.document = convert(whole, SearchFile)
    late.save()
    run_rounds(TRAINING, late, CANDIDATES, -1.0)
    assert states(late) == [dict(zip(NAMES, ("finalist", "finalist", "finalist", "out"), strict=True))]


def test_a_run_that_is_gone_is_named_with_the_way_on(tmp_path: Path, trained: list[str]) -> None:
    book = Book(tmp_path / "search", fresh([[4, 1]]))
    book.folder.mkdir()
    run_rounds(TRAINING, book, CANDIDATES, None)
    with pytest.raises(OctcError) as caught:
        rounds.read_answers(book, tmp_path / "runs")
    assert (caught.value.code, "run of a, " in caught.value.message) == ("OCT-E107", True)
    assert str(book.path) in caught.value.hint


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_trial_of_another_worker_is_waited_for_when_the_time_is_up(tmp_path: Path, trained: list[str]) -> None:
    book = Book(tmp_path, fresh([[4, 1]]))
    theirs = take_claim(book.trial_claim("b", 1))
    done = in_thread(lambda: run_rounds(TRAINING, book, CANDIDATES, -1.0))
    while not trained:
        time.sleep(0.01)
    time.sleep(0.1)
    assert done.is_alive()
    other = open_book(tmp_path, fresh([]))
    with other.changing():
        trial = other.document.rounds[0].trials[1]
        trial.run, trial.accuracy, trial.loss = "b-e1", 0.95, 0.1
    theirs.give_back()  # type: ignore[union-attr]
    done.join(60)
    assert trained == ["a-e1"]
    assert states(open_book(tmp_path, fresh([]))) == [{"a": "finalist", "b": "finalist"}]


def test_a_trial_that_another_worker_failed_in_is_out_and_others_go_on(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rounds.train_trial

    def train(training: Any, search: str, candidate: Candidate, epochs: int) -> Any:
        if candidate.name == "b":
            raise OctcError("OCT-E301", "not finite", hint="h")
        return whole(training, search, candidate, epochs)

    monkeypatch.setattr(rounds, "train_trial", train)
    book = Book(tmp_path, fresh([[4, 1]]))
    run_rounds(TRAINING, book, CANDIDATES, None)
    assert states(book) == [{"a": "finalist", "b": "failed", "c": "finalist", "d": "finalist"}]
    assert book.document.rounds[0].trials[1].why == "OCT-E301: not finite"


def test_a_worker_elsewhere_leaves_the_end_to_the_device_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Any] = []
    monkeypatch.setattr(job, "finish", lambda _training, _book, target, *_: ends.append(target))
    monkeypatch.setattr(job, "write_pages", lambda *_: None)
    book = Book(tmp_path, fresh([[4, 1]]))
    book.document.device = {"host": "box", "engines": {"onnx": "1"}, "on": None}
    book.save()

    def ready(host: str) -> Any:
        target = SimpleNamespace(device={"host": host}, engines={"onnx": "1"}, on=None)
        return SimpleNamespace(
            target=target, job=SimpleNamespace(reporter=LogReporter()), training=None, options=None, budget=None
        )

    with job._present(ready("box"), book) as measured_here:
        assert measured_here
        other = open_book(tmp_path, fresh([]))
        with job._present(ready("elsewhere"), other) as there:
            assert not there
            waiting = in_thread(lambda: job._end(ready("elsewhere"), other, measured_here=False))
            time.sleep(0.2)
            assert waiting.is_alive()
            job._end(ready("box"), book, measured_here=True)
    waiting.join(60)
    assert [target.device["host"] for target in ends] == ["box"], "once"
    alone = Book(tmp_path / "alone", fresh([[4, 1]]))
    job._end(ready("elsewhere"), alone, measured_here=False)
    assert ends[1:] == [None], "where nobody is at the device, its time stays unknown"


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_a_plan_for_several_workers_is_kept_in_any_order(workers: int) -> None:
    per_epoch = {"a": 5.0, "b": 1.0, "c": 2.0, "d": 1.0, "e": 7.0, "f": 0.5, "g": 3.0}
    rungs = (Rung(7, 2), Rung(3, 6))
    most = seconds_of(rungs, per_epoch, 1.0, workers)
    for order in (
        list(per_epoch),
        sorted(per_epoch, key=lambda n: per_epoch[n]),
        sorted(per_epoch, key=lambda n: -per_epoch[n]),
    ):
        assert lasts(rungs, order, per_epoch, workers) <= most + 1e-9
    assert most >= seconds_of(rungs, per_epoch, 1.0) / workers
    alone = plan_rounds(per_epoch, 9, 60.0, 1.0)
    several = plan_rounds(per_epoch, 9, 60.0, 1.0, workers)
    assert (len(several.cut), -several.epochs) <= (len(alone.cut), -alone.epochs)
    assert several.seconds <= 0.9 * 60.0


def lasts(rungs: tuple[Rung, ...], order: list[str], per_epoch: dict[str, float], workers: int) -> float:
    """Seconds of rounds in which each worker takes the next trial when it is free; the dearest go on."""
    total = 0.0
    for rung in rungs:
        names = [name for name in order if name in sorted(per_epoch, key=lambda n: -per_epoch[n])[: rung.count]]
        free = [0.0] * workers
        for name in names:
            free[free.index(min(free))] += 1.0 + rung.epochs * per_epoch[name]
        total += max(free)
    return total


def test_processes_of_one_training_are_no_workers() -> None:
    job.check_processes(1)
    with pytest.raises(OctcError) as caught:
        job.check_processes(2)
    assert caught.value.code == "OCT-E104"


def test_a_claim_of_a_trial_is_no_claim_of_the_document(tmp_path: Path) -> None:
    book = Book(tmp_path, fresh([[4, 1]]))
    with claiming(book.trial_claim("a", 1)), book.changing():
        assert open_book(tmp_path, fresh([])).document.rounds == []
