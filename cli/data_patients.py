"""`octc data patients`: shows the patient of each image under a rule; --save stores the rule for all later commands."""

from __future__ import annotations

from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.cli.data import NAME
from octc.core.data_options import DataOptions


def patients(
    session: Session,
    options: DataOptions,
    what: Annotated[str, typer.Argument(metavar="NAME|PATH", help=NAME)] = "ucsd",
    save: Annotated[
        bool, typer.Option("--save", help="Store the rule: later trainings and splits of these images use it")
    ] = False,
) -> int:
    """Show the patients that a rule gives, with warnings if they look implausible."""
    from octc.datasets.jobs import preview_patients

    found = preview_patients(what, data=session.data, options=options, save=save, run_dir=session.run_dir, reporter=session)
    for one in found.warnings:
        session.warn(one.code, one.message, one.place)
    session.report({**found.to_json(), "saved": save})
    cells = [(one, str(count), path) for one, count, path in found.rows]
    session.result(Rows(("patient", "images", "one of them"), cells, found.summary))
    rule = "as its layout gives them" if found.rule is None else found.rule
    session.say(f"patients: {rule}{' (saved before)' if found.stored else ''}")
    if save:
        session.say(f"saved for these images in {session.run_dir}")
    return 0
