"""Any data set with a table beside its images: the columns path, label, patient, and part where there is an official test,
under any of their usual names, separated by commas, semicolons or tabs (octc/datasets/tables.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from octc.core.errors import OctcError
from octc.datasets.base import UNLISTED, Finding, Progress, Sample, Samples, unlisted
from octc.datasets.layouts.csv_table import leaves
from octc.datasets.layouts.folders import check_link, check_train, sums_of
from octc.datasets.parts import READ_AS, part_of
from octc.datasets.patient_rules import alike
from octc.datasets.patients import given
from octc.datasets.tables import HINT, Record, columns_of, read_columns, refuse_lines, resolver
from octc.datasets.tree import Left, has_file, litter, names_in, open_tree
from octc.imaging.preprocess import SUFFIXES

NAME = "labels.csv"  # taken when a folder holds several tables
COLUMNS = ("path", "label", "patient")


def find_csv(root: Path) -> Path | None:
    """labels.csv in the root, else the only table there that has the columns."""
    if has_file(root / NAME):
        return root / NAME
    tables = [
        root / name
        for name in names_in(root)
        if name.lower().endswith((".csv", ".tsv")) and not litter(name) and _has_columns(root / name)
    ]
    return tables[0] if len(tables) == 1 else None


def _has_columns(table: Path) -> bool:
    if not has_file(table):
        return False
    try:
        found = columns_of(table)
    except OctcError:
        return False
    return all(found[column] is not None for column in COLUMNS)


def scan_csv(root: Path, classes: Sequence[str] | None, progress: Progress | None = None) -> Samples:
    """The images that the table names, and only these. An empty patient (or "unknown", "NA", ...) is one that is not known.

    Paths are relative to the root; one that is not there is looked for by its last folders and its name, so that absolute paths
    of another machine, names without folders and names without an ending are found where only one image fits.

    Classes are the labels in sorted order unless given. A file that is not there keeps an empty sum and is refused by name
    when it is decoded.

    Raises:
        OctcError: E230 no table, E209 lines that cannot be used, E205 a path that leaves the root, E206 fewer than two
            classes, E207 a class of test that train lacks, E231 folders that cannot be read.
    """
    tree = open_tree(root)
    find = _finder(tree.images)
    table = find_csv(root)
    if table is None:
        text = f"no table of images in {root}, or several and none is {NAME}"
        raise OctcError("OCT-E230", text, hint=f"{NAME}: {HINT}", place=str(root))
    records = [(line, _found(cells, find)) for line, cells in read_columns(table, COLUMNS, optional=("part",))]
    split = any(cells.get("part") for _, cells in records)
    names = tuple(classes or sorted({cells["label"] for _, cells in records if cells["label"]}))
    if len(names) < 2:
        raise OctcError("OCT-E206", f"{len(names)} classes in the table, at least two are needed", hint=HINT, place=str(table))
    first, again = _by_path(table, records, names, split)
    for path in first:
        if (root / path).is_symlink() or (root / path).exists():
            check_link(root / path, root.resolve())
    sums = sums_of([root / path for path in first], progress)
    items = [
        Sample(path, names.index(cells["label"]), given(cells["patient"]), READ_AS[_part(cells)] if split else None, digest)
        for (path, cells), digest in zip(first.items(), sums, strict=True)
    ]
    if empty := [name for k, name in enumerate(names) if not any(s.label == k for s in items)]:
        raise OctcError("OCT-E206", f"no image of {', '.join(empty)} in the table", hint=HINT, place=str(table))
    if split:
        train, test = ({names[s.label] for s in items if s.part == part} for part in ("train", "test"))
        check_train(train, test, root)
    text = f"{len(again)} lines name an image again"
    unread = tuple(Left(path, UNLISTED) for path in tree.images if path not in first)
    spelt = (*alike("labels", names), *alike("patients", [s.patient for s in items if s.patient is not None]))
    double = (Finding("OCT-W218", text, again, "remove the lines"),) if again else ()
    notes = (*double, *spelt, *unlisted(unread, table.name))
    return Samples(root, names, tuple(sorted(items, key=lambda s: s.path)), notes=notes, unread=unread, tree=tree)


def _finder(images: Sequence[str]) -> Callable[[str], str | None]:
    """Which image a cell means, where it names none as it is written."""
    known, by_end = frozenset(images), resolver(images)

    def find(cell: str) -> str | None:
        return None if _path({"path": cell}) in known and not cell.startswith("/") else by_end(cell)

    return find


def _found(cells: dict[str, str], find: Callable[[str], str | None]) -> dict[str, str]:
    other = find(cells["path"])
    return cells if other is None else {**cells, "path": other}


def _by_path(
    table: Path, records: Sequence[Record], names: Sequence[str], split: bool
) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """Path -> cells of its first line, and the lines that say the same again. Raises E209 with every line that is wrong."""
    first: dict[str, dict[str, str]] = {}
    problems, again = [], []
    for line, cells in records:
        why = _why_unusable(cells, names, split)
        before = first.setdefault(_path(cells), cells)
        if not why and before is not cells:
            if _meaning(before) != _meaning(cells):
                why = f"{cells['path']} stood above with another label, patient or part"
            again.append(f"line {line}: {cells['path']}")
        if why:
            problems.append(f"line {line}: {why}")
    refuse_lines(table, problems, HINT)
    return first, tuple(again)


def _path(cells: dict[str, str]) -> str:
    """As it is written, with forward slashes and without a leading "./"."""
    return "/".join(part for part in cells["path"].replace("\\", "/").split("/") if part not in ("", "."))


def _meaning(cells: dict[str, str]) -> tuple[str, str, str]:
    return cells["label"], given(cells["patient"]) or "", _part(cells)


def _why_unusable(cells: dict[str, str], names: Sequence[str], split: bool) -> str:
    if not _path(cells) or leaves(cells["path"]) or cells["path"].startswith("/") or ":" in cells["path"][:2]:
        return f"path {cells['path']!r} is no path below the table's folder"
    if Path(cells["path"]).suffix.lower() not in SUFFIXES:
        return f"path {cells['path']!r} is no image by its name"
    if cells["label"] not in names:
        return f"label {cells['label']!r} is none of {', '.join(names)}"
    if split and _part(cells) not in READ_AS:
        return f"part {cells['part']!r} is none of {', '.join(READ_AS)}"
    return ""


def _part(cells: dict[str, str]) -> str:
    """ "train", "val" or "test" however a cell spells it, else as it is written."""
    text = cells.get("part", "")
    return part_of(text) or text
