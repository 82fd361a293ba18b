"""`octc artifact sign | verify`: whose artifact this is, and that nothing in it was changed since."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.core.options import OneOf

PASSWORD = "OCTC_KEY_PASSWORD"
FORMATS = ("octc", "oms")
FORMAT_HELP = "octc (Ed25519), or oms: OpenSSF Model Signing, which its own client verifies"


def sign(
    session: Session,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact, a folder of artifacts, or a run")],
    key: Annotated[str, typer.Option(metavar="FILE", help=f"Ed25519 private key (PEM); its password in {PASSWORD}")],
    force: Annotated[bool, typer.Option("--force", help="Replace a signature that is there")] = False,
    form: Annotated[str, OneOf(FORMATS), typer.Option("--format", help=FORMAT_HELP)] = "octc",
) -> int:
    """Sign artifacts. A key: openssl genpkey -algorithm ed25519 -out key.pem (of oms: one of the curve prime256v1)."""
    import msgspec

    from octc.store.find import find_artifacts
    from octc.store.signature import POLICY
    from octc.store.signing import sign_artifacts

    os.environ[POLICY] = "optional"  # what is to be signed need not be signed yet
    founds, words = find_artifacts(artifact, session.run_dir, os.environ)
    session.say(words)
    signed = sign_artifacts(founds, Path(key), os.environ.get(PASSWORD), force=force, form=form)
    for found, one in zip(founds, signed, strict=True):
        session.result(f"signed {found.folder} with the key {one.key}")
    session.report({"signed": [msgspec.to_builtins(one) for one in signed]})
    return 0


def verify(
    session: Session,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact, a folder of artifacts, or a run")],
    key: Annotated[str | None, typer.Option(metavar="FILE", help="Public key that must have signed (PEM)")] = None,
    form: Annotated[str, OneOf(FORMATS), typer.Option("--format", help=FORMAT_HELP)] = "octc",
) -> int:
    """Check checksums and signatures of artifacts; ends with 3 where one is unsigned, not whole, or signed by somebody else."""
    import msgspec

    from octc.store.find import find_artifacts
    from octc.store.signing import verify_artifacts

    founds, words = find_artifacts(artifact, session.run_dir, os.environ)
    session.say(words)
    rows = verify_artifacts(founds, os.environ, key, form=form)
    for found, one in zip(founds, rows, strict=True):
        session.result(f"{found.folder}: {one.files} files as signed by the key {one.key}")
    session.report({"verified": [msgspec.to_builtins(one) for one in rows]})
    return 0
