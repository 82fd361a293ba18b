"""Reads tables with fixed columns; all unusable lines are reported, and nothing is guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from octc.core.cells import trimmed
from octc.core.errors import OctcError
from octc.datasets.tables import check_cells, rows_of

Record = tuple[int, dict[str, str]]  # line number, column -> stripped cell


def read_table(path: Path, columns: Sequence[str], hint: str) -> list[Record]:
    """Read the lines below the header; other columns are ignored.

    Raises:
        OctcError: E209 not UTF-8, not a table, a missing or duplicated column, or a line with another number of cells.
    """
    lines = rows_of(path, hint)
    header = [trimmed(name) for name in lines[0][1]] if lines else []
    if absent := [name for name in columns if header.count(name) != 1]:
        text = f"columns missing or doubled: {', '.join(absent)}; the table has {', '.join(header) or 'no line'}"
        raise OctcError("OCT-E209", text, hint=hint, place=f"{path}:1")
    check_cells(header, lines, path, "the separator")
    return [(line, dict(zip(header, map(trimmed, row), strict=True))) for line, row in lines[1:]]


def key_of(text: str) -> str:
    """A path normalised for comparison: forward slashes, lower case, no blanks or dots at the ends of names (as on Windows)."""
    parts = (part.strip().rstrip(". ").lower() for part in re.split(r"[\\/]+", text))
    return "/".join(part for part in parts if part)


def leaves(text: str) -> bool:
    """Whether a path in a table contains ".." or a null byte."""
    return any(part.strip() == ".." for part in re.split(r"[\\/]+", text)) or "\0" in text
