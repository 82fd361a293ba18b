"""Signatures of artifacts: Ed25519 over the sum of artifact.json, which holds the sums of all other files.

artifact.sig.json lies beside the manifest. Where it lies there it must hold; whether one must lie there, and by whose key,
is the reader's policy: [artifact] signature = "required" and [artifact] trusted = key files, or OCTC_ARTIFACT__SIGNATURE and
OCTC_ARTIFACT__TRUSTED. Keys are PEM files as openssl writes them. Needs the extra `sign`.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octc.core.deprecated import variable
from octc.core.errors import OctcError
from octc.core.files import read_json, sha256_bytes, write_json
from octc.core.optional import have, need
from octc.schemas.common import convert
from octc.schemas.logs import SignatureFile

SIGNATURE = "artifact.sig.json"
SCHEMA, ALGORITHM = "1.0", "ed25519"
LARGEST = 1 << 16
PREFIX = b"octc artifact 1\n"  # so that nothing else that the key signs can be taken for this
POLICY, TRUSTED = "OCTC_ARTIFACT__SIGNATURE", "OCTC_ARTIFACT__TRUSTED"
MAKE_KEY = "openssl genpkey -algorithm ed25519 -out key.pem"
PUBLIC_KEY = "openssl pkey -in key.pem -pubout -out key.pub"


def sign(folder: Path, key: Path, password: str | None = None) -> str:
    """Sign the manifest of an artifact that was read and found whole; the fingerprint of the key.

    Raises:
        OctcError: E901 cryptography is not installed, E507 the key cannot be used.
    """
    private = _private_key(key, password)
    public = private.public_key().public_bytes_raw()
    manifest = sha256_bytes((folder / "artifact.json").read_bytes())
    write_json(
        folder / SIGNATURE,
        {
            "schema_version": SCHEMA,
            "algorithm": ALGORITHM,
            "public_key": base64.b64encode(public).decode(),
            "manifest_sha256": manifest,
            "signature": base64.b64encode(private.sign(PREFIX + manifest.encode())).decode(),
        },
    )
    return fingerprint(public)


def fingerprint(public: bytes) -> str:
    """The first 16 hex digits of the sum of a raw public key."""
    return sha256_bytes(public)[:16]


def check_signature(folder: Path, manifest_sha256: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Check an artifact's signature as the policy wants it; the fingerprint of its key, or None where there is none.

    Raises:
        OctcError: E507 missing though required, damaged, about another manifest, invalid, or by a key that is not trusted;
            E901 cryptography is not installed and the policy needs it; E104 the policy cannot be followed.
    """
    required = _required(environ)
    trusted = [Path(name) for name in (variable(environ, TRUSTED) or "").split(os.pathsep) if name]
    path = folder / SIGNATURE
    if required and not trusted:
        hint = f'[artifact] trusted = "key.pub" in octc.toml, or {TRUSTED}'
        raise OctcError("OCT-E104", "signatures are required, and no key is trusted", hint=hint, place=POLICY)
    if not path.exists():
        if required:
            raise _refused(f"{folder.name} is not signed, and the policy requires it", path)
        return None
    public, signed, signature = _read(path)
    if signed != manifest_sha256:
        raise _refused("artifact.json was changed after it was signed", path)
    if not (required or trusted) and not have("cryptography"):
        return None  # the checksum was compared; only the key could say more, and nobody asked for one
    _verify(public, signature, signed, path)
    if trusted and public not in [_public_key(one) for one in trusted]:
        raise _refused(f"signed by the key {fingerprint(public)}, which is not trusted", path)
    return fingerprint(public)


def _required(environ: Mapping[str, str]) -> bool:
    word = variable(environ, POLICY) or "optional"
    if word not in ("optional", "required"):
        raise OctcError("OCT-E104", f"{POLICY}={word}", hint="optional or required", place=POLICY)
    return word == "required"


def _refused(message: str, place: Path) -> OctcError:
    hint = "copy the artifact again from where it was signed: octc artifact verify says by whom"
    return OctcError("OCT-E507", message, hint=hint, place=str(place))


def _read(path: Path) -> tuple[bytes, str, bytes]:
    try:
        found = convert(read_json(path, LARGEST), SignatureFile, path)
        return found.public_key, found.manifest_sha256, found.signature
    except (OSError, ValueError) as error:
        raise _refused(f"signature cannot be read: {error}", path) from error


def _verify(public: bytes, signature: bytes, manifest_sha256: str, path: Path) -> None:
    need("cryptography")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, PREFIX + manifest_sha256.encode())
    except (InvalidSignature, ValueError) as error:
        raise _refused("signature is not valid", path) from error


def _private_key(path: Path, password: str | None) -> Any:
    need("cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None if password is None else password.encode())
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")
    except (OSError, ValueError, TypeError) as error:
        raise OctcError("OCT-E507", f"key cannot be used: {error}", hint=MAKE_KEY, place=str(path)) from error
    return key


def _public_key(path: Path) -> bytes:
    need("cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("not an Ed25519 key")
    except (OSError, ValueError) as error:
        raise OctcError("OCT-E507", f"trusted key cannot be read: {error}", hint=PUBLIC_KEY, place=str(path)) from error
    return key.public_bytes_raw()
