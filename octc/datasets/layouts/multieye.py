"""MultiEYE: fundus images and OCT B-scans of nine classes, unpaired.

    assemble/{train,dev,test}/large9cls.txt        fundus: lines "NAME CLASS"; images in train/ImageData/cfp-clahe-224x224/
    assemble_oct/{train,dev,test}/large9cls.txt    OCT: images in train/ImageData/oct-filter-448x448/

File names contain neither patient nor eye, so leakage between images cannot be excluded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from octc.core.errors import OctcError
from octc.datasets.base import PLAIN, Progress, Reading, Samples
from octc.datasets.layouts.paired import Row, make_samples
from octc.datasets.layouts.topcon import read_lines, unsafe
from octc.datasets.parts import READ_AS, part_folders
from octc.datasets.tables import refuse_lines
from octc.datasets.tree import has_file, open_tree

CLASSES = ("NOR", "AMD", "CSC", "DR", "GLC", "MEM", "MYO", "RVO", "WAMD")
FOLDERS = {"fundus": ("assemble", "cfp-clahe-224x224"), "oct": ("assemble_oct", "oct-filter-448x448")}
LIST = "large9cls.txt"


def find_multieye(root: Path) -> bool:
    """Whether a folder has this layout."""
    tops = [root / top for top, _ in FOLDERS.values()]
    return all(has_file(top / part_folders(top).get("train", "train") / LIST) for top in tops)


def scan_multieye(
    root: Path, classes: Sequence[str] | None, progress: Progress | None = None, reading: Reading = PLAIN
) -> Samples:
    """Scan all images in the lists; dev is read as train.

    Raises:
        OctcError: E230 another layout; E209 unusable lines; and the errors of `make_samples`.
    """
    tree = open_tree(root, reading.links)
    if not find_multieye(root):
        text = f"no data set of the MultiEYE layout under {root}"
        raise OctcError(
            "OCT-E230", text, hint=f"--data DIR with assemble/ and assemble_oct/, each with train/{LIST}", place=str(root)
        )
    names = tuple(classes or CLASSES)
    rows = [row for modality in FOLDERS for kind in READ_AS for row in _rows(root, modality, kind, len(names))]
    return make_samples(tree, names, rows, exclusive=True, progress=progress)


def _rows(root: Path, modality: str, kind: str, classes: int) -> Iterator[Row]:
    top, folder = FOLDERS[modality]
    parts = part_folders(root / top)
    table = root / top / parts.get(kind, kind) / LIST
    if not table.is_file():
        return
    problems, rows = [], []
    for number, line in enumerate(read_lines(table), 1):
        name, _, mark = line.rpartition(" ")
        stem = name.removesuffix(".png")
        if unsafe(stem) or not mark.isdecimal() or int(mark) >= classes:
            problems.append(f"line {number}: {line[:80]!r}")
            continue
        path = f"{top}/{parts['train']}/ImageData/{folder}/{stem}.png"
        rows.append(Row(path, (int(mark),), None, None, modality, READ_AS[kind]))
    refuse_lines(table, problems, f"each line: NAME, a space, a class from 0 to {classes - 1}")
    yield from rows
