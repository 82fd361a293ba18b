"""The stored verdict of `octc verify` to print with every speed; it must be about the same files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.store.artifacts import MANIFEST
from octc.store.find import Found
from octc.store.verdicts import FILE, MARK, headline, is_exploratory, on_test, read_verdict, reference_sum

WORDS = ("equivalent", "non_inferior", "inconclusive", "inferior", "fail", "golden_only")
NONE = "not_verified"
REFERENCE = "reference"  # the artifact is the reference of the comparison


@dataclass(frozen=True)
class Stored:
    """A stored verdict, and whether it is exploratory."""

    word: str
    exploratory: bool = False

    @property
    def shown(self) -> str:
        """As text: "non inferior (exploratory)"."""
        return self.word.replace("_", " ") + (MARK if self.exploratory else "")


def stored_verdict(found: Found) -> Stored:
    """The verdict on the test set, else on the golden images, if verify.json is about the same files; "reference" for the
    reference of another artifact's verdict; else "not_verified".

    Verdicts on the validation set do not count here, because that set was used to choose the artifact.
    """
    mine = found.artifact.sha256
    known = headline(_read(found.folder, mine), ("test", "golden"))
    if known is not None and known["verdict"]["word"] in WORDS:
        return Stored(str(known["verdict"]["word"]), is_exploratory(known))
    return Stored(REFERENCE) if _is_reference(found, mine) else Stored(NONE)


def _read(folder: Path, sha256: str) -> dict[str, Any] | None:
    """Read a stored verdict; None if a newer octc wrote it, so that the bench does not fail after minutes."""
    try:
        return read_verdict(folder, sha256)
    except OctcError:
        return None


def _is_reference(found: Found, sha256: str) -> bool:
    """Whether another artifact in the same folder was compared with this one on the test set."""
    around = found.folder.parent if found.folder.name else found.folder.resolve().parent
    for path in sorted(around.glob(f"*/{FILE}")):
        manifest = path.parent / MANIFEST
        beside = _read(path.parent, sha256_file(manifest)) if manifest.is_file() else None
        for document in on_test(beside):
            claims = (document, *document.get("claims", ()))
            if any(reference_sum(one) == sha256 for one in claims if isinstance(one, dict)):
                return True
    return False
