"""`octc search`: finds the student network for a budget."""

from __future__ import annotations

from typing import Annotated

import typer

from octc.cli._app.remote import remote_python
from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.schemas.search import SearchOptions


def search(
    session: Session,
    options: SearchOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the candidates and the estimated time of the search, and stop")
    ] = False,
) -> int:
    """Find the fastest network within a budget that is as good as the best one, measured on the target device.

    Candidates are exported in INT8 with random weights and timed as octc bench does, on this machine or over ssh. Those within
    the budget are trained by successive halving from one teacher. The fastest one that is non-inferior to the best on the
    validation set is fine-tuned, exported and verified once on the test set. Repeat the command to resume a stopped search.
    Machines that share the run folder and run the same command divide the trials. Exit code 0 only if the winner's artifact is
    within the budget, if that was timed, and every claim on the test set is shown.
    """
    from octc.core.optional import need_wing

    need_wing("export")
    from octc.export.search.job import SearchJob, find_student
    from octc.export.search.pages import COLUMNS, answer_lines, table_rows

    def begun(name: str) -> None:
        session.run_id = name

    python = "" if options.on is None else remote_python(session)
    found = find_student(SearchJob(options, session.run_dir, session.data, session, python), dry_run=dry_run, begun=begun)

    session.report(found.to_json())
    session.result(Rows(COLUMNS, table_rows(found.document)))
    session.result("\n".join(answer_lines(found.document)))
    if found.folder is not None:
        session.say(f"  {found.folder}/search.json, pareto.svg, table.md, winner.json")
    found.raise_if_failed()
    if found.folder is not None:
        session.say("next: octc report, or octc bench for times that can be published")
    return 0
