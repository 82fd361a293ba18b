"""`octc abstain`: prediction sets and a risk limit, fitted on the validation set and stored in the artifact."""

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
    """Fit conformal prediction sets with a given coverage, or a confidence threshold with a given risk, and store them.

    The guarantee is for images of new patients; each patient counts once. Afterwards octc predict, octc serve and archives
    give the set of each image and flag images to refer. octc verify tests coverage and risk on the test set, for this
    artifact and its FP32 reference.
    """
    return store(session, artifact, options)
