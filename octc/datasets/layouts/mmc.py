"""MMC-AMD: OCT and fundus images of normal eyes, dry AMD, PCV and wet AMD, with released splits by eye (A) or patient (AP).

    ImageData/cfp-clahe-448x448/f-*.jpg            ImageData/oct-median3x3-448x448/o-*.jpg
    mmc-amd-split{A,AP}-{train,val,test}/          ImageSets/{cfp,oct}.txt   one image id per line

The second hyphen-separated field of an id is the class (h, d, p, w). The eye is the id without its first two characters, up to
"_", without the suffixes of synthetic images. The released subject lists give the patients; the patient of an unlisted eye is
unknown (its images stay in one part).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from octc.core.errors import OctcError
from octc.datasets.base import PLAIN, Progress, Reading, Samples
from octc.datasets.layouts.paired import Row, make_samples
from octc.datasets.layouts.topcon import read_lines, unsafe
from octc.datasets.parts import READ_AS, part_folders
from octc.datasets.tables import refuse_lines
from octc.datasets.tree import has_folder, open_tree

CLASSES = ("normal", "dryAMD", "PCV", "wetAMD")
LETTERS = {"h": 0, "d": 1, "p": 2, "w": 3}
FOLDERS = {"fundus": ("cfp", "cfp-clahe-448x448"), "oct": ("oct", "oct-median3x3-448x448")}
SYNTHETIC = ("-trs", "-ori", "-flr")
HINT = "an image id a line: f-CLASS-... or o-CLASS-..., with CLASS one of h, d, p, w"


def find_mmc(root: Path) -> bool:
    """Whether a folder has this layout."""
    return has_folder(root / "ImageData") and any("train" in _parts(root, split) for split in ("A", "AP"))


def _parts(root: Path, split: str) -> dict[str, str]:
    return part_folders(root, f"mmc-amd-split{split}-")


def scan_mmc(
    root: Path,
    classes: Sequence[str] | None,
    progress: Progress | None = None,
    reading: Reading = PLAIN,
    *,
    split: str = "AP",
) -> Samples:
    """Scan the images of a released split: "AP" (by patient) or "A" (by eye).

    Raises:
        OctcError: E230 another layout; E209 unusable lines; and the errors of `make_samples`.
    """
    tree = open_tree(root, reading.links)
    parts = _parts(root, split)
    if "train" not in parts:
        text = f"no data set of the MMC-AMD layout with split{split} under {root}"
        raise OctcError("OCT-E230", text, hint=f"--data DIR with ImageData/ and mmc-amd-split{split}-train/", place=str(root))
    rows = [
        row for modality in FOLDERS for kind in READ_AS if kind in parts for row in _rows(root, modality, kind, parts[kind])
    ]
    return make_samples(tree, tuple(classes or CLASSES), rows, exclusive=True, progress=progress)


scan_mmc_eyes = partial(scan_mmc, split="A")


def eye_of(name: str) -> str:
    """The eye of an image id."""
    eye = name[2:].split("_", maxsplit=1)[0]
    for mark in SYNTHETIC:
        eye = eye.replace(mark, "")
    return eye


def _rows(root: Path, modality: str, kind: str, name: str) -> Iterator[Row]:
    short, folder = FOLDERS[modality]
    place = root / name
    table = place / "ImageSets" / f"{short}.txt"
    if not table.is_file():
        return
    subjects = place / "SubjectSets" / f"{short}.txt"
    known = sorted(read_lines(subjects), key=len, reverse=True) if subjects.is_file() else []
    problems, rows = [], []
    for number, line in enumerate(read_lines(table), 1):
        name = line.removesuffix(".jpg")
        fields = name.split("-")
        if unsafe(name) or len(fields) < 3 or fields[1] not in LETTERS:
            problems.append(f"line {number}: {line[:80]!r}")
            continue
        eye = eye_of(name)
        patient = next((one for one in known if eye == one or eye.startswith((f"{one}-", f"{one}_"))), None)
        rows.append(Row(f"ImageData/{folder}/{name}.jpg", (LETTERS[fields[1]],), eye, patient, modality, READ_AS[kind]))
    refuse_lines(table, problems, HINT)
    yield from rows
