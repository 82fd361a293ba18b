"""Data sets with two modalities: OCT and fundus images of the same eyes, or of the same diseases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from octc.core.errors import OctcError
from octc.datasets.base import UNLISTED, Finding, Progress, Sample, Samples, unlisted
from octc.datasets.layouts.folders import sums_of
from octc.datasets.split import Split, shared_content, shared_eyes, shared_patients
from octc.datasets.tables import refuse_lines
from octc.datasets.tree import Left, Tree

ORDER = {"test": 0, "train": 1, "val": 1}  # an image in several lists is a test image


@dataclass(frozen=True)
class Row:
    """An image of a list: path below the root, class indices, eye, patient (None: unknown), modality, part ("train" or
    "test")."""

    path: str
    targets: tuple[int, ...]
    eye: str | None
    patient: str | None
    modality: str
    part: str | None


def make_samples(
    tree: Tree, classes: Sequence[str], rows: Iterable[Row], *, exclusive: bool = False, progress: Progress | None = None
) -> Samples:  # fmt: skip
    """Make samples from all rows. A path in several lists is used once, as a test image if it is in test.

    exclusive: every image has one class; otherwise `label` is the rarest of its classes (for stratified splits).

    Raises:
        OctcError: E209 a path with different labels; E205 a link outside the root; E206 a modality or class without images.
    """
    root = place = tree.root
    known: dict[str, Row] = {}
    problems, again = [], []
    for row in sorted(rows, key=lambda row: ORDER.get(row.part or "train", 1)):
        before = known.setdefault(row.path, row)
        if before is not row:
            again.append(row.path)
            if before.targets != row.targets:
                problems.append(f"{row.path} stands under different labels")
    refuse_lines(place, problems, "keep one line for each image")
    if not known:
        raise OctcError("OCT-E206", f"no image is listed under {place}", hint="unpack the whole archive", place=str(place))
    for path in known:
        if (root / path).is_symlink():
            tree.check_link(path)
    counts = Counter(k for row in known.values() for k in row.targets)
    if missing := [name for k, name in enumerate(classes) if not counts[k]]:
        text = f"no image of {', '.join(missing)}"
        raise OctcError("OCT-E206", text, hint="unpack the whole archive", place=str(place))
    items = [
        Sample(
            row.path, _rarest(row.targets, counts), row.patient, row.part, digest,
            None if exclusive else row.targets, row.eye, row.modality,
        )
        for row, digest in zip(known.values(), sums_of([root / path for path in known], progress), strict=True)
    ]  # fmt: skip
    text = f"{len(again)} lines name an image that stands in another list too"
    copies = Finding("OCT-W218", text, tuple(again), "none needed: it is used once, as a test image if it is one")
    unread = tuple(Left(path, UNLISTED) for path in tree.images if path not in known)
    notes = (*((copies,) if again else ()), *unlisted(unread, "the lists"))
    items.sort(key=lambda s: s.path)
    return Samples(root, tuple(classes), tuple(items), notes=notes, unread=unread, tree=tree)


def _rarest(targets: tuple[int, ...], counts: Counter[int]) -> int:
    return min(targets, key=lambda k: (counts[k], k)) if targets else 0


def only(split: Split, modality: str) -> Split:
    """The images of one modality; each patient stays in the same part as in the whole split.

    Raises:
        OctcError: E206 a part has no image of the modality.
    """
    parts = {part: tuple(s for s in items if s.modality == modality) for part, items in split.parts.items()}
    if empty := [part for part, items in parts.items() if not items]:
        text = f"the {', '.join(empty)} part has no {modality} image"
        raise OctcError("OCT-E206", text, hint="a data set with both modalities", place=split.dataset)
    return replace(split, parts=parts)


def check_partners(student: Split, teacher: Split) -> None:
    """Refuse a teacher that may have been trained on eyes in this student's validation or test set (OctcError E212).

    The splits have one modality each and the same data set, and must come from one split by patient.
    """
    judged = [s for part in ("val", "test") for s in student.parts[part]]
    kinds = {"patients": shared_patients, "eyes": shared_eyes, "images": shared_content}
    for kind, share in kinds.items():
        shared = share(teacher.parts["train"], judged)
        if not shared:
            continue
        text = f"the teacher was trained on {len(shared)} {kind} that this student is judged on"
        hint = "train the teacher with the seed of this student: octc train retnet-teacher --seed N"
        raise OctcError("OCT-E212", text, hint=hint, place=", ".join(shared[:10]))
    if student.classes != teacher.classes:
        text = f"class order differs: teacher {', '.join(teacher.classes)}; data {', '.join(student.classes)}"
        raise OctcError("OCT-E309", text, hint="train a teacher on this data set")


def targets_of(sample: Sample) -> tuple[int, ...]:
    """All class indices of an image, for multi-class and multi-label data sets."""
    return (sample.label,) if sample.targets is None else sample.targets
