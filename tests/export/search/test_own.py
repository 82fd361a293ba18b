"""What one candidate fails at leaves that one out: its memory, its network, its file. What all would meet ends the search."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from octc.core.errors import OctcError
from octc.core.faults import out_of_memory
from octc.core.progress import LogReporter
from octc.datasets.layouts.folders import scan_folder
from octc.datasets.split import Split, make_split
from octc.export.search import effort, finish, job, own, rounds
from octc.export.search.candidates import base_recipe, recipe_of
from octc.export.search.effort import Steps, effort_of, scaled_effort
from octc.export.search.pages import table_rows
from octc.export.search.select import Budget
from octc.export.search.state import Book, read_document
from octc.schemas.common import builtins
from octc.schemas.search import Candidate, SearchOptions
from octc.train.loop.processes import make_accelerator
from octc.train.recipes.config import Recipe, Stage
from tests.export.search.test_rounds import CANDIDATES, TRAINING, fresh, states
from tests.export.search.test_times import book_of, measured
from tests.tiny_run import write_patterns

ALL_MEMORY = 1 << 50  # images: more than any machine has room for


def refused() -> None:
    """What torch's allocator raises here."""
    torch.empty(ALL_MEMORY, dtype=torch.uint8)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    root = tmp_path_factory.mktemp("own") / "patterns"
    write_patterns(root, patients=6, images=1)
    return make_split(scan_folder(root, None), "folder", 0)


@pytest.fixture(scope="module")
def recipes() -> dict[str, Recipe]:
    """Three candidates: a tiny one, one whose steps no memory has room for, one whose norms cannot be trained."""

    def of(name: str, batch: int) -> Recipe:
        found = recipe_of(Candidate(name=name, model="test_resnet", size=32, weights="none"), base_recipe("smoke"), 1, 1)
        return replace(found, student=replace(found.student, batch=batch))

    return {"huge": of("huge", ALL_MEMORY), "good": of("good", 4), "alone": of("alone", 1)}


def steps(*, auto: bool) -> Steps:
    return Steps(make_accelerator("cpu"), auto)


def test_steps_that_cannot_be_done_leave_the_candidate_out_and_the_others_are_timed(
    recipes: dict[str, Recipe], split: Split
) -> None:
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    told: list[int] = []
    found = effort_of(recipes, split, None, 1, steps(auto=False), told.append)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert list(found.per_epoch) == ["good"]
    assert found.per_epoch["good"] > 0
    assert found.tail > effort.TAIL
    assert found.out["huge"].memory
    assert not found.out["alone"].memory
    assert found.out["huge"].why.startswith("OCT-E302")
    assert str(ALL_MEMORY) in found.out["huge"].why
    assert "more than 1 value" in found.out["alone"].why
    assert told == [1, 1, 1]
    macs = {"alone": 1, "huge": 2, "good": 3}
    scaled = scaled_effort(recipes, macs, split, teacher=False, views=1, steps=steps(auto=False))
    assert (list(scaled.per_epoch), list(scaled.out)) == (["good"], ["alone", "huge"])
    nothing = scaled_effort({"huge": recipes["huge"]}, {"huge": 1}, split, teacher=False, views=1, steps=steps(auto=False))
    assert (nothing.per_epoch, list(nothing.out)) == ({}, ["huge"])


