"""From folders to samples: classes, patients, official parts, sums. Nothing is decoded here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from octc.datasets.base import Progress, Sample, Samples
from octc.errors import OctcError, shorten
from octc.files import sha256_file
from octc.image import SUFFIXES

PARTS = ("train", "test")
PATIENT = re.compile(r"^[^-]+-(\d+)-\d+(?:\D.*)?$")  # CLASS-PATIENT-INDEX


def find_ucsd(root: Path) -> Path:
    """The folder that holds train/ and test/: root/CellData/OCT, root/OCT or root itself (OctcError E230)."""
    for place in (root / "CellData" / "OCT", root / "OCT", root):
        if all((place / part).is_dir() for part in PARTS):
            return place
    text = f"no data set of the UCSD layout under {root}"
    raise OctcError("OCT-E230", text, mend="--data DIR with CellData/OCT/{train,test}/CLASS/ in it", place=str(root))


def scan_ucsd(root: Path, classes: Sequence[str] | None, progress: Progress | None = None) -> Samples:
    """CellData/OCT/{train,test}/CLASS/CLASS-PATIENT-INDEX.jpeg. The number alone is the patient (never class and number).

    Raises:
        OctcError: E206 class folders missing, empty or unexpected, E205 a link leaves the root, E230 not this layout.
    """
    top = find_ucsd(root)
    expected = tuple(classes or ())
    rows = [(part, *entry) for part in PARTS for entry in _class_files(top / part, expected, root)]
    return _samples(root, expected, rows, progress)


def scan_folder(root: Path, classes: Sequence[str] | None, progress: Progress | None = None) -> Samples:
    """Any tree: root/CLASS/..., or root/{train,test}/CLASS/... for an official test part.

    Classes are the folder names in sorted order unless given. A file named CLASS-PATIENT-INDEX gives its patient; with any
    other name an image is its own group (and `octc data check` says so).

    Raises:
        OctcError: E206 class folders missing, empty or unexpected, E207 a class of test that train lacks, E205, E230.
    """
    if not root.is_dir():
        raise OctcError("OCT-E230", f"no folder at {root}", mend="--data DIR", place=str(root))
    split = all((root / part).is_dir() for part in PARTS)
    tops: list[tuple[str | None, Path]] = [(part, root / part) for part in PARTS] if split else [(None, root)]
    found = {part: _folders(top) for part, top in tops}
    names = tuple(classes or sorted(set().union(*found.values())))
    if len(names) < 2:
        text = f"{len(names)} class folders under {root}, at least two are needed"
        raise OctcError("OCT-E206", text, mend="root/CLASS/IMAGE or root/{train,test}/CLASS/IMAGE", place=str(root))
    if split and (alone := sorted(found["test"] - found["train"])):
        raise OctcError(
            "OCT-E207", f"in test but absent from train: {shorten(alone)}", mend="add the class to train", place=str(root)
        )
    rows = [(part, *entry) for part, top in tops for entry in _class_files(top, names, root)]
    return _samples(root, names, rows, progress)


def _folders(top: Path) -> set[str]:
    return {p.name for p in top.iterdir() if p.is_dir() and not p.name.startswith(".")} if top.is_dir() else set()


def _class_files(top: Path, expected: Sequence[str], root: Path) -> Iterator[tuple[str, Path]]:
    """(class, file) of one part, sorted; refuses class folders that are missing, empty or one too many."""
    found = _folders(top)
    if found != set(expected):
        listed = ", ".join(sorted(found)) or "none"
        text = f"class folders in {top.relative_to(root)}: expected {', '.join(expected)}; found {listed}"
        raise OctcError("OCT-E206", text, mend="rename or move the folders, or use --dataset folder", place=str(top))
    for name in expected:
        files = sorted(_images(top / name, root), key=lambda p: p.as_posix())
        if not files:
            text = f"class {name} has no image in {top.relative_to(root).as_posix()}"
            raise OctcError("OCT-E206", text, mend="add its images, or remove the class everywhere", place=str(top / name))
        yield from ((name, path) for path in files)


def _images(folder: Path, root: Path) -> Iterator[Path]:
    """Image files below a class folder. Links to folders are not followed; a link that leaves the root is an error."""
    inside = root.resolve()
    for place, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in [*names, *(d for d in folders if (Path(place) / d).is_symlink())]:
            path = Path(place) / name
            if path.is_symlink():
                _check_link(path, inside)
            if path.suffix.lower() in SUFFIXES and path.is_file():
                yield path


def _check_link(path: Path, inside: Path) -> None:
    try:
        target = path.resolve(strict=False)
        good = target.is_relative_to(inside)
    except (OSError, RuntimeError):  # a loop
        good = False
    if not good or (not path.exists() and path.suffix.lower() in SUFFIXES):
        raise OctcError(
            "OCT-E205", "link leaves the data set, or leads nowhere", mend="copy the file into the data set", place=str(path)
        )


def _samples(
    root: Path, classes: Sequence[str], rows: Sequence[tuple[str | None, str, Path]], progress: Progress | None
) -> Samples:
    items = []
    for number, (part, name, path) in enumerate(rows, 1):
        match = PATIENT.match(path.stem)
        patient = match[1] if match else None
        items.append(Sample(path.relative_to(root).as_posix(), classes.index(name), patient, part, sha256_file(path)))
        if progress is not None:
            progress(number, len(rows))
    return Samples(root, tuple(classes), tuple(sorted(items, key=lambda s: s.path)))
