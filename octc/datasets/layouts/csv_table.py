"""Tables with stated columns as people write them: every line that cannot be used is named, none is guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from octc.core.cells import trimmed
from octc.core.errors import OctcError
from octc.datasets.tables import check_cells, rows_of

Record = tuple[int, dict[str, str]]  # line number, column -> cell, without surrounding blanks


def read_table(path: Path, columns: Sequence[str], hint: str) -> list[Record]:
    """The lines below the header. Columns that are not asked for are passed over.

    Raises:
        OctcError: E209 not UTF-8, no table, a column is missing or stands there twice, a line has too few or too many cells.
    """
    lines = rows_of(path, hint)
    header = [trimmed(name) for name in lines[0][1]] if lines else []
    if absent := [name for name in columns if header.count(name) != 1]:
        text = f"columns missing or doubled: {', '.join(absent)}; the table has {', '.join(header) or 'no line'}"
        raise OctcError("OCT-E209", text, hint=hint, place=f"{path}:1")
    check_cells(header, lines, path, "the separator")
    return [(line, dict(zip(header, map(trimmed, row), strict=True))) for line, row in lines[1:]]


def key_of(text: str) -> str:
    """A path for comparing: either slash, lower case, no blanks or dots at the ends of its parts (Windows drops them)."""
    parts = (part.strip().rstrip(". ").lower() for part in re.split(r"[\\/]+", text))
    return "/".join(part for part in parts if part)


def leaves(text: str) -> bool:
    """Whether a path in a table leads upwards."""
    return any(part.strip() == ".." for part in re.split(r"[\\/]+", text)) or "\0" in text
