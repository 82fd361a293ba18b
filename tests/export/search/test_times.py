"""Times of candidates are kept by device, engine and file; what is over every budget is refused with the fastest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from octc.core.errors import OctcError
from octc.core.faults import fault_of
from octc.core.progress import LogReporter
from octc.export.search import job, measure
from octc.export.search.candidates import base_recipe
from octc.export.search.measure import Target, Where, find_target, kept_timing, timing_of
from octc.export.search.pages import answer_lines, table_rows
from octc.export.search.select import Budget
from octc.export.search.state import Book
from octc.imaging.preprocess import Preprocess
from octc.schemas.common import builtins, convert
from octc.schemas.requests import BenchOptions
from octc.schemas.search import Candidate, Measured, SearchFile, SearchOptions, Timing
from octc.store.artifacts import GOLDEN, Artifact, FileEntry
from octc.store.find import Found

ROW = {"status": "VALID", "reasons": [], "latency_ms": {"p50": {"value": 2.0, "ci95": [1.9, 2.1]}}}


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """An artifact that nobody opens: what is asked of it is its manifest."""
    files = {"model.onnx": FileEntry("a" * 64, 900_000), GOLDEN: FileEntry("b" * 64, 10)}
    known = Artifact(
        name="onnx-int8", role="student", model="m", target="onnx", precision="int8", classes=("x", "y"),
        preprocess=Preprocess(32), lineage={}, details={}, files=files, main_file="model.onnx",
    )  # fmt: skip
    return Found(tmp_path, known)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target({"cpu": "a"}, {"onnx": "1.0", "openvino": None}, BenchOptions(), tmp_path, tmp_path)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the next benches give; it ends with as many left as were not asked for."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(measure, "_row", lambda *_: given.pop(0))
    return given


def test_a_time_is_kept_by_device_engine_and_file(found: Found, target: Target, rows: list[dict[str, Any]]) -> None:
    rows += [ROW] * 4
    first = timing_of(found, target)
    assert (first.ms, first.status, first.cached, first.version) == (2.0, "VALID", False, "1.0")
    again = timing_of(found, target)
    assert (again.ms, again.cached, len(rows)) == (2.0, True, 3)
    others = (
        replace(target, device={"cpu": "b"}),
        replace(target, engines={"onnx": "1.1"}),
    )
    assert not any(timing_of(found, other).cached for other in others)
    files = {**found.artifact.files}
    files[found.artifact.main_file] = replace(files[found.artifact.main_file], sha256="0" * 64)
    assert kept_timing(Found(found.folder, replace(found.artifact, files=files)), target) is None, "another graph"
    golden = {**found.artifact.files, GOLDEN: FileEntry("1" * 64, 10)}
    assert kept_timing(Found(found.folder, replace(found.artifact, files=golden)), target) is not None, "it runs the same"
    (kept,) = [path for path in (target.cache / "times").iterdir() if "1.0" in path.read_text() and '"a"' in path.read_text()]
    kept.write_text("{")
    assert not timing_of(found, target).cached, "what is damaged is measured anew"
    assert not rows


def test_a_disturbed_time_is_tried_again_and_not_kept(found: Found, target: Target, rows: list[dict[str, Any]]) -> None:
    slow = {**ROW, "status": "INVALID", "reasons": ["foreign_load"], "latency_ms": {"p50": {"value": 3.0, "ci95": [2, 4]}}}
    rows += [slow, ROW]
    assert timing_of(found, replace(target, device={"cpu": "c"})).status == "VALID"
    quicker = {**slow, "latency_ms": {"p50": {"value": 2.5, "ci95": [2, 4]}}}
    rows += [slow, quicker, ROW]
    disturbed = timing_of(found, target)
    assert (disturbed.ms, disturbed.status, disturbed.why) == (2.5, "INVALID", ["foreign_load"])
    assert timing_of(found, target).ms == 2.0, "measured again"


def test_wrong_answers_have_no_time(found: Found, target: Target, rows: list[dict[str, Any]]) -> None:
    rows.append({**ROW, "status": "INVALID", "reasons": ["output_mismatch"]})
    one = timing_of(found, target)
    assert (one.ms, one.status, one.why) == (None, "NA", ["output_mismatch"])
    assert timing_of(found, replace(target, engines={"onnx": None})).status == "NA"


def test_energy_that_nothing_reads_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "open_sources", list)
    monkeypatch.setattr(measure, "tegrastats_command", lambda: None)
    with pytest.raises(OctcError) as caught:
        find_target(Where(None, None, False, True, "python3"), ("onnx",), tmp_path, LogReporter())
    assert caught.value.code == "OCT-E903"
    assert "a budget in ms or MB" in caught.value.hint
    with pytest.raises(OctcError) as caught:
        find_target(Where("-oProxyCommand=x", None, False, False, "python3"), ("onnx",), tmp_path, LogReporter())
    assert caught.value.code == "OCT-E104"


def measured(name: str, ms: float, macs: int, size: int = 1_000_000) -> Measured:
    one = Timing(
        target="onnx", status="VALID", why=[], ms=ms, ms_ci95=[0.9 * ms, 1.1 * ms], mj=None, bytes=size, engine="e",
        version="1", sha256="0" * 64, cached=False,
    )  # fmt: skip
    return Measured(
        candidate=Candidate(name=name, model="m"), state="kept", why="", macs=macs, parameters=1, timings=[one], chosen="onnx"
    )


def book_of(folder: Path, *rows: Measured) -> Book:
    empty = {
        "search": "search-1", "status": "running", "created": "now", "seconds": 0.0, "request": {}, "budget": {}, "device": {},
        "criterion": "", "margin_pp": 1.0, "teacher": None, "candidates": [],
    }  # fmt: skip
    document = convert(empty, SearchFile)
    document.candidates = list(rows)
    return Book(folder, document)


def ready(folder: Path, budget: Budget, **options: Any) -> Any:
    return SimpleNamespace(
        budget=budget, options=SearchOptions(**options), job=SimpleNamespace(run_dir=folder), name="search-1"
    )


def test_what_is_dropped_says_why(tmp_path: Path) -> None:
    rows = (measured("slow", 9, 900), measured("quick", 2, 500), measured("beaten", 4, 100), measured("tiny", 1, 50))
    book = book_of(tmp_path, *rows)
    job._drop(ready(tmp_path, Budget(ms=5)), book)
    states = {one.candidate.name: one.state for one in book.document.candidates}
    assert states == {"slow": "over_budget", "quick": "kept", "beaten": "dominated", "tiny": "kept"}
    assert "5 ms allowed" in rows[0].why
    assert "quick has more arithmetic" in rows[2].why
    assert book.path.is_file()
    book = book_of(tmp_path, measured("quick", 2, 500), measured("beaten", 4, 100))
    job._drop(ready(tmp_path, Budget(ms=5), keep_dominated=True), book)
    assert all(one.state == "kept" for one in book.document.candidates)


@pytest.mark.parametrize(
    ("code", "changed", "state"),
    [("OCT-E310", True, "no_weights"), ("OCT-E307", False, "no_weights"), ("OCT-E901", True, "not_exported"),
     ("OCT-E413", True, "not_exported")],
)  # fmt: skip
def test_a_candidate_that_cannot_begin_is_listed_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, changed: bool, state: str
) -> None:
    def refuse(*_: Any) -> Candidate:
        raise OctcError(code, "it is not there", hint="pip install it")

    monkeypatch.setattr(job, "with_structure", refuse)
    fresh = ready(tmp_path, Budget(ms=1))
    fresh.candidates = {"a": Candidate(name="a", model="m", prune=0.5 if changed else 0.0)}
    fresh.recipe = lambda one: base_recipe("smoke")
    fresh.classes, fresh.target = ("x", "y"), SimpleNamespace(engines={"onnx": "1.0"})
    row = job._measure_one(fresh, fresh.candidates["a"])
    assert (row.state, row.chosen, row.timings) == (state, None, [])
    assert "it is not there" in row.why
    assert ("pip install it" in row.why) == (code in ("OCT-E310", "OCT-E901"))


@pytest.mark.parametrize("step", ["with_structure", "export_random"])
def test_a_candidate_is_not_given_up_where_the_machine_is_at_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A search that goes on later would leave it out for good: a full disk, said by a library in words of its own."""

    def refuse(*_: Any) -> Candidate:
        try:
            raise RuntimeError("Check failed: No space left on device")
        except RuntimeError as error:
            raise OctcError("OCT-E407", "the graph cannot be written", hint="report this") from error

    monkeypatch.setattr(job, "with_structure", lambda candidate, *_: candidate)
    monkeypatch.setattr(job, step, refuse)
    fresh = ready(tmp_path, Budget(ms=1))
    fresh.candidates = {"a": Candidate(name="a", model="m")}
    fresh.recipe = lambda one: base_recipe("smoke")
    fresh.classes, fresh.target = ("x", "y"), SimpleNamespace(engines={"onnx": "1.0"}, cache=tmp_path)
    with pytest.raises(OctcError) as caught:
        job._measure_one(fresh, fresh.candidates["a"])
    fault = fault_of(caught.value)
    assert fault is not None
    assert (fault.code, fault.exit_code) == ("OCT-E904", 4)


