"""What the tests of the bench share: a run with its teacher, short profiles, a pretended quiet machine, a schema check."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octc.bench.timing import conditions, measure, profiles
from octc.bench.timing.plan import make_plan
from octc.bench.timing.profiles import QUICK, STANDARD, Options, Profile
from octc.bench.timing.rows import judge_row
from octc.bench.timing.runner import run_bench
from octc.bench.timing.state import State
from octc.machine.host import Machine, read_machine
from octc.schemas.bench import BenchResult, InvalidRow, MissingRow, ValidRow
from octc.schemas.common import Document, convert, json_schema
from octc.store.find import find_artifacts, read_teacher
from octc.store.runs import Run, create_run
from tests.schema_checks import validate
from tests.tiny_artifacts import resign

TEACHER = "r-0002-teacher-folder"
NOISE = {"warmup_unstable", "drift", "steal", "foreign_load"}  # what a busy machine does to a row
SHORT: Mapping[str, Any] = {
    "duration_s": 0.15, "min_queries": 64, "reference_queries": 20, "reference_least": 10, "pairs": 3, "block_s": 0.01,
    "block_calls": 5, "slow_calls": 2, "loads": 1, "tune_s": 0.01, "max_duration_s": 20.0, "warm_most": 60, "look_s": 0.05,
    "idle_s": 0.0,
}  # fmt: skip
TINY = replace(STANDARD, **SHORT)
TINY_QUICK = replace(QUICK, **SHORT)


def with_teacher(run: Run, place: Path) -> Run:
    """A copy of the run under `place`/runs with a teacher: its own float artifacts under another role and run."""
    shutil.copytree(run.path.parent, place / "runs")
    copy = Run(place / "runs" / run.id)
    for folder in copy.artifacts.iterdir():
        resign(folder, lambda value: value["lineage"].update(teacher_run=TEACHER))
    teacher = create_run(place / "runs", "teacher", "folder", data_root=str(run.path.parent.parent / "patterns"))
    assert teacher.id == TEACHER
    for name in ("torch-fp32", "onnx-fp32"):
        shutil.copytree(run.artifacts / name, teacher.artifacts / name)
        resign(teacher.artifacts / name, lambda value: (value.update(role="teacher"), value["lineage"].update(run=TEACHER)))
    teacher.update(status="done")
    return copy


def pretend_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing else ran on this machine: what noise alone says against a row is not asked. All else is real."""

    def judged(row: Any, role: Any, options: Any, answer: dict[str, Any], looks: Any, **more: Any) -> Any:
        settled = {**answer, "warmup": {**answer["warmup"], "settled": True}}
        return judge_row(row, role, options, settled, looks, **more)

    monkeypatch.setattr(measure, "judge_row", judged)
    monkeypatch.setattr(conditions, "DRIFT", 1e9)
    monkeypatch.setattr(conditions, "STEAL", 101.0)
    monkeypatch.setattr(conditions, "FOREIGN", 101.0)
    monkeypatch.setattr("octc.bench.timing.interleaved.UNSTEADY", 1e9)


def short_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two profiles of the command, shortened."""
    monkeypatch.setattr(profiles, "STANDARD", TINY)
    monkeypatch.setattr(profiles, "QUICK", TINY_QUICK)


def pictures_of(run: Run) -> tuple[str, ...]:
    """64 of the run's own pictures."""
    root = Path(str(run.read()["data_root"]))
    return tuple(str(path) for path in sorted(root.rglob("*.png"))[:64])


def tiny_options(run: Run, profile: Profile = TINY, **more: Any) -> Options:
    given = {"threads": 1, "threads_source": "option", "images": pictures_of(run), "images_from": "patterns", **more}
    return Options(profile, **given)


def new_state(
    run: Run, names: tuple[str, ...], scratch: Path, *, options: Options | None = None, machine: Machine | None = None,
    teacher: bool = False, root: Path = Path("/"), tell: Callable[[str], None] = lambda _: None,
) -> State:  # fmt: skip
    """A bench of some artifacts of a run, before it runs."""
    scratch.mkdir(parents=True, exist_ok=True)
    founds = [find_artifacts(str(run.artifacts / name), run.path.parent, {})[0][0] for name in names]
    teachers = read_teacher(founds[0], run.path.parent) if teacher else []
    options = options or tiny_options(run, vs="teacher" if teacher else "none")
    plan = make_plan(founds, teachers, options, [True] * len(founds), None)
    known = machine or read_machine()
    return State(plan, options, known, "b-1", "2026-11-25T09:00:00Z", scratch, scratch / "logs", tell, lambda _: None, root)


def benched(*given: Any, **more: Any) -> State:
    state = new_state(*given, **more)
    run_bench(state)
    return state


def check_schema(value: Any) -> None:
    """A result follows its JSON Schema, and is read as what the schema was made of (ValueError, jsonschema.ValidationError)."""
    validate(value, json_schema("octc:bench-result", "octc bench result", BenchResult))
    convert(value, BenchResult)


def check_row(value: Any) -> None:
    """The same of one row."""
    validate(value, json_schema("octc:bench-row", "a row", ValidRow, InvalidRow, MissingRow))
    convert({"row": value}, AnyRow)


class AnyRow(Document):
    row: ValidRow | InvalidRow | MissingRow
