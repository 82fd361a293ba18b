"""From folders to samples: classes, patients, official parts, sums. Nothing is decoded here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from octc.core.errors import OctcError, shorten
from octc.core.files import sha256_file
from octc.datasets import patients
from octc.datasets.base import Progress, Sample, Samples
from octc.datasets.parts import READ_AS, Parts, check_classes, part_of, read_parts
from octc.datasets.tree import LINK, LOST, Left, Tree, is_under, joined, may_be_image, open_tree, words_left
from octc.imaging.preprocess import SUFFIXES
from octc.machine.cpu import reading_pool

PHANTOM_MARK = "phantom.json"  # beside CellData/: says what octc drew, and that the folder may be replaced


def find_ucsd(tree: Tree) -> Parts:
    """The parts of the first of root/CellData/OCT, root/OCT and root itself that holds train and test (OctcError E230)."""
    for base in ("CellData/OCT", "OCT", ""):
        if {"train", "test"} <= {part_of(name) for name in tree.inside.get(base, ())}:
            return read_parts(tree, base)
    text = f"no data set of the UCSD layout under {tree.root}"
    raise OctcError("OCT-E230", text, hint="--data DIR with CellData/OCT/{train,test}/CLASS/ in it", place=str(tree.root))


def scan_ucsd(root: Path, classes: Sequence[str] | None, progress: Progress | None = None) -> Samples:
    """CellData/OCT/{train,test}/CLASS/CLASS-PATIENT-INDEX.jpeg. The number alone is the patient (never class and number).

    A validation part beside them is read as train. The parts may be spelt in any usual way.

    Raises:
        OctcError: E206 class folders missing, empty or unexpected, E205 a link leaves the root, E230 not this layout, E231
            folders that cannot be read.
    """
    tree = open_tree(root)
    parts = find_ucsd(tree)
    expected = tuple(classes or ())
    held = {kind: set(class_folders(tree, top)) & set(expected) for top, kind in parts.tops}
    check_train(held["train"], held["test"], root / parts.base)
    return _samples(tree, parts, expected, known=True, progress=progress)


def scan_folder(root: Path, classes: Sequence[str] | None, progress: Progress | None = None) -> Samples:
    """Any tree: root/CLASS/..., or root/{train,test}/CLASS/... for an official test part.

    The parts may be spelt in any usual way (octc/datasets/parts.py). A validation part is read as train: validation images are
    drawn again, and test images too where there is no test part. Classes are the folder names in sorted order unless given. A
    file named CLASS-PATIENT-INDEX gives its patient (octc/datasets/patients.py); with any other name it is not known whose
    image it is, and everything that is made of it says so.

    Raises:
        OctcError: E206 class folders missing, empty or unexpected, or a tree that can be read in two ways, E207 a class of
            test that train lacks, E205, E230, E231 as `scan_ucsd`.
    """
    tree = open_tree(root)
    parts = read_parts(tree)
    held = {kind: set(class_folders(tree, top)) for top, kind in parts.tops}
    names = tuple(classes or sorted(set().union(*held.values())))
    if len(names) < 2:
        place = tree.root / parts.base
        text = f"{len(names)} class folders under {place}, at least two are needed"
        if tree.left or tree.below.get(parts.base):
            loose = tree.below.get(parts.base, 0)
            text += f"; it holds {loose} images, and left out were {words_left(tree.left)}"
        raise OctcError("OCT-E206", text, hint="root/CLASS/IMAGE or root/{train,test}/CLASS/IMAGE", place=str(root))
    if "test" in held:
        check_train(held["train"] | held.get("val", set()), held["test"], root / parts.base)
    return _samples(tree, parts, names, known=classes is not None, progress=progress)


def check_train(train: set[str], test: set[str], top: Path) -> None:
    """Refuse a class of test that train lacks (OctcError E207)."""
    if alone := sorted(test - train):
        text = f"in test but absent from train: {shorten(alone)}"
        raise OctcError(
            "OCT-E207", text, hint="add images of the class to train, from other patients", place=str(top / "train")
        )


def class_folders(tree: Tree, top: str) -> tuple[str, ...]:
    """The folders in a part (or the root) that should be classes (OctcError E206 for a link to a folder, E205 for one that
    leaves the root)."""
    for one in tree.left:
        path = one.path.rstrip("/")
        if one.why in (LINK, LOST) and path.rpartition("/")[0] == top:
            check_link(tree.root / path, tree.root.resolve())
            text = f"{path} is a {one.why}, where a folder of images should be"
            raise OctcError("OCT-E206", text, hint="copy the folder into its place", place=str(tree.root / path))
    return tree.inside[top]


def _class_files(tree: Tree, top: str, kind: str | None, expected: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(class, image) of one part, sorted; refuses class folders that are missing, empty or one too many.

    A validation part may lack classes: it is read as train.
    """
    found = [name for name in class_folders(tree, top) if kind != "val" or tree.below.get(joined(top, name))]
    if set(found) - set(expected) or (kind != "val" and set(expected) - set(found)):
        listed = ", ".join(found) or "none"
        text = f"class folders in {top or '.'}: expected {', '.join(expected)}; found {listed}"
        if loose := sum(path.rpartition("/")[0] == top for path in tree.images):
            text += f", and {loose} images in no class folder"
        hint = "rename or move the folders, or use --dataset folder"
        raise OctcError("OCT-E206", text, hint=hint, place=str(tree.root / top))
    inside = tree.root.resolve()
    for name in found:
        folder = joined(top, name)
        for link in (link for link in tree.links if is_under(link, folder)):
            check_link(tree.root / link, inside)
        files = sorted(tree.under(folder))
        if not files:
            left = tree.left_under(folder)
            text = f"class {name} has no image in {top or '.'}" + (f"; left out: {words_left(left)}" if left else "")
            hint = "add its images, or remove the class everywhere"
            if any(map(may_be_image, left)):
                hint = "convert its images to PNG, JPEG, TIFF or BMP, or remove the class everywhere"
            raise OctcError("OCT-E206", text, hint=hint, place=str(tree.root / folder))
        yield from ((name, path) for path in files)