def test_nothing_within_the_budget_ends_with_the_fastest(tmp_path: Path) -> None:
    book = book_of(tmp_path, measured("slow", 9, 900), measured("quick", 2, 500, 3_000_000))
    with pytest.raises(OctcError, match="the fastest, quick, takes 2 ms and 3 MB; the smallest, slow, has 1 MB") as caught:
        job._drop(ready(tmp_path, Budget(ms=1)), book)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E612", 1)
    assert book.path.is_file(), "the table stays"


def test_nothing_that_could_be_measured_is_told_too(tmp_path: Path) -> None:
    row = measured("a", 1, 1)
    row.chosen, row.timings, row.state, row.why = None, [], "not_exported", "OCT-E404: no convolution"
    with pytest.raises(OctcError, match="no candidate could be exported") as caught:
        job._drop(ready(tmp_path, Budget(ms=1)), book_of(tmp_path, row))
    assert "no convolution" in str(caught.value.why)
    row.state = "no_weights"
    fresh = ready(tmp_path, Budget(ms=1))
    fresh.candidates = {"a": None}
    with pytest.raises(OctcError) as caught:
        job._drop(fresh, book_of(tmp_path, row))
    assert caught.value.code == "OCT-E310"


def test_candidates_without_start_weights_are_one_line_and_no_rows(tmp_path: Path) -> None:
    rows = [measured("there", 2, 500), measured("far-1", 2, 500), measured("far-2", 2, 500)]
    for row in rows[1:]:
        row.chosen, row.timings, row.state, row.why = None, [], "no_weights", f"{row.candidate.name} is not on disk"
    document = builtins(book_of(tmp_path, *rows).document)
    assert [row[0] for row in table_rows(document)] == ["there"]
    (line,) = [line for line in answer_lines(document) if "far-1" in line]
    assert "far-2" in line


def test_a_margin_that_validation_images_cannot_show_is_noted(tmp_path: Path) -> None:
    def noted(images: int, margin: float) -> str:
        one = ready(tmp_path, Budget(ms=1), margin=margin)
        one.training = SimpleNamespace(
            split=SimpleNamespace(parts={"val": [SimpleNamespace(patient=f"p{k}") for k in range(images)]})
        )
        return job.margin_note(one)

    assert "1.9 points" in noted(200, 1.0)
    assert noted(200, 2.0) == ""
    assert noted(400, 1.0) == ""
