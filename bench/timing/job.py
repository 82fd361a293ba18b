"""A bench as one job: find the artifacts, plan, measure, judge. Its result is a `BenchResult`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from octc.bench.timing.findings import Finding, find_all
from octc.bench.timing.gates import INTERRUPTED, Judgement, judge
from octc.bench.timing.images import choose_pictures
from octc.bench.timing.plan import QUICK_NOTE, Plan, make_plan
from octc.bench.timing.profiles import Options
from octc.bench.timing.render import COLUMNS, head, plan_rows, reasons, table, tail
from octc.bench.timing.render_markdown import markdown
from octc.bench.timing.request import checked_options
from octc.bench.timing.result import document, write_results
from octc.bench.timing.rows import broken_row
from octc.bench.timing.runner import run_bench
from octc.bench.timing.state import State
from octc.core.clock import utc_now
from octc.core.errors import OctcError, combined
from octc.core.faults import read_only, writing_to
from octc.core.progress import LogReporter, Reporter
from octc.core.scratch import scratch
from octc.core.several import several
from octc.machine.emulated import emulated
from octc.machine.host import Machine, read_machine
from octc.schemas.requests import BenchOptions
from octc.store.find import Found, find_artifacts, path_of, read_teacher

PLAN_COLUMNS = ("artifact", "row", "seconds", "queries")


@dataclass(frozen=True)
class Job:
    """The input of a bench.

    Attributes:
        artifacts: paths or runs (`find_artifacts`); none: the newest student run with artifacts.
        images: a folder with at least 64 images to time with; None: those of the run, else synthetic ones.
        run_dir, data, environ: locations of runs and images. reports: folder of the report.
        origins: option -> origin of its value.
    """

    artifacts: Sequence[str] = ()
    requested: BenchOptions = field(default_factory=BenchOptions)
    images: str | None = None
    run_dir: Path = Path("runs")
    data: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    origins: Mapping[str, str] = field(default_factory=dict)
    reporter: Reporter = field(default_factory=LogReporter)

    @property
    def reports(self) -> Path:
        return self.run_dir.parent / "reports"


@dataclass(frozen=True)
class Subjects:
    """Artifacts to measure, and those of the teacher. named: whether each was given as a folder by the user.

    no_teacher: why there is no teacher to compare with, or None.
    """

    founds: tuple[Found, ...]
    named: tuple[bool, ...]
    teachers: tuple[Found, ...]
    no_teacher: str | None


@dataclass(frozen=True)
class Prepared:
    """A bench that is ready to start: artifacts, checked options, plan and machine."""

    subjects: Subjects
    options: Options
    plan: Plan
    machine: Machine

    def to_json(self) -> dict[str, Any]:
        """The plan as the document that `octc bench --dry-run --json` prints."""
        rows = [dict(zip(PLAN_COLUMNS, row, strict=True)) for row in plan_rows(self.plan, self.options)]
        return {
            "profile": self.options.profile.name,
            "threads": self.options.threads,
            "threads_source": self.options.threads_source,
            "plan": rows,
            "seconds": self.plan.seconds(self.options),
            "gated": list(self.plan.gated),
        }


@dataclass(frozen=True)
class BenchResult:
    """The result of a measurement; `str()` gives the summary, `write` the files.

    Attributes:
        state: rows, comparisons, conditions. verdict: status, gates and errors. findings: conclusions from the numbers.
    """

    state: State
    verdict: Judgement
    findings: list[Finding]

    @property
    def run_id(self) -> str:
        return self.state.run_id

    @property
    def status(self) -> str:
        """PASS, FAIL, INVALID or INTERRUPTED."""
        return self.verdict.status

    @cached_property
    def document(self) -> dict[str, Any]:
        """The complete result as plain data (docs/measurement.md, section 17)."""
        return document(self.state, self.verdict, self.findings)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the document: artifact, scope, batch, latency_ms with intervals, status, reasons, ..."""
        found: list[dict[str, Any]] = self.document["rows"]
        return found

    def to_json(self) -> dict[str, Any]:
        return self.document

    def write(self, reports: Path | str) -> list[Path]:
        """Write samples and bench-<host>.json into every measured artifact's folder, and the whole as JSON and Markdown to
        `reports`.

        Raises:
            OctcError: E109, E904, E906 a folder cannot be written; the other ones were.
        """
        text = markdown(self.state, self.verdict, self.findings)
        with writing_to(reports):
            return write_results(self.state, self.verdict, self.findings, Path(reports), text)

    def raise_if_failed(self) -> None:
        """Raise an error if a row is INVALID, a gate failed, or an artifact could not run."""
        if errors := self.verdict.errors:
            raise combined(errors)

    def lines(self, files: Sequence[Path] = ()) -> tuple[list[str], list[str]]:
        """The lines of the summary above and below its table."""
        return head(self.state), [*reasons(self.state), *tail(self.state, self.verdict, self.findings, files)]

    def __str__(self) -> str:
        above, below = self.lines()
        cells = [COLUMNS, *table(self.state)]
        widths = [max(len(row[k]) for row in cells) for k in range(len(COLUMNS))]
        rows = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
        return "\n".join([*above, *rows, *below])