def images_below(tree: Tree) -> Iterator[Path]:
    """The images of a data set that a table names, wherever they lie; a link that leaves the root is an error (E205)."""
    inside = tree.root.resolve()
    for link in tree.links:
        check_link(tree.root / link, inside)
    yield from (tree.root / path for path in tree.images)


def check_link(path: Path, inside: Path) -> None:
    """Refuse a path that leads out of `inside` (resolved), or a link that leads nowhere (OctcError E205)."""
    try:
        target = path.resolve(strict=False)
        good = target.is_relative_to(inside)
    except (OSError, RuntimeError):  # a loop
        good = False
    if not good or (not path.exists() and path.suffix.lower() in SUFFIXES):
        raise OctcError(
            "OCT-E205", "link leaves the data set, or leads nowhere", hint="copy the file into the data set", place=str(path)
        )


def _samples(tree: Tree, parts: Parts, classes: Sequence[str], *, known: bool, progress: Progress | None) -> Samples:
    rows: list[tuple[str | None, str, str]] = []
    for top, kind in parts.tops:
        part = None if kind is None else READ_AS[kind]
        check_classes(tree, top, [name for name in tree.inside[top] if name in classes], known=known)
        rows += [(part, *entry) for entry in _class_files(tree, top, kind, classes)]
    people = patients.patients_of([(Path(path).stem, name) for _, name, path in rows], classes)
    sums = sums_of([tree.root / path for _, _, path in rows], progress)
    items = [
        Sample(path, classes.index(name), patient, part, digest)
        for (part, name, path), patient, digest in zip(rows, people, sums, strict=True)
    ]
    taken = {path for _, _, path in rows}
    loose = [Left(path, "in no class folder") for path in tree.images if path not in taken]
    tops = tuple((top, kind or "all") for top, kind in parts.tops if top)
    items.sort(key=lambda s: s.path)
    return Samples(tree.root, tuple(classes), tuple(items), unread=tuple(loose), parts=tops, tree=tree)


def sums_of(paths: Sequence[Path], progress: Progress | None = None) -> list[str]:
    """The sha256 of each file, "" where it cannot be read."""
    sums: list[str] = []
    with reading_pool() as pool:
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
