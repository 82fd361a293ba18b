"""`octc threshold`: an operating point, a share to refer or costs, chosen on the validation set and stored in the artifact."""

from __future__ import annotations

from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.schemas.rules import PointOptions, SetOptions

WHAT = "Artifact, folder of artifacts, or run; newest student run"


def threshold(
    session: Session,
    options: PointOptions,
    artifact: Annotated[str | None, typer.Argument(metavar="ARTIFACT", help=WHAT)] = None,
) -> int:
    """Choose when a class is answered, or how many images are referred, on the validation set; store it in each artifact.

    Says with an interval what the sample shows, and plainly what it is too small to show. predict, serve and archives obey;
    verify judges it on the test set. Do it before verify: the artifact is another one afterwards.
    """
    return store(session, artifact, options)


def store(session: Session, artifact: str | None, options: PointOptions | SetOptions) -> int:
    """Fit, store, and say what was stored."""
    import msgspec

    from octc.export.decision import fit_rules

    stored = fit_rules(artifact, options, data=session.data, run_dir=session.run_dir, reporter=session)
    session.report({"stored": [msgspec.to_builtins(one.to_document()) for one in stored]})
    for one in stored:
        session.result("\n".join([f"{one.found.artifact.name}", *(f"  {line}" for line in one.words)]))
    session.say("next: octc verify")
    return 0
