"""`octc threshold`: an operating point, a referral rate or costs, fitted on the validation set, stored in the artifact."""

from __future__ import annotations

from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.schemas.rules import PointOptions, SetOptions

WHAT = "Artifact, folder of artifacts, or run (newest student run)"


def threshold(
    session: Session,
    options: PointOptions,
    artifact: Annotated[str | None, typer.Argument(metavar="ARTIFACT", help=WHAT)] = None,
) -> int:
    """Choose the threshold of a class, a referral rate or costs on the validation set, and store them in each artifact.

    Prints intervals, and states what the sample is too small to show. Afterwards octc predict, octc serve and archives apply
    the rule, and octc verify tests it on the test set. Run it before octc verify, because it changes the artifact.
    """
    return store(session, artifact, options)


def store(session: Session, artifact: str | None, options: PointOptions | SetOptions) -> int:
    """Fit the rules, store them, and print what was stored."""
    import msgspec

    from octc.export.decision import fit_rules

    stored = fit_rules(artifact, options, data=session.data, run_dir=session.run_dir, reporter=session)
    session.report({"stored": [msgspec.to_builtins(one.to_document()) for one in stored]})
    for one in stored:
        session.result("\n".join([f"{one.found.artifact.name}", *(f"  {line}" for line in one.words)]))
    session.say("next: octc verify")
    return 0
