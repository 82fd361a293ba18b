"""`octc report`: writes a report of a run from the stored results of train, verify and bench."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.schemas.requests import ReportOptions


def report(
    session: Session,
    requested: ReportOptions,
    artifact: Annotated[
        str | None, typer.Argument(metavar="RUN|ARTIFACT", help="Run or artifacts (newest student run with artifacts)")
    ] = None,
) -> int:
    """Write report.html, report.md, report.json and a model card of a run. Measures and downloads nothing."""
    from octc.bench.report.job import Job, make_report
    from octc.cli.choose import say_choice

    written = make_report(Job(artifact, requested, session.run_dir, session.data, os.environ, session))
    session.run_id = written.run_id
    session.report({"folder": str(written.folder), "files": list(written.files), "report": written.document})
    for name in written.files:
        if not name.startswith("figures/"):
            session.result(str(written.folder / name))
    say_choice(session, written.founds)
    return 0
