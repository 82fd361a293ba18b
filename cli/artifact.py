"""`octc artifact sign | verify`: signs artifacts, and checks who signed them and that no file was changed since."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.core.options import OneOf

PASSWORD = "OCTC_KEY_PASSWORD"
FORMATS = ("octc", "oms")
FORMAT_HELP = "octc (Ed25519), or oms (OpenSSF Model Signing, for other clients too)"


def sign(
    session: Session,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact, a folder of artifacts, or a run")],
    key: Annotated[str, typer.Option(metavar="FILE", help=f"Ed25519 private key (PEM); set {PASSWORD} for its password")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing signature")] = False,
    form: Annotated[str, OneOf(FORMATS), typer.Option("--format", help=FORMAT_HELP)] = "octc",
) -> int:
    """Sign artifacts. Make a key with: openssl genpkey -algorithm ed25519 -out key.pem (oms needs a prime256v1 key)."""
    import msgspec

    from octc.store.find import find_artifacts
    from octc.store.signature import POLICY
    from octc.store.signing import sign_artifacts

    os.environ[POLICY] = "optional"  # an artifact that is about to be signed may be unsigned
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
    key: Annotated[str | None, typer.Option(metavar="FILE", help="Public key that the signature must match (PEM)")] = None,
    form: Annotated[str, OneOf(FORMATS), typer.Option("--format", help=FORMAT_HELP)] = "octc",
) -> int:
    """Check checksums and signatures of artifacts. Exit code 3: one is unsigned, incomplete, or signed with another key."""
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
