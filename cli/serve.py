"""`octc serve`: serves artifacts over the network; `octc serve-config`: writes the files of another model server."""

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
    artifacts: Annotated[
        list[str], typer.Argument(metavar="ARTIFACT", help="Artifacts or runs; the first is the default model")
    ],
    check: Annotated[bool, typer.Option("--check", help="Check artifacts, options and ports, and stop")] = False,
) -> int:
    """Serve artifacts until SIGTERM or Ctrl-C: KServe v2 over REST and gRPC, file upload at /v1/predict, a web page at /.

    Listens on the loopback address; any other address needs a token. Each artifact is checked (checksums, signature policy,
    golden images) before the first request. --dicom and --watch receive volumes and send reports. SIGHUP reloads the
    artifacts without dropping a request. The log is written to stderr as JSON lines.
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
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Model repository, to which one folder is added")],
    force: Annotated[bool, typer.Option("--force", help="Replace the folder of an existing model")] = False,
) -> int:
    """Write a model repository for another server (Triton): config.pbtxt, labels and the model file."""
    from octc.export.triton import start_line, write_repository
    from octc.store.artifacts import read_artifact
    from octc.store.find import artifact_of

    artifact = artifact_of(artifact) or artifact
    place = write_repository(artifact, read_artifact(artifact), out, force=force)
    session.report({"server": server, "model": str(place), "config": str(place / "config.pbtxt")})
    session.result(str(place))
    session.say(f"next: {start_line(str(out))}")
    return 0
