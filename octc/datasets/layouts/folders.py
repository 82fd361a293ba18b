"""Scans class folders: classes, patients, official parts, checksums. Decodes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from octc.core.errors import OctcError, shorten
from octc.core.files import sha256_file
from octc.datasets import patients
from octc.datasets.base import PLAIN, Progress, Reading, Sample, Samples
from octc.datasets.class_names import ClassFolders, class_names, without_copies
from octc.datasets.parts import READ_AS, Parts, check_classes, check_no_parts, part_of, read_parts
from octc.datasets.tree import (
    AGAIN,
    LINK,
    LOST,
    Left,
    Tree,
    is_under,
    joined,
    litter,
    may_be_image,
    names_in,
    open_tree,
    words_left,
)
from octc.machine.cpu import reading_pool

PHANTOM_MARK = "phantom.json"  # marker beside CellData/: octc generated the folder and may replace it


def find_ucsd(tree: Tree) -> Parts:
    """The parts in the first of root/CellData/OCT, root/OCT and root with train and test (OctcError E230: none)."""
    for base in ("CellData/OCT", "OCT", ""):
        if {"train", "test"} <= {part_of(name) for name in tree.inside.get(base, ())}:
            return read_parts(tree, base)
    text = f"no data set of the UCSD layout under {tree.root}"
    raise OctcError("OCT-E230", text, hint="--data DIR with CellData/OCT/{train,test}/CLASS/ in it", place=str(tree.root))


def scan_ucsd(root: Path, classes: Sequence[str] | None, progress: Progress | None = None, reading: Reading = PLAIN) -> Samples:
    """Scan CellData/OCT/{train,test}/CLASS/CLASS-PATIENT-INDEX.jpeg. The number alone is the patient id, across classes.

    A validation part is read as train. The parts may have any usual name.

    Raises:
        OctcError: E206 class folders missing, empty or unexpected; E205 a link outside the root; E230 another layout; E231
            folders that cannot be read.
    """
    tree = open_tree(root, reading.links)
    parts = find_ucsd(tree)
    found = _classes(tree, parts, tuple(classes or ()))
    held = _held(tree, parts, found)
    check_train(held["train"], held["test"], root / parts.base)
    return _samples(tree, parts, found, known=True, progress=progress)


def scan_folder(
    root: Path, classes: Sequence[str] | None, progress: Progress | None = None, reading: Reading = PLAIN
) -> Samples:
    """Scan any class tree: root/CLASS/..., or root/{train,test}/CLASS/... with an official test part.

    The parts may have any usual name (octc/datasets/parts.py). A validation part is read as train: validation images are drawn
    by the split, and so are test images without a test part. Classes are the sorted folder names unless given. A file named
    CLASS-PATIENT-INDEX gives the patient id (octc/datasets/patients.py); otherwise the patient is unknown, and all outputs
    state that.

    Raises:
        OctcError: E206 class folders missing, empty or unexpected, or an ambiguous tree; E207 a class of test is absent from
            train; E205, E230, E231 as in `scan_ucsd`.
    """
    tree, base, copies = without_copies(open_tree(root, reading.links))
    parts = read_parts(tree, base)
    found = _classes(tree, parts, classes)
    held = _held(tree, parts, found)
    if len(found.names) < 2:
        place = tree.root / parts.base
        text = f"{len(found.names)} class folders under {place}, at least two are needed"
        if tree.left or tree.below.get(parts.base):
            loose = tree.below.get(parts.base, 0)
            text += f"; it holds {loose} images, and left out were {words_left(tree.left)}"
        hint = "root/CLASS/IMAGE or root/{train,test}/CLASS/IMAGE"
        if tables := [name for name in names_in(root) if name.lower().endswith((".csv", ".tsv")) and not litter(name)]:
            table = shlex.quote(str(root / tables[0]))
            hint += f"; if {tables[0]} names the images: octc data check {table} --column path=NAME,label=NAME,patient=NAME"
        raise OctcError("OCT-E206", text, hint=hint, place=str(root))
    if "test" in held:
        check_train(held["train"] | held.get("val", set()), held["test"], root / parts.base)
    samples = _samples(tree, parts, found, known=classes is not None or found.patients, progress=progress)
    return replace(samples, notes=(*copies, *samples.notes))


def _classes(tree: Tree, parts: Parts, given: Sequence[str] | None) -> ClassFolders:
    for top, _ in parts.tops:
        class_folders(tree, top)  # refuses links
        check_no_parts(tree, top)
    return class_names(tree, parts, given)


def _held(tree: Tree, parts: Parts, found: ClassFolders) -> dict[str | None, set[str]]:
    """Part -> classes with a folder in it."""
    return {
        kind: {found.of[top, name] for name in tree.inside[top] if (top, name) in found.of} & {*found.names}
        for top, kind in parts.tops
    }


def check_train(train: set[str], test: set[str], top: Path) -> None:
    """Refuse a class of test that is absent from train (OctcError E207)."""
    if alone := sorted(test - train):
        text = f"in test but absent from train: {shorten(alone)}"
        raise OctcError(
            "OCT-E207", text, hint="add images of the class to train, from other patients", place=str(top / "train")
        )


def class_folders(tree: Tree, top: str) -> tuple[str, ...]:
    """The class folders in a part (or the root). OctcError E206: a link to a folder; E205: a link outside the root."""
    for one in tree.left:
        path = one.path.rstrip("/")
        if one.why in (LINK, LOST, AGAIN) and path.rpartition("/")[0] == top:
            tree.check_link(path)
            text = f"{path} is a {one.why}, where a folder of images should be"
            hint = "copy the folder into its place" + (
                f", or --follow-links {shlex.quote(str(tree.root))}" if one.why == LINK else ""
            )
            raise OctcError("OCT-E206", text, hint=hint, place=str(tree.root / path))
    return tree.inside[top]


def _class_files(tree: Tree, top: str, kind: str | None, known: ClassFolders) -> Iterator[tuple[str, str, str]]:
    """(class, its folder, image) of one part, sorted; refuses missing, empty and unexpected class folders.

    A validation part may lack classes, because it is read as train.
    """
    expected = known.names
    found = [name for name in class_folders(tree, top) if kind != "val" or tree.below.get(joined(top, name))]
    have = {known.of.get((top, name), name) for name in found}
    if have - set(expected) or (kind != "val" and set(expected) - have):
        listed = ", ".join(found) or "none"
        text = f"class folders in {top or '.'}: expected {', '.join(expected)}; found {listed}"
        if loose := sum(path.rpartition("/")[0] == top for path in tree.images):
            text += f", and {loose} images in no class folder"
        hint = "rename or move the folders, or use --dataset folder"
        raise OctcError("OCT-E206", text, hint=hint, place=str(tree.root / top))
    for name in found:
        folder = joined(top, name)
        for link in (link for link in tree.links if is_under(link, folder)):
            tree.check_link(link)
        files = sorted(tree.under(folder))
        if not files:
            left = tree.left_under(folder)
            text = f"class {name} has no image in {top or '.'}" + (f"; left out: {words_left(left)}" if left else "")
            hint = "add its images, or remove the class everywhere"
            if any(map(may_be_image, left)):
                hint = "convert its images to PNG, JPEG, TIFF, BMP or WebP, or remove the class everywhere"
            raise OctcError("OCT-E206", text, hint=hint, place=str(tree.root / folder))
        yield from ((known.of[top, name], name, path) for path in files)


def images_below(tree: Tree) -> Iterator[Path]:
    """All images in the tree of a data set with a table (OctcError E205: a link outside the root)."""
    for link in tree.links:
        tree.check_link(link)
    yield from (tree.root / path for path in tree.images)


def _samples(tree: Tree, parts: Parts, classes: ClassFolders, *, known: bool, progress: Progress | None) -> Samples:
    rows: list[tuple[str | None, str, str, str]] = []
    for top, kind in parts.tops:
        part = None if kind is None else READ_AS[kind]
        if not known:
            check_classes(tree, top, [name for name in tree.inside[top] if (top, name) in classes.of])
        rows += [(part, *entry) for entry in _class_files(tree, top, kind, classes)]
    named = [(Path(path).stem, name) for _, name, _, path in rows]
    people = patients.patients_of(named, (*classes.names, *{folder for _, _, folder, _ in rows}))
    if classes.patients:
        people = [one or folder for one, (_, _, folder, _) in zip(people, rows, strict=True)]
    sums = sums_of([tree.root / path for *_, path in rows], progress)
    items = [
        Sample(path, classes.names.index(name), patient, part, digest)
        for (part, name, _, path), patient, digest in zip(rows, people, sums, strict=True)
    ]
    taken = {path for *_, path in rows}
    loose = [Left(path, "in no class folder") for path in tree.images if path not in taken]
    tops = tuple((top, kind or "all") for top, kind in parts.tops if top)
    items.sort(key=lambda s: s.path)
    return Samples(tree.root, classes.names, tuple(items), notes=classes.notes, unread=tuple(loose), parts=tops, tree=tree)


def sums_of(paths: Sequence[Path], progress: Progress | None = None) -> list[str]:
    """SHA-256 of each file, "" if it cannot be read."""
    sums: list[str] = []
    with reading_pool() as pool:
        for digest in pool.map(_sum, paths):
            sums.append(digest)
            if progress is not None:
                progress(len(sums), len(paths))
    return sums


def _sum(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError:  # reported when it is decoded, with all other unreadable files
        return ""
