"""`octc serve`: artifacts as a service; `octc serve-config`: what another model server needs, from an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from octc.cli._app.session import Session
from octc.schemas.requests import GatewayOptions, ServeOptions


def serve(
    session: Session,
    requested: ServeOptions,
    gateway: GatewayOptions,
    artifacts: Annotated[list[str], typer.Argument(metavar="ARTIFACT", help="Artifacts or runs; the first answers by default")],
    check: Annotated[bool, typer.Option("--check", help="Check artifacts and options, open the doors, and end")] = False,
) -> int:
    """Serve artifacts until SIGTERM or Ctrl-C: KServe v2 over REST and gRPC, files in at /v1/predict, a page at /.

    Listens at loopback; another address needs a token. Each artifact is checked (checksums, signature policy, golden images)
    before the first request. --dicom and --watch take volumes and send reports. SIGHUP reads the artifacts again without
    dropping a request. The log is JSON lines on stderr.
    """
    from octc.core.optional import need_wing

    need_wing("serve")
    from octc.serve.logs import start_log
    from octc.serve.server import serve_artifacts

    start_log()
    served = serve_artifacts(artifacts, requested, gateway=gateway, check=check, reporter=session)
    session.report({"models": [{"model": name, "version": version} for name, version in served]})
    return 0


def serve_config(
    session: Session,
    server: Annotated[Literal["triton"], typer.Argument(help="The server")],
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Artifact folder")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Model repository; one folder is added")],
    force: Annotated[bool, typer.Option("--force", help="Replace the model's folder")] = False,
) -> int:
    """Write a model repository: config.pbtxt, labels and the model file."""
    from octc.export.triton import start_line, write_repository
    from octc.store.artifacts import read_artifact
    from octc.store.find import artifact_of

    artifact = artifact_of(artifact) or artifact
    place = write_repository(artifact, read_artifact(artifact), out, force=force)
    session.report({"server": server, "model": str(place), "config": str(place / "config.pbtxt")})
    session.result(str(place))
    session.say(f"next: {start_line(str(out))}")
    return 0
