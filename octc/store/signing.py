"""Signing artifacts and checking who signed them: what `octc artifact sign` and `octc artifact verify` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from octc.core.errors import OctcError
from octc.core.optional import need
from octc.schemas.commands import Checked, Signed
from octc.store.artifacts import artifact_sha256
from octc.store.find import Found
from octc.store.oms import SIGNATURE as OMS
from octc.store.oms import fingerprint_of, sign_oms, verify_oms
from octc.store.runs import alone
from octc.store.signature import POLICY, SIGNATURE, TRUSTED, check_signature, sign


def sign_artifacts(
    founds: Sequence[Found], key: Path, password: str | None = None, *, force: bool = False, form: str = "octc"
) -> list[Signed]:
    """Sign each artifact with a key (PEM): an Ed25519 one, or of the format "oms" an elliptic one.

    Args:
        founds: of `octc.store.find.find_artifacts`. force: replace signatures that are there.

    Raises:
        OctcError: E106 one is signed already, and nothing was signed; what `octc.store.signature.sign` raises.
    """
    name = OMS if form == "oms" else SIGNATURE
    there = [one.folder / name for one in founds if (one.folder / name).exists()]
    if there and not force:
        raise OctcError("OCT-E106", f"output exists: {there[0]}", hint="--force", place=str(there[0]))
    digest = fingerprint_of(key, password) if form == "oms" else ""
    signed = []
    for one in founds:
        with alone(one.folder):  # a manifest that is rewritten meanwhile would have a signature that does not hold
            if form == "oms":
                used, file = digest, sign_oms(one.folder, key, password)
            else:
                used, file = sign(one.folder, key, password), one.folder / SIGNATURE
        signed.append(Signed(artifact=one.artifact.name, key=used, file=str(file)))
    return signed


def verify_artifacts(
    founds: Sequence[Found], environ: Mapping[str, str], key: str | None = None, *, form: str = "octc"
) -> list[Checked]:
    """Check the signature over the manifest of each artifact, and with it the checksums of its files.

    Args:
        form: "octc", or "oms" of OpenSSF Model Signing, which needs the key.
        environ: with the policy for signatures (`octc.store.signature`). key: file of the public key that must have signed.

    Raises:
        OctcError: E507 one is not signed, E901 cryptography is not installed, and what `check_signature` raises.
    """
    if form == "oms":
        if key is None:
            raise OctcError("OCT-E102", "--format oms needs the public key", hint="--key key.pub", place="--key")
        for one in founds:
            verify_oms(one.folder, Path(key))
        digest = fingerprint_of(Path(key))
        return [Checked(artifact=one.artifact.name, key=digest, files=len(one.artifact.files)) for one in founds]
    need("cryptography")
    policy = dict(environ) if key is None else {**environ, POLICY: "required", TRUSTED: key}
    rows = []
    for one in founds:
        who = check_signature(one.folder, artifact_sha256(one.folder), policy)
        if who is None:
            hint = f"octc artifact sign {one.folder} --key key.pem"
            raise OctcError("OCT-E507", f"{one.folder} is not signed", hint=hint, place=str(one.folder))
        rows.append(Checked(artifact=one.artifact.name, key=who, files=len(one.artifact.files)))
    return rows
