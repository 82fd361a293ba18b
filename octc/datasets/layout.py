"""From folders to samples: classes, patients, official parts, sums. Nothing is decoded here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from octc.datasets import patients
from octc.datasets.base import Progress, Sample, Samples
from octc.errors import OctcError, shorten
from octc.files import sha256_file
from octc.image import SUFFIXES

PARTS = ("train", "test")
PHANTOM_MARK = "phantom.json"  # beside CellData/: says what octc drew, and that the folder may be replaced


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
    check_train(_folders(top / "train") & set(expected), _folders(top / "test") & set(expected), top)
    rows = [(part, *entry) for part in PARTS for entry in _class_files(top / part, expected, root)]
    return _samples(root, expected, rows, progress)


def scan_folder(root: Path, classes: Sequence[str] | None, progress: Progress | None = None) -> Samples:
    """Any tree: root/CLASS/..., or root/{train,test}/CLASS/... for an official test part.

    A root/val beside them is read as train: validation images are drawn again, by patient. Classes are the folder names in
    sorted order unless given. A file named CLASS-PATIENT-INDEX gives its patient (octc/datasets/patients.py); with any other
    name it is not known whose image it is, and everything that is made of it says so.

    Raises:
        OctcError: E206 class folders missing, empty or unexpected, E207 a class of test that train lacks, E205, E230.
    """
    if not root.is_dir():
        raise OctcError("OCT-E230", f"no folder at {root}", mend="--data DIR", place=str(root))
    split = all((root / part).is_dir() for part in PARTS)
    tops: list[tuple[str | None, Path]] = [(None, root)]
    if split:
        tops = [("train", root / "train"), ("test", root / "test")]
        tops += [("train", root / "val")] if (root / "val").is_dir() else []
    names = tuple(classes or sorted(set().union(*(_folders(top) for _, top in tops))))
    if len(names) < 2:
        text = f"{len(names)} class folders under {root}, at least two are needed"
        raise OctcError("OCT-E206", text, mend="root/CLASS/IMAGE or root/{train,test}/CLASS/IMAGE", place=str(root))
    if split:
        check_train(_folders(root / "train"), _folders(root / "test"), root)
    rows = [(part, *entry) for part, top in tops for entry in _class_files(top, names, root)]
    return _samples(root, names, rows, progress)


def check_train(train: set[str], test: set[str], top: Path) -> None:
    """Refuse a class of test that train lacks (OctcError E207)."""
    if alone := sorted(test - train):
        text = f"in test but absent from train: {shorten(alone)}"
        raise OctcError(
            "OCT-E207", text, mend="add images of the class to train, from other patients", place=str(top / "train")
        )


def _folders(top: Path) -> set[str]:
    return {p.name for p in top.iterdir() if p.is_dir() and not p.name.startswith(".")} if top.is_dir() else set()


def _class_files(top: Path, expected: Sequence[str], root: Path) -> Iterator[tuple[str, Path]]:
    """(class, file) of one part, sorted; refuses class folders that are missing, empty or one too many."""
    found = _folders(top)
    if found != set(expected):
        listed = ", ".join(sorted(found)) or "none"
        text = f"class folders in {top.relative_to(root).as_posix()}: expected {', '.join(expected)}; found {listed}"
        raise OctcError("OCT-E206", text, mend="rename or move the folders, or use --dataset folder", place=str(top))
    inside = root.resolve()
    for name in expected:
        check_link(top / name, inside)
        files = sorted(images_below(top / name, root), key=lambda p: p.as_posix())
        if not files:
            text = f"class {name} has no image in {top.relative_to(root).as_posix()}"
            raise OctcError("OCT-E206", text, mend="add its images, or remove the class everywhere", place=str(top / name))
        yield from ((name, path) for path in files)


def images_below(folder: Path, root: Path) -> Iterator[Path]:
    """Image files below a class folder, hidden ones left out (`._a.jpeg` of a Mac archive).

    Links to folders are not followed; a link that leaves the root is an error.
    """
    inside = root.resolve()
    for place, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in [*names, *(d for d in folders if (Path(place) / d).is_symlink())]:
            path = Path(place) / name
            if path.is_symlink():
                check_link(path, inside)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and path.is_file():
                yield path


def check_link(path: Path, inside: Path) -> None:
    """Refuse a path that leads out of `inside` (resolved), or a link that leads nowhere (OctcError E205)."""
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
    people = patients.patients_of([(path.stem, name) for _, name, path in rows], classes)
    items = [
        Sample(path.relative_to(root).as_posix(), classes.index(name), patient, part, digest)
        for (part, name, path), patient, digest in zip(
            rows, people, sums_of([path for _, _, path in rows], progress), strict=True
        )
    ]
    return Samples(root, tuple(classes), tuple(sorted(items, key=lambda s: s.path)))


def sums_of(paths: Sequence[Path], progress: Progress | None = None) -> list[str]:
    """The sha256 of each file, "" where it cannot be read."""
    sums: list[str] = []
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing lets go of the interpreter
        for digest in pool.map(_sum, paths):
            sums.append(digest)
            if progress is not None:
                progress(len(sums), len(paths))
    return sums


patient_of = patients.patient_of


def _sum(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError:  # named when it is decoded, together with everything else that cannot be read
        return ""
