"""`octc serve-config`: what a model server needs, from an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from octc.cli._app.session import Session


def serve_config(
    session: Session,
    server: Annotated[Literal["triton"], typer.Argument(help="The server")],
    bundle: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Artifact folder")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Model repository; one folder is added")],
    force: Annotated[bool, typer.Option("--force", help="Replace the model's folder")] = False,
) -> int:
    """Write a model repository: config.pbtxt, labels and the model file."""
    from octc.export.triton import start_line, write_repository
    from octc.store.artifacts import read_artifact
    from octc.store.find import artifact_of

    bundle = artifact_of(bundle) or bundle
    place = write_repository(bundle, read_artifact(bundle), out, force=force)
    session.report({"server": server, "model": str(place), "config": str(place / "config.pbtxt")})
    session.result(str(place))
    session.say(f"next: {start_line(str(out))}")
    return 0
