"""The site's secret, under which the identity of a patient is hashed (`octc.volumes.volume.patient_hash`)."""

from __future__ import annotations

from pathlib import Path

from octc.core.errors import OctcError

LEAST = 16  # bytes


def read_identity_key(path: Path) -> bytes:
    """The secret in a file, without surrounding blanks (OctcError E104 where there is none, or a short one)."""
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise OctcError(
            "OCT-E104", f"--identity-key: {error.strerror}", hint="a file that can be read", place=str(path)
        ) from error
    if len(key) < LEAST:
        hint = f"head -c 32 /dev/urandom | base64 > {path}"
        raise OctcError("OCT-E104", f"a key of {len(key)} bytes", hint=hint, place=str(path))
    return key
