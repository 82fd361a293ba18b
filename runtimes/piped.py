"""What stands on standard input, where `-` is among the inputs of `octc predict`: one picture or volume, or names of files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from octc.runtimes.inputs import is_volume
from octc.runtimes.model_kind import is_picture

LISTED = 64 << 20  # bytes of a list of names
LONGEST = 4096  # bytes of a name


def with_names(words: Sequence[str], kept: Path | None) -> list[str]:
    """The words; in place of the file that keeps the standard input the names that it lists, where it lists names.

    Content decides: a picture or volume is one input. Else it is a list where its text names files that are here, one a line or
    with a zero byte between them, as find and git write them. Everything else is one input, whose record says what is wrong.
    """
    if kept is None or str(kept) not in words or is_picture(kept) or is_volume(kept):
        return list(words)
    at = list(words).index(str(kept))
    return [*words[:at], *(_listed(kept) or [str(kept)]), *words[at + 1 :]]


def _listed(held: Path) -> list[str]:
    """Names of files, where the text lists such; else none."""
    if held.stat().st_size > LISTED:
        return []
    data = held.read_bytes()
    parts = data.split(b"\0") if b"\0" in data else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    names = [part for part in parts if part]
    if any(len(name) > LONGEST for name in names):
        return []
    decoded = [os.fsdecode(name) for name in names]
    return decoded if any(os.path.lexists(name) for name in decoded) else []
