"""`octc abstain`: prediction sets and a risk to keep, fitted on the validation set and stored in the artifact."""

from __future__ import annotations

from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.cli.threshold import WHAT, store
from octc.schemas.rules import SetOptions


def abstain(
    session: Session,
    options: SetOptions,
    artifact: Annotated[str | None, typer.Argument(metavar="ARTIFACT", help=WHAT)] = None,
) -> int:
    """Fit prediction sets with a stated coverage, and a confidence with a stated risk; store them in each artifact.

    The promise is for images of new patients, each patient counting once. predict, serve and archives then answer with a set
    and say which images to refer; verify judges it on the test set, for this artifact and its FP32 reference.
    """
    return store(session, artifact, options)
