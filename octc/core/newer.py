"""Refusal of documents written by a newer octc."""

from __future__ import annotations

from typing import Any

from octc.core.cells import digits_of
from octc.core.errors import OctcError

HINT = "pip install -U octc   (a newer octc wrote it and reads it)"


def refuse_newer(stated: Any, reads: str, what: str = "it", place: str | None = None) -> None:
    """Refuse a format version newer than this octc reads; other versions are left to the caller.

    Args:
        stated: as the document has it ("2.0"). reads: the highest that this octc reads. what: the document, for the message.

    Raises:
        OctcError: E509.

    >>> refuse_newer("1.0", "1.0"), refuse_newer("one", "1.0"), refuse_newer(None, "1.0")
    (None, None, None)
    """
    found = _numbers(stated)
    if found is not None and found > (_numbers(reads) or ()):
        raise newer(f"{what} has format {stated}, this octc reads {reads}", place)


def newer(text: str, place: str | None = None) -> OctcError:
    """The error for a document that a newer octc wrote (E509)."""
    return OctcError("OCT-E509", text, hint=HINT, place=place)


def _numbers(version: Any) -> tuple[int, ...] | None:
    if isinstance(version, bool) or not isinstance(version, (str, int, float)):
        return None
    parts = [digits_of(part) for part in str(version).split(".")]
    return None if None in parts else tuple(part for part in parts if part is not None)
