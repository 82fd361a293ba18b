"""`octc bench` once the plan stands: run it, write the results, print the first screen, end as the numbers say."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.cli._app.errors import INTERRUPTED, TERMINATED, Terminated
from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.cli._app.terminal import tell
from octc.core.errors import Several
from octc.core.progress import Step

if TYPE_CHECKING:
    from octc.bench.timing.plan import Plan
    from octc.bench.timing.profiles import Options
    from octc.bench.timing.state import State
    from octc.machine.host import Machine

PARTIAL = "OCTC_BENCH_PARTIAL"  # set by the script of octc.bench.timing.remote


def run_plan(session: Session, plan: Plan, options: Options, machine: Machine, scratch: Path, *, pareto: bool) -> int:
    """Measure, write, print; the exit code of the bench."""
    from octc.bench.timing.runner import run_bench
    from octc.bench.timing.state import State
    from octc.store.runs import utc_now

    started = utc_now()
    run_id = f"b-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
    session.run_id = run_id
    reports = session.run_dir.parent / "reports"
    with session.progress("bench", len(plan.measured()) + len(plan.versus)) as step:
        state = State(plan, options, machine, run_id, started, scratch, reports, session.say, step)
        if os.environ.get(PARTIAL) == "1":
            state.step = lambda count: _step_and_tell(step, state, count)
        run_bench(state)
    return _finish(session, state, reports, pareto=pareto)


def _step_and_tell(step: Step, state: State, count: int) -> None:
    """For whoever drives this from another machine: what is known so far, in one line on stderr."""
    from octc.bench.timing.gates import Judgement
    from octc.bench.timing.remote import PARTIAL as SIGN
    from octc.bench.timing.result import document
    from octc.bench.timing.rows import broken_row

    step(count)
    unfinished = {row.id: broken_row(row, "incomplete") for row in state.plan.measured() if row.id not in state.rows}
    known = replace(state, rows={**state.rows, **unfinished})
    text = json.dumps(document(known, Judgement("INVALID", 6, (), ()), []), allow_nan=False)
    tell(f"{SIGN}{text}\n")


def _finish(session: Session, state: State, reports: Path, *, pareto: bool) -> int:
    """Write what was measured, print it, and end as the numbers say."""
    from octc.bench.report.bench_page import write_page, write_pareto
    from octc.bench.timing.findings import find_all
    from octc.bench.timing.gates import judge
    from octc.bench.timing.render import COLUMNS, head, reasons, table, tail
    from octc.bench.timing.render_markdown import markdown
    from octc.bench.timing.result import document, write_results
    from octc.cli.choose import say_choice

    verdict = judge(state, TERMINATED if isinstance(state.interrupted, Terminated) else INTERRUPTED)
    findings = find_all(state)
    files = write_results(state, verdict, findings, reports, markdown(state, verdict, findings))
    files.append(write_page(state, verdict, findings, reports))
    session.report(document(state, verdict, findings))
    for finding in findings:
        if finding.warning:
            session.warn(finding.warning, finding.text)
    session.result("\n".join(head(state)))
    session.result(Rows(COLUMNS, table(state)))
    session.result("\n".join([*reasons(state), *tail(state, verdict, findings, files)]))
    if state.interrupted is not None:
        raise state.interrupted
    if pareto:
        session.result(f"pareto    {write_pareto(state, reports, session.run_dir)}")
    say_choice(session, [subject.found for subject in state.plan.subjects if subject.found.artifact.role == "student"])
    return _end(verdict.errors, verdict.exit_code)


def _end(errors: Any, code: int) -> int:
    if errors:
        raise errors[0] if len(errors) == 1 else Several(errors)
    return code
