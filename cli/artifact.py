"""`octc artifact sign | verify`: whose artifact this is, and that nothing in it was changed since."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError

PASSWORD = "OCTC_KEY_PASSWORD"


def sign(
    session: Session,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact, a folder of artifacts, or a run")],
    key: Annotated[str, typer.Option(metavar="FILE", help=f"Ed25519 private key (PEM); its password in {PASSWORD}")],
    force: Annotated[bool, typer.Option("--force", help="Replace a signature that is there")] = False,
) -> int:
    """Sign artifacts. A key: openssl genpkey -algorithm ed25519 -out key.pem."""
    from octc.store.find import find_artifacts
    from octc.store.signature import POLICY, SIGNATURE
    from octc.store.signature import sign as sign_folder

    os.environ[POLICY] = "optional"  # what is to be signed need not be signed yet
    founds, words = find_artifacts(artifact, session.run_dir, os.environ)
    session.say(words)
    there = [one.folder / SIGNATURE for one in founds if (one.folder / SIGNATURE).exists()]
    if there and not force:
        raise OctcError("OCT-E106", f"output exists: {there[0]}", hint="--force", place=str(there[0]))
    signed = []
    for one in founds:
        who = sign_folder(one.folder, Path(key), os.environ.get(PASSWORD))
        signed.append({"artifact": one.artifact.name, "key": who, "file": str(one.folder / SIGNATURE)})
        session.result(f"signed {one.folder} with the key {who}")
    session.report({"signed": signed})
    return 0


def verify(
    session: Session,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact, a folder of artifacts, or a run")],
    key: Annotated[str | None, typer.Option(metavar="FILE", help="Public key that must have signed (PEM)")] = None,
) -> int:
    """Check checksums and signatures of artifacts; ends with 3 where one is unsigned, not whole, or signed by somebody else."""
    from octc.core.files import sha256_file
    from octc.core.optional import need
    from octc.store.artifacts import MANIFEST
    from octc.store.find import find_artifacts
    from octc.store.signature import POLICY, TRUSTED, check_signature

    need("cryptography")
    founds, words = find_artifacts(artifact, session.run_dir, os.environ)
    session.say(words)
    asked = dict(os.environ) if key is None else {**os.environ, POLICY: "required", TRUSTED: key}
    rows = []
    for one in founds:
        who = check_signature(one.folder, sha256_file(one.folder / MANIFEST), asked)
        if who is None:
            hint = f"octc artifact sign {one.folder} --key key.pem"
            raise OctcError("OCT-E507", f"{one.folder} is not signed", hint=hint, place=str(one.folder))
        rows.append({"artifact": one.artifact.name, "key": who, "files": len(one.artifact.files)})
        session.result(f"{one.folder}: {len(one.artifact.files)} files as signed by the key {who}")
    session.report({"verified": rows})
    return 0
