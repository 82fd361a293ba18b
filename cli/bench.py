"""`octc bench`: latency, memory, size and energy of artifacts on this machine, and the speed-up over their teacher."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.remote import remote_python
from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.cli._app.terminal import tell
from octc.core.errors import OctcError
from octc.core.faults import writing_to
from octc.core.progress import spell_seconds
from octc.schemas.requests import BenchOptions

if TYPE_CHECKING:
    from octc.bench.timing.job import BenchResult, Job, Prepared
    from octc.bench.timing.state import State

PARTIAL = "OCTC_BENCH_PARTIAL"  # set by the script of octc.bench.remote.ssh


def bench(
    session: Session,
    requested: BenchOptions,
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARTIFACT", help="Artifacts, folders of artifacts, or runs (newest student run)"),
    ] = None,
    images: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of at least 64 images to time with (the run's)")
    ] = None,
    on: Annotated[str | None, typer.Option(metavar="USER@HOST", help="Measure on another machine over ssh")] = None,
    pareto: Annotated[bool, typer.Option("--pareto", help="Plot accuracy against latency (after octc verify)")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Compare two results: --compare A.json B.json")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop")] = False,
) -> int:
    """Measure latency, throughput, load time, memory and size of artifacts, and the speed-up over their teacher.

    Each artifact runs in its own process; a comparison alternates between two processes. Gates are judged on the
    unfavourable limit of the 95 % interval, for the artifacts that were given as folders, or else for the one that
    octc predict would choose. Exit code 1: a row is INVALID or a gate failed.
    """
    from octc.bench.timing.job import Job, prepare

    if compare:
        return _compare(session, artifacts or [])
    job = Job(tuple(artifacts or ()), requested, images, session.run_dir, session.data, os.environ, session.origins, session)
    if on is not None:
        if dry_run:
            raise OctcError("OCT-E102", "--dry-run and --on: the other machine makes the plan", hint="leave one of them out")
        return _far(session, job, on)
    ready = prepare(job)
    _say_plan(session, ready)
    return _dry(session, ready) if dry_run else _measured(session, job, ready, pareto=pareto)


def _say_plan(session: Session, ready: Prepared) -> None:
    plan, options = ready.plan, ready.options
    for note in plan.notes[1:]:
        session.say(note)
    ratios = sum(versus.na is None for versus in plan.versus)
    seconds = spell_seconds(plan.seconds(options))
    session.say(f"plan: {len(plan.measured())} rows, {ratios} comparisons, at least {seconds}")
    if options.gates:
        session.say(f"gates on {', '.join(plan.gated)} (name a folder to choose)")


def _dry(session: Session, ready: Prepared) -> int:
    from octc.bench.timing.job import PLAN_COLUMNS
    from octc.bench.timing.render import plan_rows

    for note in ready.plan.notes:
        session.result(note)
    session.result(Rows(PLAN_COLUMNS, plan_rows(ready.plan, ready.options)))
    session.report(ready.to_json())
    return 0


def _measured(session: Session, job: Job, ready: Prepared, *, pareto: bool) -> int:
    """Measure, write the files, print the results; return the exit code."""
    from octc.bench.report.bench_page import write_page, write_pareto
    from octc.bench.timing.job import measure
    from octc.cli.choose import say_choice

    result = measure(job, ready, _tell_so_far if os.environ.get(PARTIAL) == "1" else None)
    state = result.state
    session.run_id = result.run_id
    files, not_written = [], None
    try:
        with writing_to(job.reports):
            files = [*result.write(job.reports), write_page(state, result.verdict, result.findings, job.reports)]
    except OctcError as error:
        not_written = error  # minutes were measured: the numbers are printed all the same
    session.report(result.to_json())
    for finding in result.findings:
        if finding.warning:
            session.warn(finding.warning, finding.text)
    _print(session, result, files)
    if not_written is not None:
        raise not_written
    if state.interrupted is not None:
        raise state.interrupted
    if pareto:
        session.result(f"pareto    {write_pareto(state, job.reports, session.run_dir)}")
    say_choice(session, [subject.found for subject in state.plan.subjects if subject.found.artifact.role == "student"])
    result.raise_if_failed()
    return result.verdict.exit_code


def _print(session: Session, result: BenchResult, files: list[Path]) -> None:
    from octc.bench.timing.render import COLUMNS, table

    above, below = result.lines(files)
    session.result("\n".join(above))
    session.result(Rows(COLUMNS, table(result.state)))
    session.result("\n".join(below))


def _tell_so_far(state: State) -> None:
    """Print the partial result as one line on stderr, for `octc bench --on` on another machine."""
    from octc.bench.remote.ssh import PARTIAL as SIGN
    from octc.bench.timing.job import so_far

    tell(f"{SIGN}{json.dumps(so_far(state), allow_nan=False)}\n")


def _far(session: Session, job: Job, address: str) -> int:
    """Run the bench on another machine; return its exit code there, or 6 if it cannot be reached."""
    from octc.bench.timing.job import find_subjects
    from octc.bench.timing.plan import QUICK_NOTE
    from octc.bench.timing.remote_job import bench_on
    from octc.bench.timing.request import checked_options
    from octc.machine.host import read_machine

    far_end = replace(job.requested, threads=None)  # the other machine checks the number of threads
    checked_options(far_end, read_machine().cpus, job.origins)
    if job.requested.quick:
        session.say(QUICK_NOTE)
    subjects = find_subjects(job)
    python = remote_python(session)
    found = bench_on(address, job, subjects, python)
    if found.text:
        session.result(found.text.rstrip("\n"))
    for file in found.files:
        session.say(f"  fetched {file}")
    if found.partial is not None:
        session.say(f"  partial result: {found.partial}")
    if found.document is not None:
        session.run_id = found.document["run_id"]
        session.report(found.document)
    found.raise_if_failed()
    return found.exit_code


def _compare(session: Session, places: list[str]) -> int:
    """Print what changed between two results; exit code 1 if two valid ratios of the same pair differ by more than 10 %."""
    from octc.bench.timing.compare_results import compare_files

    if len(places) != 2:
        text = f"--compare takes two results, not {len(places)}"
        raise OctcError("OCT-E102", text, hint="octc bench --compare A.json B.json", place="--compare")
    found = compare_files(Path(places[0]), Path(places[1]))
    session.result(Rows(("what", *found.runs, "second / first"), [line.cells() for line in found.lines]))
    for reason in found.not_comparable:
        session.result(f"not comparable: {reason}")
    session.result(found.sentence)
    session.report(found.to_json())
    found.raise_if_apart(places[1])
    return 0
