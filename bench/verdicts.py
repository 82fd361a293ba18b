"""The verdict of `octc verify` that stands beside every speed: of the same files, or none."""

from __future__ import annotations

from octc.artifact import MANIFEST
from octc.bench.verify_files import read_verdict
from octc.files import sha256_file
from octc.find import Found

WORDS = ("equivalent", "non_inferior", "inconclusive", "inferior", "fail", "golden_only")
NONE = "not_verified"


def artifact_sum(found: Found) -> str:
    """The sum that stands for an artifact: of its manifest, which holds the sums of all its files."""
    return sha256_file(found.folder / MANIFEST)


def verdict_word(found: Found) -> str:
    """The word on the test set, else on the golden images, if verify.json is about these very files; else "not_verified".

    What was shown on the select set chose the artifact, and says nothing here.
    """
    known = read_verdict(found.folder, artifact_sum(found))
    for key in ("test", "golden"):
        if known is not None and known[key] is not None and known[key]["verdict"]["word"] in WORDS:
            return str(known[key]["verdict"]["word"])
    return NONE