def find_subjects(job: Job) -> Subjects:
    """Find the artifacts of a job: those to measure, and those of their teacher.

    Raises:
        OctcError: as `find_artifacts`; E903 this processor is emulated.
    """
    if (name := emulated()) is not None:
        hint = "octc bench on the machine itself, or octc bench --on HOST"
        raise OctcError("OCT-E903", f"{name} is emulated: its times are meaningless", hint=hint)
    founds: dict[Path, tuple[Found, bool]] = {}
    places: list[str | None] = [*job.artifacts] or [None]
    for place in places:
        more, words = find_artifacts(place, job.run_dir, job.environ)
        job.reporter.say(words)
        for one in more:
            known = founds.get(one.folder.resolve())
            founds[one.folder.resolve()] = (one, len(more) == 1 or (known is not None and known[1]))
    taught_by = {one.artifact.lineage.get("teacher_run") for one, _ in founds.values() if one.artifact.role == "student"} - {
        None
    }

    def is_teacher(one: Found) -> bool:
        return one.artifact.role == "teacher" and one.artifact.lineage.get("run") in taught_by

    measured = [(one, exact) for one, exact in founds.values() if not is_teacher(one)]
    given = [one for one, _ in founds.values() if is_teacher(one)]
    teachers, why = _teachers([one for one, _ in measured], given, job) if job.requested.vs == "teacher" else ([], None)
    return Subjects(tuple(one for one, _ in measured), tuple(exact for _, exact in measured), tuple(teachers), why)


def _teachers(founds: Sequence[Found], given: list[Found], job: Job) -> tuple[list[Found], str | None]:
    """Artifacts of the teacher, or why there are none, with a hint; neither if all given artifacts are of teachers."""
    student = next((one for one in founds if one.artifact.role == "student"), None)
    if student is None:
        return [], None
    name = student.artifact.lineage.get("teacher_run")
    if not name:
        return [], "it was trained without a teacher; use --vs none"
    known = given or read_teacher(student, job.run_dir)
    why = f"no artifact of its teacher {name} is here; where that run is: octc export {name} --target all"
    return known, None if known else why


def prepare(job: Job, subjects: Subjects | None = None) -> Prepared:
    """Check the options and make the plan, without measuring.

    Raises:
        OctcError: E104, E102 invalid options; E107 no artifact; E901, E903 no artifact can run on this machine.
    """
    machine = read_machine()
    options = checked_options(job.requested, machine.cpus, job.origins)
    if job.requested.quick:
        job.reporter.say(QUICK_NOTE)
    subjects = subjects or find_subjects(job)
    plan = make_plan(subjects.founds, subjects.teachers, options, subjects.named, subjects.no_teacher)
    return Prepared(subjects, options, plan, machine)


