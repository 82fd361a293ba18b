"""The verdict of `octc verify` that is printed beside every speed: of the same files, or none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.store.artifacts import MANIFEST, artifact_sha256
from octc.store.find import Found
from octc.store.verdicts import FILE, MARK, headline, is_exploratory, on_test, read_verdict, reference_sum

WORDS = ("equivalent", "non_inferior", "inconclusive", "inferior", "fail", "golden_only")
NONE = "not_verified"
REFERENCE = "reference"  # it was measured beside the others as what they are compared with


@dataclass(frozen=True)
class Stored:
    """The word of a stored verdict, and whether it was not planned."""

    word: str
    exploratory: bool = False

    @property
    def shown(self) -> str:
        """For people: "non inferior (exploratory)"."""
        return self.word.replace("_", " ") + (MARK if self.exploratory else "")


def stored_verdict(found: Found) -> Stored:
    """What was found on the test set, else on the golden images, if verify.json is about these very files; "reference" for
    what another artifact beside it was compared with; else "not_verified".

    What was shown on the select set chose the artifact, and says nothing here.
    """
    mine = artifact_sha256(found.folder)
    known = headline(_read(found.folder, mine), ("test", "golden"))
    if known is not None and known["verdict"]["word"] in WORDS:
        return Stored(str(known["verdict"]["word"]), is_exploratory(known))
    return Stored(REFERENCE) if _is_reference(found, mine) else Stored(NONE)


def _read(folder: Path, sha256: str) -> dict[str, Any] | None:
    """A stored verdict; none where a newer octc wrote it: minutes of timing are not lost for that."""
    try:
        return read_verdict(folder, sha256)
    except OctcError:
        return None


def _is_reference(found: Found, sha256: str) -> bool:
    """Whether an artifact beside this one was compared with it on the test set."""
    around = found.folder.parent if found.folder.name else found.folder.resolve().parent
    for path in sorted(around.glob(f"*/{FILE}")):
        manifest = path.parent / MANIFEST
        beside = _read(path.parent, sha256_file(manifest)) if manifest.is_file() else None
        for document in on_test(beside):
            claims = (document, *document.get("claims", ()))
            if any(reference_sum(one) == sha256 for one in claims if isinstance(one, dict)):
                return True
    return False
