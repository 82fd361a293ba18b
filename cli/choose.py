"""`octc choose`: the artifact to deploy, in three sentences."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError

if TYPE_CHECKING:
    from octc.store.find import Found


def choose(
    session: Session,
    artifact: Annotated[
        str | None, typer.Argument(metavar="RUN|ARTIFACT", help="Run or artifacts (newest student run with artifacts)")
    ] = None,
) -> int:
    """Name the artifact to deploy: which one, why, and what is provisional or unknown.

    Reads the results that octc verify and octc bench stored, and measures nothing. Exit code 1: no artifact can be deployed.
    """
    from octc.bench.report.choose import choose_artifact

    found = choose_artifact(artifact, run_dir=session.run_dir, reporter=session)
    session.run_id = found.run
    session.report(found.to_json())
    session.result("\n".join(found.sentences))
    if found.chosen is not None:
        session.say(f"it lies in {found.chosen.folder}")
    return 0 if found.chosen is not None else 1


def say_choice(session: Session, founds: Sequence[Found]) -> None:
    """Print the choice among these artifacts in one line, at the end of another command."""
    from octc.bench.report.choose import choose as choose_one

    with contextlib.suppress(OctcError, OSError):
        session.say(choose_one(founds).line)
