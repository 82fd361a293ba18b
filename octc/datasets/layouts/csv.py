"""Data sets with a table: columns path and label, optionally patient and split, under usual names or those of `--column`,
separated by commas, semicolons or tabs (octc/datasets/tables.py)."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path

from octc.core.cells import given
from octc.core.errors import OctcError, shorten
from octc.datasets.base import PLAIN, UNLISTED, Finding, Progress, Reading, Sample, Samples, unlisted
from octc.datasets.layouts.csv_table import leaves
from octc.datasets.layouts.folders import check_train, sums_of
from octc.datasets.parts import READ_AS, part_of
from octc.datasets.patient_rules import alike, doubtful
from octc.datasets.tables import (
    ENDINGS,
    HINT,
    NONE,
    Record,
    classes_of,
    columns_of,
    hint_of,
    read_columns,
    refuse_lines,
    resolver,
)
from octc.datasets.tree import Left, Tree, has_file, has_folder, litter, names_in, open_tree
from octc.imaging.decode import SUFFIXES

NAME = "labels.csv"  # preferred if a folder contains several tables
COLUMNS = ("path", "label")
ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]|\\\\")


def find_csv(root: Path, stated: Mapping[str, str] = NONE) -> Path | None:
    """Find the table: `root` itself, else labels.csv in the root, else the only table in it with the required columns
    (preferring one with a patient column)."""
    if has_file(root):
        return root
    if has_file(root / NAME):
        return root / NAME
    names = [name for name in names_in(root) if name.lower().endswith(ENDINGS[:2]) and not litter(name)]
    for columns in ((*COLUMNS, "patient"), COLUMNS):
        fit = [root / name for name in names if _has_columns(root / name, columns, stated)]
        if fit:
            return fit[0] if len(fit) == 1 else None
    return root / names[0] if stated and len(names) == 1 else None  # reading it reports the missing column


def is_table(root: Path) -> bool:
    """Whether a folder (or file) is a data set with a table. If there are class folders, a table without a patient column does
    not count, since it may describe anything."""
    table = find_csv(root)
    if table is None or table == root or table.name == NAME:
        return table is not None
    folders = [name for name in names_in(root) if has_folder(root / name) and not litter(name)]
    return len(folders) < 2 or _has_columns(table, (*COLUMNS, "patient"))


def _has_columns(table: Path, columns: Sequence[str], stated: Mapping[str, str] = NONE) -> bool:
    if not has_file(table):
        return False
    try:
        found = columns_of(table, stated)
    except OctcError:
        return False
    return all(found[column] is not None for column in columns)


def scan_csv(root: Path, classes: Sequence[str] | None, progress: Progress | None = None, reading: Reading = PLAIN) -> Samples:
    """Scan the images that the table lists, and only these. The patient is unknown if the cell is empty (or "unknown", "NA",
    ...) or there is no such column.

    Paths are relative to the table's folder, or to one of `reading.roots`. A missing path is searched by its last folders and
    name, so that absolute paths of another machine, names without folders and names without extension are found if exactly
    one image matches. With several roots, sample paths are relative to their common parent folder.

    Classes are the sorted labels unless given. A missing file gets an empty SHA-256 and is reported when it is decoded. A split
    in the table ("train", "val", "test") is used.

    Raises:
        OctcError: E230 no table; E209 unusable lines; E205 a path outside the root; E206 fewer than two classes; E207 a class
            of test is absent from train; E231 folders that cannot be read.
    """
    table = find_csv(root, reading.columns)
    if table is None:
        if not has_folder(root):
            open_tree(root)  # says why
        text = f"no table of images in {root}, or several and none is {NAME}"
        raise OctcError("OCT-E230", text, hint=f"--data TABLE.csv, or {NAME}: {HINT}", place=str(root))
    tree = _open(reading.roots or (table.parent,), reading.links)
    find = _finder(tree, stated=bool(reading.roots))
    lines = read_columns(table, COLUMNS, ("patient", "part", "site"), reading.columns)
    records = [(line, _found({"patient": "", **cells}, find)) for line, cells in lines]
    split = any(cells.get("part") for _, cells in records)
    names = tuple(classes or classes_of(records))
    if len(names) < 2:
        raise OctcError("OCT-E206", f"{len(names)} classes in the table, at least two are needed", hint=HINT, place=str(table))
    first, again = _by_path(table, records, names, split)
    base = tree.root
    for path in first:
        if (base / path).is_symlink() or (base / path).exists():
            tree.check_link(path)
    sums = sums_of([base / path for path in first], progress)
    items = [
        Sample(
            path,
            names.index(cells["label"]),
            given(cells["patient"]),
            _part(cells) if split else None,
            digest,
            site=given(cells.get("site", "")),
        )
        for (path, cells), digest in zip(first.items(), sums, strict=True)
    ]
    if empty := [name for k, name in enumerate(names) if not any(s.label == k for s in items)]:
        raise OctcError("OCT-E206", f"no image of {', '.join(empty)} in the table", hint=HINT, place=str(table))
    if split:
        train = {names[s.label] for s in items if s.part != "test"}
        check_train(train, {names[s.label] for s in items if s.part == "test"}, root)
    text = f"{len(again)} lines name an image again"
    unread = tuple(Left(path, UNLISTED) for path in tree.images if path not in first)
    spelt = (*alike("labels", names), *doubtful([s.patient for s in items if s.patient is not None]))
    double = (Finding("OCT-W218", text, again, "remove the lines"),) if again else ()
    notes = (*double, *spelt, *unlisted(unread, table.name))
    return Samples(base, names, tuple(sorted(items, key=lambda s: s.path)), notes=notes, unread=unread, tree=tree)


def _open(roots: Sequence[Path], links: Sequence[Path] | None) -> Tree:
    """Walk through all image folders, from their common parent folder."""
    whole = [_absolute(root) for root in roots]
    if len(whole) == 1:
        return open_tree(roots[0], links)
    top = Path(os.path.commonpath(whole))
    for root in whole:
        if not has_folder(root):
            open_tree(root)  # says why
    apart = [one for one in dict.fromkeys(whole) if not any(one != other and one.is_relative_to(other) for other in whole)]
    return open_tree(top, links, [one.relative_to(top).as_posix() if one != top else "" for one in apart])


def _absolute(path: str | Path) -> Path:
    """The absolute path, without ".." and without resolving links."""
    return Path(os.path.normpath(Path(path).absolute()))


Find = Callable[[str], "tuple[str | None, str]"]


def _finder(tree: Tree, *, stated: bool) -> Find:
    """Make a function from a table cell to (image or None, reason if it is ambiguous).

    stated: the user gave image folders, so that absolute paths of another machine may be searched in them.
    """
    several: dict[str, list[str]] = {}
    known, by_end = frozenset(tree.images), resolver(tree.images, several.__setitem__)
    tops = {_absolute(tree.root), tree.root.resolve()}

    def doubt(cell: str) -> str:
        fits = several.get(cell)
        return f"path {cell!r} fits several images: {shorten(fits, 3)}" if fits else ""

    def find(cell: str) -> tuple[str | None, str]:
        plain = _path({"path": cell})
        if not ABSOLUTE.match(cell):
            return (None if plain in known else by_end(cell)), "" if "/" in plain else doubt(cell)  # else: a missing file
        here = _absolute(cell)
        for place, top in product((here, here.parent.resolve() / here.name), tops):
            if place.is_relative_to(top) and (inside := place.relative_to(top).as_posix()) in known:
                return inside, ""
        if has_file(here) and not stated:
            return None, f"path {cell!r} lies outside of {tree.root}: --image-root {shlex.quote(str(here.parent))}"
        return by_end(cell), doubt(cell)

    return find


def _found(cells: dict[str, str], find: Find) -> dict[str, str]:
    other, why = find(cells["path"])
    return {**cells, "why": why} if other is None else {**cells, "path": other}


def _by_path(
    table: Path, records: Sequence[Record], names: Sequence[str], split: bool
) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """Path -> cells of its first line, and the repeated lines. OctcError E209 lists all invalid lines."""
    first: dict[str, dict[str, str]] = {}
    problems, again = [], []
    for line, cells in records:
        why = _why_unusable(cells, names, split)
        before = first.setdefault(_path(cells), cells)
        if not why and before is not cells:
            if _meaning(before) != _meaning(cells):
                why = f"{cells['path']} stood above with another label, patient, split or site"
            again.append(f"line {line}: {cells['path']}")
        if why:
            problems.append(f"line {line}: {why}")
    refuse_lines(table, problems, hint_of(records))
    return first, tuple(again)


def _path(cells: dict[str, str]) -> str:
    """The path of a line with forward slashes, without a leading "./"."""
    return "/".join(part for part in cells["path"].replace("\\", "/").split("/") if part not in ("", "."))


def _meaning(cells: dict[str, str]) -> tuple[str, ...]:
    return cells["label"], given(cells["patient"]) or "", _part(cells), given(cells.get("site", "")) or ""


def _why_unusable(cells: dict[str, str], names: Sequence[str], split: bool) -> str:
    if cells.get("why"):
        return cells["why"]
    if not _path(cells) or leaves(cells["path"]) or cells["path"].startswith("/") or ":" in cells["path"][:2]:
        return f"path {cells['path']!r} is no path below the table's folder"
    if Path(cells["path"]).suffix.lower() not in SUFFIXES:
        return f"path {cells['path']!r} is no image by its name"
    if cells["label"] not in names:
        return f"label {cells['label']!r} is none of {', '.join(names)}"
    if split and _part(cells) not in READ_AS:
        return f"split {cells.get('part', '')!r} is none of {', '.join(READ_AS)}"
    return ""


def _part(cells: dict[str, str]) -> str:
    """ "train", "val" or "test", in any usual spelling; any other cell unchanged."""
    text = cells.get("part", "")
    return part_of(text) or text
