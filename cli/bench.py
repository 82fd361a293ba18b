"""`octc bench`: how fast, how large and how hungry an artifact is on this machine, and compared with its teacher."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.core.errors import OctcError
from octc.core.faults import read_only

if TYPE_CHECKING:
    from octc.bench.timing.plan import Plan
    from octc.bench.timing.profiles import Options
    from octc.store.find import Found


def bench(
    session: Session,
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BUNDLE...]", help="Artifacts, folders of artifacts, or runs; newest student run with artifacts"
        ),
    ] = None,
    scenario: Annotated[
        str, typer.Option(help="single (latency, one query after the other) or offline (throughput)")
    ] = "single",
    batch: Annotated[
        int | None, typer.Option(help="Batch size (single: 1 and 8; offline: the best)", show_default=False)
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="Least time of a row, for example 90s (60s; with --quick 10s)", show_default=False)
    ] = None,
    min_queries: Annotated[
        int | None, typer.Option(help="Least queries of a row (1024; with --quick 459)", show_default=False)
    ] = None,
    max_duration: Annotated[str | None, typer.Option(help="Longest time of a row (600s)", show_default=False)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A short profile: not comparable, not for publication")] = False,
    threads: Annotated[int | None, typer.Option(help="Threads of every engine (physical cores within the quota)")] = None,
    vs: Annotated[str, typer.Option(help="teacher or none: what the artifacts are compared with")] = "teacher",
    images: Annotated[str | None, typer.Option(metavar="DIR", help="At least 64 images to time (the run's own)")] = None,
    max_p50: Annotated[str | None, typer.Option(help="Gate, for example 30ms")] = None,
    max_p90: Annotated[str | None, typer.Option(help="Gate, for example 30ms")] = None,
    max_p99: Annotated[str | None, typer.Option(help="Gate, for example 50ms")] = None,
    min_throughput: Annotated[float | None, typer.Option(help="Gate, images per second (--scenario offline)")] = None,
    max_mj: Annotated[float | None, typer.Option(help="Gate, millijoules per image")] = None,
    require_speedup: Annotated[float | None, typer.Option(help="Gate: INT8 at least so many times as fast as float")] = None,
    power: Annotated[bool, typer.Option("--power/--no-power", help="Read power where a sensor is")] = True,
    power_csv: Annotated[str | None, typer.Option(metavar="FILE", help="Readings of a meter: time, watts")] = None,
    allow_power_cap: Annotated[bool, typer.Option("--allow-power-cap", help="Rows at the GPU's power cap stay valid")] = False,
    on: Annotated[str | None, typer.Option(metavar="USER@HOST", help="Measure on another machine, over your own ssh")] = None,
    pareto: Annotated[bool, typer.Option("--pareto", help="Draw accuracy against latency (needs octc verify)")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Compare two results: --compare A.json B.json")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop")] = False,
) -> int:
    """Measure latency, throughput, load time, memory and size of artifacts, and the ratio to their teacher.

    Each artifact runs in a process of its own; comparisons alternate between two. Ends with 1 when a row is INVALID or a gate
    is missed: a gate looks at the limit of the interval. Gates are judged on the artifacts that were named by their folder,
    else on the one that `octc predict` takes.
    """
    values = {
        "scenario": scenario,
        "batch": batch,
        "duration": duration,
        "min_queries": min_queries,
        "max_duration": max_duration,
        "quick": quick,
        "threads": threads,
        "vs": vs,
        "max_p50": max_p50,
        "max_p90": max_p90,
        "max_p99": max_p99,
        "min_throughput": min_throughput,
        "max_mj": max_mj,
        "require_speedup": require_speedup,
        "power": power,
        "power_csv": power_csv,
        "allow_power_cap": allow_power_cap,
    }
    if compare:
        from octc.cli.bench_compare import compare_results

        return compare_results(session, bundles or [])
    from octc.bench.timing.plan import QUICK_NOTE, make_plan
    from octc.cli.bench_options import make_options
    from octc.machine.host import read_machine

    machine = read_machine()
    local = values if on is None else {**values, "threads": None}  # the far end knows how many it has
    options = make_options(local, machine.cpus, session.origins)
    if quick:
        session.say(QUICK_NOTE)
    founds, named = _find(session, bundles or [])
    founds, named, given = _sort(founds, named)
    teachers, why = _teachers(founds, given, session.run_dir) if options.vs == "teacher" else ([], None)
    if on is not None:
        from octc.cli.bench_remote import bench_on

        if dry_run:
            raise OctcError("OCT-E102", "--dry-run and --on: the plan is made there", hint="leave one of them out")
        _check_writable([found.folder for found in founds])
        return bench_on(session, on, founds, teachers, named, {**values, "threads": threads}, images)
    plan = make_plan(founds, teachers, options, named, why)
    _say_plan(session, plan, options)
    if dry_run:
        return _dry(session, plan, options)
    _check_writable([subject.found.folder for subject in plan.subjects])
    with tempfile.TemporaryDirectory(prefix="octc-bench-") as scratch:
        from octc.bench.timing.images import choose_pictures
        from octc.cli.bench_run import run_plan

        paths, words = choose_pictures(images, founds[0], session.run_dir, session.data, os.environ, Path(scratch))
        chosen = replace(options, images=tuple(paths), images_from=words)
        return run_plan(session, plan, chosen, machine, Path(scratch), pareto=pareto)


def _find(session: Session, bundles: list[str]) -> tuple[list[Found], list[bool]]:
    """The artifacts, and for each whether it was given by its own folder."""
    from octc.store.find import find_artifacts

    founds: dict[Path, tuple[Found, bool]] = {}
    places: list[str | None] = [*bundles] or [None]
    for place in places:
        more, words = find_artifacts(place, session.run_dir, os.environ)
        session.say(words)
        for one in more:
            known = founds.get(one.folder.resolve())
            founds[one.folder.resolve()] = (one, len(more) == 1 or (known is not None and known[1]))
    return [one for one, _ in founds.values()], [exact for _, exact in founds.values()]


def _sort(founds: list[Found], named: list[bool]) -> tuple[list[Found], list[bool], list[Found]]:
    """What is measured, and the teacher's artifacts among what was given: those are what it is compared with."""
    teachers = {f.artifact.lineage.get("teacher_run") for f in founds if f.artifact.role == "student"} - {None}
    references = [f for f in founds if f.artifact.role == "teacher" and f.artifact.lineage.get("run") in teachers]
    mine = [(f, exact) for f, exact in zip(founds, named, strict=True) if f not in references]
    return [f for f, _ in mine], [exact for _, exact in mine], references


