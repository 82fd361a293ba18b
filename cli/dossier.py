"""`octc dossier OLD NEW`: lists what changed between two artifacts, what was tested, and what is unknown."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from octc.cli._app.session import Session


def dossier(
    session: Session,
    old: Annotated[str, typer.Argument(metavar="OLD", help="Artifact in use")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Artifact that would replace it")],
) -> int:
    """Write a change report: data, weights, graph and engine; tests and results; open points; bills of materials."""
    from octc.bench.report.change import read_change, write_change
    from octc.cli._app.tables import Rows
    from octc.core.clock import utc_now
    from octc.core.errors import OctcError
    from octc.store.find import find_artifacts

    sides = []
    for word in (old, new):
        founds, _ = find_artifacts(word, session.run_dir, os.environ)
        if len(founds) > 1:
            text = f"{word} has {len(founds)} artifacts: {', '.join(one.artifact.name for one in founds)}"
            raise OctcError("OCT-E107", text, hint=f"octc dossier {founds[0].folder} ...", place=word)
        sides.append(founds[0])
    now = utc_now()
    found = read_change(sides[0], sides[1], session.run_dir, now)
    folder = write_change(found, session.run_dir.parent / "reports", now)
    session.report({**found.to_json(), "folder": str(folder)})
    rows = [(one.group, one.what, one.old, one.new) for one in found.changes]
    session.result(Rows(("", "what", "old", "new"), rows, found.title))
    for text in found.unknown:
        session.say(f"  ! not known: {text}")
    session.result(str(folder))
    return 0