def measure(job: Job, ready: Prepared, after_step: Callable[[State], None] | None = None) -> BenchResult:
    """Run the plan. After an interruption (Ctrl-C) the result contains the finished rows.

    Args:
        after_step: callback after every row and comparison, with the state so far.

    Raises:
        OctcError: E109 results cannot be written into an artifact's folder; and the errors of `choose_pictures`.
    """
    check_writable([subject.found.folder for subject in ready.plan.subjects])
    with scratch("bench") as folder:
        first = ready.subjects.founds[0]
        paths, words = choose_pictures(job.images, first, job.run_dir, job.data, job.environ, folder)
        options = replace(ready.options, images=tuple(paths), images_from=words)
        run_id = f"b-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        count = len(ready.plan.measured()) + len(ready.plan.versus)
        with job.reporter.progress("bench", count) as step:
            state = State(
                ready.plan,
                options,
                ready.machine,
                run_id,
                utc_now(),
                folder,
                job.reports,
                job.reporter.say,
                step,
            )
            if after_step is not None:
                state.step = _both(step, after_step, state)
            run_bench(state)
    stopped = getattr(state.interrupted, "exit_code", INTERRUPTED)
    return BenchResult(state, judge(state, stopped), find_all(state))


def _both(step: Callable[[int], None], after_step: Callable[[State], None], state: State) -> Callable[[int], None]:
    def both(count: int) -> None:
        step(count)
        after_step(state)

    return both


def so_far(state: State) -> dict[str, Any]:
    """The document of an unfinished bench; its remaining rows are marked incomplete."""
    unfinished = {row.id: broken_row(row, "incomplete") for row in state.plan.measured() if row.id not in state.rows}
    known = replace(state, rows={**state.rows, **unfinished})
    return document(known, Judgement("INVALID", 6, (), ()), [])


def check_writable(folders: Sequence[Path]) -> None:
    """Check before the measurement that the results can be written (OctcError E109)."""
    for folder in folders:
        if (fault := read_only(Path(folder))) is not None:
            raise fault
        if not os.access(folder, os.W_OK):
            text = f"results cannot be written beside the artifact: {folder}"
            raise OctcError("OCT-E109", text, hint="make the folder writable, or bench a copy", place=str(folder))


def bench_artifacts(
    artifacts: Any = (),
    *,
    images: str | Path | None = None,
    quick: bool = False,
    options: BenchOptions | None = None,
    run_dir: str | Path = "runs",
    data: str | Path | None = None,
    reporter: Reporter | None = None,
) -> BenchResult:
    """Measure latency, load time, memory and size of artifacts on this machine, and compare them with each other.

    Each artifact runs in its own process; a comparison alternates between two processes. This takes minutes: at least 60 s per
    row, 10 s with `quick`. `BenchResult.write` writes samples and result beside each artifact.

    Args:
        artifacts: folders of artifacts (or one folder, a run, or a model of `octc.load`); none: the newest student run.
        images: a folder with at least 64 pictures; None: the validation images of the run, else synthetic ones.
        quick: a short profile, not comparable and not for publication.
        options: scenario, batch, durations, gates, power.
        run_dir: folder of the runs. data: root of the data set. reporter: receives progress; None: the log `octc`.

    Returns:
        Rows with latency in milliseconds and 95 % intervals, comparisons, findings, status. A row that was disturbed is INVALID
        and gives the reason. After Ctrl-C the status is INTERRUPTED and the finished rows are returned.

    Raises:
        OctcError: E107 no artifact; E104 an option out of range; E901, E903 no artifact can run here; E109 a folder cannot be
            written. Gates and INVALID rows do not raise: see `BenchResult.raise_if_failed`.

    >>> import octc
    >>> octc.bench("no-such-artifact")
    Traceback (most recent call last):
    octc.core.errors.OctcError: no artifact and no run: no-such-artifact
    """
    requested = replace(options or BenchOptions(), quick=quick or (options is not None and options.quick))
    job = Job(
        tuple(path_of(one) for one in several(artifacts)),
        requested,
        None if images is None else str(images),
        Path(run_dir),
        None if data is None else str(data),
        reporter=reporter or LogReporter(),
    )
    return measure(job, prepare(job))