def _teachers(founds: list[Found], given: list[Found], run_dir: Path) -> tuple[list[Found], str | None]:
    """Artifacts of the teacher, or why there are none and the mend; neither for artifacts of teachers alone."""
    from octc.store.find import read_teacher

    student = next((one for one in founds if one.artifact.role == "student"), None)
    if student is None:
        return [], None
    name = student.artifact.lineage.get("teacher_run")
    if not name:
        return [], "it was trained without a teacher; --vs none says so"
    known = given or read_teacher(student, run_dir)
    return (
        known,
        None if known else f"no artifact of its teacher {name} is here; where that run is: octc export {name} --target all",
    )


def _say_plan(session: Session, plan: Plan, options: Options) -> None:
    from octc.cli._app.session import spell_seconds

    for note in plan.notes[1:]:
        session.say(note)
    count = len(plan.measured())
    ratios = sum(versus.na is None for versus in plan.versus)
    session.say(f"plan: {count} rows, {ratios} comparisons, at least {spell_seconds(plan.seconds(options))}")
    if options.gates:
        session.say(f"gates on {', '.join(plan.gated)} (name a folder to choose)")


def _dry(session: Session, plan: Plan, options: Options) -> int:
    from octc.bench.timing.render import plan_rows

    rows = plan_rows(plan, options)
    columns = ("artifact", "row", "seconds", "queries")
    for note in plan.notes:
        session.result(note)
    session.result(Rows(columns, rows))
    listed = [dict(zip(columns, row, strict=True)) for row in rows]
    head = {"profile": options.profile.name, "threads": options.threads, "threads_source": options.threads_source}
    session.report({**head, "plan": listed, "seconds": plan.seconds(options), "gated": list(plan.gated)})
    return 0


def _check_writable(folders: list[Path]) -> None:
    """Before minutes of measuring: can the results be written?"""
    for folder in folders:
        if (fault := read_only(Path(folder))) is not None:
            raise fault
        if not os.access(folder, os.W_OK):
            text = f"results cannot be written beside the artifact: {folder}"
            raise OctcError("OCT-E109", text, hint="make the folder writable, or bench a copy", place=str(folder))
