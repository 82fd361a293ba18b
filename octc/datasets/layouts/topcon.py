"""TOPCON-MM: OCT and fundus images of the same eyes with eleven labels (several per image) in text files.

    {train,val,test}/{cfp,oct}.txt                       lines: name without extension, then a 0 or 1 for each class
    train/Images/{fundus_images,oct_images}/NAME.png     all images of all parts; the folders may be spelt with a hyphen

The first two hyphen-separated fields of a name are the eye; the first is the patient, unless it is a date. A name without a
hyphen gives neither. The val lists are read as train: validation images are drawn again, by patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from octc.core.errors import OctcError
from octc.datasets.base import PLAIN, Progress, Reading, Samples
from octc.datasets.layouts.paired import Row, make_samples
from octc.datasets.parts import READ_AS, part_folders
from octc.datasets.patients import without_dates
from octc.datasets.tables import refuse_lines
from octc.datasets.tree import has_file, has_folder, open_tree

CLASSES = ("NOR", "AMD", "WAMD", "DR", "CSC", "PED", "MEM", "FLD", "EXU", "CNV", "RVO")
LISTS = {"fundus": "cfp.txt", "oct": "oct.txt"}
FOLDERS = {"fundus": ("fundus_images", "fundus-images"), "oct": ("oct_images", "oct-images")}
MOST_BYTES = 64 << 20
HINT = "each line: NAME, then a 0 or 1 for each class, between single spaces"


def find_topcon(root: Path) -> bool:
    """Whether a folder has this layout."""
    train = root / part_folders(root).get("train", "train")
    return all(has_file(train / name) for name in LISTS.values()) and has_folder(train / "Images")


def scan_topcon(
    root: Path, classes: Sequence[str] | None, progress: Progress | None = None, reading: Reading = PLAIN
) -> Samples:
    """Scan all images in the lists.

    Raises:
        OctcError: E230 another layout; E209 unusable lines; and the errors of `make_samples`.
    """
    tree = open_tree(root, reading.links)
    if not find_topcon(root):
        text = f"no data set of the TOPCON-MM layout under {root}"
        raise OctcError("OCT-E230", text, hint="--data DIR with train/{cfp,oct}.txt and train/Images/ in it", place=str(root))
    names = tuple(classes or CLASSES)
    parts = part_folders(root)
    rows = [row for modality in LISTS for kind in READ_AS for row in _rows(root, modality, kind, parts, names)]
    people = without_dates([row.patient for row in rows])
    known = [row if one else replace(row, eye=None, patient=None) for row, one in zip(rows, people, strict=True)]
    return make_samples(tree, names, known, progress=progress)


def folder_of(root: Path, modality: str, train: str = "train") -> Path:
    """The image folder of a modality, in either spelling (OctcError E206: missing). train: name of the train folder."""
    for name in FOLDERS[modality]:
        if (root / train / "Images" / name).is_dir():
            return root / train / "Images" / name
    text = f"no folder {' or '.join(FOLDERS[modality])} under train/Images"
    raise OctcError("OCT-E206", text, hint="unpack the whole archive", place=str(root))


def _rows(root: Path, modality: str, kind: str, parts: Mapping[str, str], classes: Sequence[str]) -> Iterator[Row]:
    table = root / parts.get(kind, kind) / LISTS[modality]
    if not table.is_file():
        return
    folder = folder_of(root, modality, parts["train"]).relative_to(root).as_posix()
    problems, rows = [], []
    for number, line in enumerate(read_lines(table), 1):
        name, *marks = line.split(" ")
        if len(marks) != len(classes) or set(marks) - {"0", "1"} or unsafe(name):
            problems.append(f"line {number}: {line[:80]!r}")
            continue
        targets = tuple(k for k, mark in enumerate(marks) if mark == "1")
        fields = name.split("-")
        patient = fields[0] if len(fields) > 1 and fields[0] else None
        rows.append(Row(f"{folder}/{name}.png", targets, "-".join(fields[:2]), patient, modality, READ_AS[kind]))
    refuse_lines(table, problems, f"{HINT} ({len(classes)} classes)")
    yield from rows


def read_lines(table: Path) -> list[str]:
    """The non-empty lines of a list (OctcError E209: it cannot be read)."""
    try:
        if table.stat().st_size > MOST_BYTES:
            raise ValueError(f"{table.stat().st_size} bytes, the limit is {MOST_BYTES}")
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise OctcError(
            "OCT-E209", f"list cannot be read: {error}", hint="unpack the archive again", place=str(table)
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def unsafe(name: str) -> bool:
    """Whether a name in a list is empty or points outside its folder."""
    return not name or "/" in name or "\\" in name or name in (".", "..") or not name.isprintable()
