"""Subgroups of the labelled set: the size of each picture, and every column of a table that is given (`--subgroups FILE`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from octc.bench.parity.inference import image_ids
from octc.core.csv_files import escape
from octc.core.errors import OctcError, shorten
from octc.datasets.base import Sample
from octc.datasets.pictures import picture_size
from octc.datasets.tables import check_cells, rows_of

KEYS = ("path", "sha256", "patient")  # a column of one of these names says which images a row is about
SIZE = "image size"
HINT = "a CSV file in UTF-8 with a header: path (or sha256, or patient) and the columns to look at"

Groups = Mapping[str, Mapping[str, "str | None"]]  # column -> id of an image -> its value, None where the table has none


def picture_sizes(samples: Sequence[Sample], root: Path) -> dict[str, str | None]:
    """Width and height of each picture by id, from the header of its file."""
    found: dict[str, str | None] = {}
    for one, sample in zip(image_ids(samples), samples, strict=True):
        width, height = picture_size(root, sample)
        found[one] = f"{width} x {height}"
    return found


def read_groups(path: Path, samples: Sequence[Sample]) -> dict[str, dict[str, str | None]]:
    """The columns of a CSV table for the images of a set.

    The table has a header. Its first column that is called path, sha256 or patient says which images a row is about; every
    other column makes subgroups. A path is that of the split (`octc data split`).

    Raises:
        OctcError: E209 the table cannot be read, has no such column or no other one, names an image twice with different
            values, or knows no image of the set.
    """
    header, rows = _read(path)
    key = next((name for name in header if name in KEYS), None)
    columns = [name for name in header if name not in KEYS]
    if key is None or not columns:
        text = f"needs a column {', '.join(KEYS[:-1])} or {KEYS[-1]}, and one more; it has {', '.join(header) or 'none'}"
        raise _bad(text, path)
    values: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, 2):
        name = row[key].strip()
        new = {column: row[column].strip() for column in columns}
        if values.setdefault(name, new) != new:
            raise _bad(f"{key} {name} occurs twice with different values (line {number})", path)
    found: dict[str, dict[str, str | None]] = {column: {} for column in columns}
    known = 0
    for one, sample in zip(image_ids(samples), samples, strict=True):
        name = _name(sample, key) or ""
        mine = values.get(name) or values.get(escape(name))  # as it is, or as the tables of `octc eval` write it
        known += mine is not None
        for column in columns:
            found[column][one] = (mine[column] or None) if mine else None
    if not known:
        text = f"knows no image of the set: {key} is for example {shorten(sorted(values)[:3], 3)}, in the split it is "
        raise _bad(f"{text}{shorten([_name(s, key) or 'not known' for s in samples[:3]], 3)}", path)
    return found


def _name(sample: Sample, key: str) -> str | None:
    return {"path": sample.path, "sha256": sample.sha256, "patient": sample.patient}[key]


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    lines = rows_of(path, HINT)
    header = [name.strip() for name in lines[0][1]] if lines else []
    if len(set(header)) != len(header):
        raise _bad("two columns have one name", path)
    check_cells(header, lines, path, "the separator")
    return header, [dict(zip(header, row, strict=True)) for _, row in lines[1:]]


def _bad(text: str, path: Path) -> OctcError:
    return OctcError("OCT-E209", f"table of subgroups: {text}", hint=HINT, place=str(path))
