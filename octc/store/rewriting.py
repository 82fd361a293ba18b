"""Facts of an artifact that are written after its export: into the manifest, which is replaced in one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.faults import writing_to
from octc.core.files import write_json
from octc.store.artifacts import MANIFEST, Artifact, read_artifact
from octc.store.oms import SIGNATURE as OMS
from octc.store.runs import alone
from octc.store.signature import SIGNATURE


def rewrite_details(folder: Path, details: Mapping[str, Any], read: Artifact | None = None, *, force: bool = False) -> Artifact:
    """Replace entries of the manifest's details (None: take away); the artifact as it is now.

    The checksum of the manifest is the artifact's identity: verdicts and timings of the old one are not those of the new one.

    Args:
        read: the artifact that the entries were derived from, as it was read then; None: as it is now.
        force: also where the artifact is signed. Its signatures (of either format) are of the old manifest, and are deleted
            first.

    Raises:
        OctcError: E106 it is signed, E108 it is another one than was read (what somebody else stored would be lost), E109 the
            folder cannot be written, and what `read_artifact` raises.
    """
    with alone(folder):
        return _rewritten(folder, details, read, force=force)


def _rewritten(folder: Path, details: Mapping[str, Any], read: Artifact | None, *, force: bool) -> Artifact:
    artifact = read_artifact(folder)
    if read is not None and artifact != read:
        text = f"{artifact.name} was changed by another process meanwhile, and nothing was stored in it"
        raise OctcError("OCT-E108", text, hint="give the command again, when the other one has ended", place=str(folder))
    signatures = [path for name in (SIGNATURE, OMS) if (path := folder / name).exists()]
    if signatures and not force:
        text = f"{artifact.name} is signed, and other rules are another artifact"
        raise OctcError("OCT-E106", text, hint="--force, then octc artifact sign", place=str(signatures[0]))
    kept = {name: value for name, value in artifact.details.items() if name not in details}
    new = replace(artifact, details={**kept, **{name: value for name, value in details.items() if value is not None}})
    with writing_to(folder):
        for path in signatures:
            path.unlink(missing_ok=True)  # a crash from here on leaves an unsigned artifact, never one with a false signature
        write_json(folder / MANIFEST, new.to_json())
    return read_artifact(folder)
