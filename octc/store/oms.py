"""Signatures of artifacts in the format of OpenSSF Model Signing, which its own client verifies.

model_signing verify key FOLDER --signature FOLDER/artifact.oms.sig --public_key key.pub --ignore-paths ...

It covers every file of the manifest and the manifest itself; what is measured later beside the artifact is not signed. Keys
are elliptic (NIST P-256, P-384, P-521), as the format has them. Needs the extra `oms`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.files import replacing, sha256_bytes
from octc.core.optional import need
from octc.store.artifacts import LATER

SIGNATURE = "artifact.oms.sig"
MAKE_KEY = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
PUBLIC_KEY = "openssl ec -in key.pem -pubout -out key.pub"


def left_out(folder: Path) -> list[Path]:
    """Files beside the artifact that a signature does not cover: results, and signatures."""
    names = (path.name for path in folder.iterdir())
    return sorted(Path(name) for name in names if LATER.match(name) or name == "samples")


def fingerprint_of(key: Path, password: str | None = None) -> str:
    """The first 16 digits of the SHA-256 of a public key (DER), the same of its private key: who signed is who is verified.

    Raises:
        OctcError: E507 the key cannot be used, E901 cryptography is not installed.
    """
    serialization = need("cryptography.hazmat.primitives.serialization")
    try:
        pem = key.read_bytes()
        if b"PRIVATE" in pem:
            public = serialization.load_pem_private_key(pem, None if password is None else password.encode()).public_key()
        else:
            public = serialization.load_pem_public_key(pem)
        kind = serialization.PublicFormat.SubjectPublicKeyInfo
        return sha256_bytes(public.public_bytes(serialization.Encoding.DER, kind))[:16]
    except (OSError, ValueError, TypeError) as error:
        raise OctcError("OCT-E507", f"key cannot be used: {error}", hint=MAKE_KEY, place=str(key)) from error


def sign_oms(folder: Path, key: Path, password: str | None = None) -> Path:
    """Sign an artifact that was read and found whole; the signature's file.

    Raises:
        OctcError: E901 model-signing is not installed, E507 the key cannot be used.
    """
    signing = need("model_signing.signing")
    place = folder / SIGNATURE
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key, password=password)
        with replacing(place) as temporary:
            config.set_hashing_config(_hashing(folder)).sign(folder, temporary)
    except (OSError, ValueError, TypeError) as error:
        raise OctcError("OCT-E507", f"key cannot be used: {error}", hint=MAKE_KEY, place=str(key)) from error
    return place


def verify_oms(folder: Path, key: Path) -> Path:
    """Check a signature against a public key; the signature's file.

    Raises:
        OctcError: E507 there is none, or it is not valid for these files and this key; E901 model-signing is not installed.
    """
    place = folder / SIGNATURE
    if not place.is_file():
        hint = f"octc artifact sign {folder} --key key.pem --format oms"
        raise OctcError("OCT-E507", f"{folder} has no signature of model-signing", hint=hint, place=str(folder))
    verifying = need("model_signing.verifying")
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
        config.set_hashing_config(_hashing(folder)).verify(folder, place)
    except Exception as error:  # the client's errors share no base class, and each of them is a refusal
        hint = f"copy the artifact again from where it was signed; the public key: {PUBLIC_KEY}"
        raise OctcError("OCT-E507", f"signature is not valid: {error}"[:300], hint=hint, place=str(place)) from error
    return place


def _hashing(folder: Path) -> Any:
    return need("model_signing.hashing").Config().set_ignored_paths(paths=left_out(folder), ignore_git_paths=False)