def test_a_batch_that_memory_has_no_room_for_is_halved_where_a_training_halves_it(
    recipes: dict[str, Recipe], split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step and epoch are then those of the batch that fits: twice as many steps of half the images."""
    tried: list[int] = []

    def seconds(stage: Stage, _classes: int, _device: Any) -> tuple[float, float]:
        tried.append(stage.batch)
        if stage.batch > 4:
            refused()
        return 1.0, 0.0

    monkeypatch.setattr(effort, "step_seconds", seconds)
    sixteen = {"a": replace(recipes["good"], student=replace(recipes["good"].student, batch=16))}
    found = effort_of(sixteen, split, None, 1, steps(auto=True))
    assert tried == [16, 8, 4]
    assert found.per_epoch["a"] == len(split.parts["train"]) // 4 + 1
    tried.clear()
    found = effort_of(sixteen, split, None, 1, steps(auto=False))
    assert (tried, list(found.out)) == ([16, 16], ["a"]), "tried again when the others were"


def test_memory_that_is_back_when_the_others_were_timed_is_taken(
    recipes: dict[str, Recipe], split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def seconds(stage: Stage, _classes: int, _device: Any) -> tuple[float, float]:
        tried.append(stage.batch)
        if len(tried) == 1:
            raise MemoryError
        return 1.0, 0.0

    monkeypatch.setattr(effort, "step_seconds", seconds)
    two = {"first": recipes["alone"], "second": recipes["good"]}
    found = effort_of(two, split, None, 1, steps(auto=False))
    assert (tried, found.out, set(found.per_epoch)) == ([1, 4, 1], {}, {"first", "second"})


def test_a_gpu_that_is_lost_is_no_fault_of_a_candidate(
    recipes: dict[str, Recipe], split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> Any:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(effort, "step_seconds", lost)
    with pytest.raises(OctcError) as caught:
        effort_of(recipes, split, None, 1, steps(auto=True))
    assert caught.value.code == "OCT-E304"


def ready(folder: Path, split: Split, recipes: dict[str, Recipe]) -> Any:
    """A search of three candidates that are measured."""
    place = SimpleNamespace(accelerator=make_accelerator("cpu"))
    training = SimpleNamespace(place=place, asked=SimpleNamespace(auto_batch=False), split=split)
    return SimpleNamespace(
        training=training, job=SimpleNamespace(reporter=LogReporter(), run_dir=folder), name="search-1", teacher=None, epochs=3,
        options=SearchOptions(), recipe=lambda one: recipes[one.name], budget=Budget(ms=5),
    )  # fmt: skip


def test_a_plan_is_of_those_that_can_be_trained(tmp_path: Path, split: Split, recipes: dict[str, Recipe]) -> None:
    book = book_of(tmp_path, *(measured(name, ms, 500) for ms, name in enumerate(recipes, 1)))
    job._plan_it(ready(tmp_path, split, recipes), book)
    known = read_document(book.path)
    assert known.plan is not None
    assert known.plan.rounds[0][0] == 1
    assert {row.candidate.name: row.state for row in known.candidates} == {
        "huge": "not_trained", "good": "kept", "alone": "not_trained",
    }  # fmt: skip
    assert [note.split()[0] for note in known.notes] == ["huge", "alone"]
    assert [row[8] for row in table_rows(builtins(known))] == ["not trained", "kept", "not trained"]


def test_where_nothing_can_be_trained_nothing_is_planned_and_all_are_tried_again(
    tmp_path: Path, split: Split, recipes: dict[str, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    book = book_of(tmp_path, measured("huge", 1, 500))
    one = ready(tmp_path, split, recipes)
    with pytest.raises(OctcError) as caught:
        job._plan_it(one, book)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E302", 4)
    assert (book.document.plan, book.document.candidates[0].state) == (None, "kept")
    book.document.candidates.append(measured("alone", 2, 500))
    with pytest.raises(OctcError) as caught:
        job._plan_it(one, book)
    assert caught.value.code == "OCT-E301"
    monkeypatch.setattr(effort, "step_seconds", lambda *_: (1.0, 0.1))
    job._plan_it(one, book)
    assert [row.state for row in book.document.candidates] == ["kept", "kept"]


def raising(error: Exception | Callable[[], None]) -> Callable[[], None]:
    def fail() -> None:
        if isinstance(error, Exception):
            raise error
        error()

    return fail


@pytest.mark.parametrize(
    ("fail", "code"),
    [
        (raising(refused), "OCT-E302"),
        (raising(MemoryError()), "OCT-E302"),
        (raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")), "OCT-E302"),
        (raising(OctcError("OCT-E303", "a worker was killed", hint="h")), "OCT-E303"),
        (raising(OctcError("OCT-E301", "not finite", hint="h")), "OCT-E301"),
        (raising(OctcError("OCT-E904", "no space left on the disk", hint="h")), None),
        (raising(OSError(errno.ENOSPC, "No space left on device")), None),
        (raising(OctcError("OCT-E108", "in use", hint="h")), None),
        (raising(ValueError("a mistake")), None),
    ],
)
def test_a_trial_that_fails_by_itself_is_out_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[[], None], code: str | None
) -> None:
    def train(_training: Any, _search: str, candidate: Candidate, epochs: int) -> str:
        if candidate.name == "b":
            fail()
        return f"{candidate.name}-e{epochs}"

    def fill(trial: Any, run: str) -> None:
        trial.run, trial.accuracy, trial.loss = run, 0.9, 0.1

    monkeypatch.setattr(rounds, "train_trial", train)
    monkeypatch.setattr(rounds, "_fill", fill)
    book = Book(tmp_path, fresh([[4, 1]]))
    if code is None:
        with pytest.raises((OctcError, OSError, ValueError)):
            rounds.run_rounds(TRAINING, book, CANDIDATES, None)
        assert states(book)[0]["b"] == "running", "given again it is gone on with"
        return
    rounds.run_rounds(TRAINING, book, CANDIDATES, None)
    assert states(book) == [{"a": "finalist", "b": "failed", "c": "finalist", "d": "finalist"}]
    assert book.document.rounds[0].trials[1].why.startswith(code)


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (OctcError("OCT-E405", "the gate", hint="h"), True),
        (OctcError("OCT-E407", "the exporter", hint="h"), True),
        (OctcError("OCT-E301", "not finite", hint="h"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (OctcError("OCT-E230", "no images", hint="h"), False),
    ],
)
def test_a_finalist_without_a_file_makes_way_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, goes_on: bool
) -> None:
    monkeypatch.setattr(finish, "choose_winner", lambda *_: SimpleNamespace(order=("b", "a")))
    monkeypatch.setattr(finish, "find_run", lambda _folder, name: name)
    monkeypatch.setattr(finish, "_teacher", lambda _training: [])
    monkeypatch.setattr(finish, "_tuned", lambda _training, _candidate, run: run)
    won: list[str] = []
    monkeypatch.setattr(finish, "_write_winner", lambda _t, _b, candidate, *_: won.append(candidate.name))
    failing = {"b"}

    def export(_training: Any, _book: Book, candidate: Candidate, *_: Any) -> Path:
        if candidate.name in failing:
            raise error
        return tmp_path

    monkeypatch.setattr(finish, "_export", export)
    training = SimpleNamespace(job=SimpleNamespace(reporter=LogReporter(), run_dir=tmp_path))
    book = Book(tmp_path, fresh([[4, 1]]))
    book.document.finalists = [SimpleNamespace(name=name, run=name) for name in "ab"]  # type: ignore[misc]
    given: Any = (training, book, None, SearchOptions(), Budget(ms=5))
    if not goes_on:
        with pytest.raises(type(error)):
            finish.finish(*given)
        return
    finish.finish(*given)
    assert won == ["a"]
    assert [line.split(":")[0] for line in book.document.refused] == ["b"]
    failing.add("a")
    with pytest.raises(OctcError) as caught:
        finish.finish(*given)
    assert caught.value.code == ("OCT-E904" if out_of_memory(error) else getattr(error, "code", None))


def test_what_exporters_raise_of_a_network_is_its_own() -> None:
    assert own.own_failure(TypeError("unsupported")) is None
    assert own.network_failure(TypeError("unsupported")) == "TypeError: unsupported"
    assert own.network_failure(OctcError("OCT-E901", "not installed", hint="h")) == "OCT-E901: not installed"
    assert own.network_failure(OSError(errno.ENOSPC, "No space left on device")) is None
    assert own.network_failure(MemoryError()) == "OCT-E302: memory is exhausted"
    assert own.network_failure(OctcError("OCT-E304", "lost", hint="h")) is None
