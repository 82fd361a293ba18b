"""The splits that KD-OCT released, only for comparison with its published numbers: they leak, and are marked as leaky.

"as-released" is the split of its students, "as-released-teacher" that of its teachers:

* NEH, student: StratifiedKFold over bare patient numbers (which restart in every class, so up to three patients are merged).
* NEH, teacher: the same numbers, but their stratification labels are in sorted order while the numbers are not.
* UCSD, student: StratifiedKFold over images; the held-out fifth of a fold is unused, and all folds use the official test part.
* UCSD, teacher: one split; a fifth of the images of each class is drawn for validation.

Patients and copies occur in several parts. The released loaders use an unsorted directory listing; here images are sorted by
path. NEH splits contain the copies and conflicting images that a clean scan leaves out, as released.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from octc.core.errors import OctcError
from octc.core.optional import need
from octc.datasets.base import Sample, Samples
from octc.datasets.folds import leave_out, make_folds
from octc.datasets.layouts.neh import Row, read_rows
from octc.datasets.split import CLEAN, PROTOCOLS, RELEASED, RELEASED_TEACHER, Split, check_split, make_split

SEED, FOLDS, SHARE = 43, 5, 0.2
Three = tuple[list[int], list[int], list[int]]  # positions of train, val and test


def make_splits(
    samples: Samples,
    dataset: str,
    protocol: str = CLEAN,
    folds: int | None = None,
    seed: int | None = None,
    val: float = SHARE,
    by: str | None = None,
) -> list[Split]:
    """Make the splits of a protocol: one, or one per fold. Default seed: 0 for "clean", 43 for the others, as released.

    val: share of the training images for choosing the epoch, for "clean"; the other protocols use a fifth. by: make folds that
    leave out one acquisition each (`octc.datasets.folds.leave_out`).

    Raises:
        OctcError: E104 unknown protocol; E102 the protocol does not exist for this data set; E901 scikit-learn is missing
            (torch for the teacher of UCSD); and the errors of `make_split` and `make_folds`.
    """
    if protocol not in PROTOCOLS:
        hint = f"one of: {', '.join(PROTOCOLS)}"
        raise OctcError("OCT-E104", f"unknown protocol {protocol!r}", hint=hint, place="--protocol")
    if by is not None and (folds is not None or protocol != CLEAN):
        other = "--folds" if folds is not None else f"--protocol {protocol}"
        text = f"--leave-out and {other} contradict each other: the acquisitions are the folds"
        raise OctcError("OCT-E102", text, hint=f"leave {other} out", place="--leave-out")
    if by is not None:
        return leave_out(samples, dataset, by, seed or 0, val)
    if protocol != CLEAN:
        return _released(samples, dataset, protocol, folds, SEED if seed is None else seed)
    if folds is None:
        return [make_split(samples, dataset, seed or 0, val=val)]
    return make_folds(samples, dataset, folds, seed or 0, val)


def _released(samples: Samples, dataset: str, protocol: str, folds: int | None, seed: int) -> list[Split]:
    if dataset == "neh":
        return _neh(samples, dataset, protocol, folds or FOLDS, seed)
    if not any(s.part == "test" for s in samples.items):
        text = f"no {protocol} split of {dataset}: KD-OCT split neh, and data sets with an official test part"
        raise OctcError("OCT-E102", text, hint="--protocol clean", place="--protocol")
    if protocol == RELEASED:
        return _ucsd(samples, dataset, folds or FOLDS, seed)
    if folds is not None:
        hint = "leave --folds out, or --protocol as-released"
        raise OctcError("OCT-E102", f"{protocol} of {dataset} is one split without folds", hint=hint, place="--folds")
    return [_ucsd_teacher(samples, dataset, seed)]


def released_folds(labels: Sequence[str] | Sequence[int], k: int, seed: int) -> list[Three]:
    """Indices of k stratified folds, each with an inner fifth of its training images as val (by scikit-learn)."""
    selection = need("sklearn.model_selection")
    folds = []
    positions = np.arange(len(labels))
    values = np.asarray(labels)
    try:
        for others, test in selection.StratifiedKFold(k, shuffle=True, random_state=seed).split(positions, values):
            train, val = selection.train_test_split(others, test_size=SHARE, random_state=seed, stratify=values[others])
            folds.append((sorted(train.tolist()), sorted(val.tolist()), sorted(test.tolist())))
    except ValueError as error:
        hint = "fewer folds, or more images of the class"
        raise OctcError("OCT-E207", f"{k} folds cannot be made: {error}".rstrip("."), hint=hint, place="--folds") from error
    return folds


def patient_labels(rows: Sequence[Row], *, misaligned: bool) -> tuple[list[int], list[str]]:
    """Bare patient numbers in order of first appearance, and their stratification labels: the most frequent label of each
    number (alphabetically first at a tie). `misaligned` orders the labels by sorted number, as the released code does."""
    labels: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        labels[row.number].append(row.label)
    mode = {number: min(found, key=lambda name: (-Counter(found)[name], name)) for number, found in labels.items()}
    return list(mode), [mode[number] for number in (sorted(mode) if misaligned else mode)]


def _neh(samples: Samples, dataset: str, protocol: str, k: int, seed: int) -> list[Split]:
    rows = [row for row in read_rows(samples.root) if row.folder == row.label]
    known = {(s.path, s.label): s for s in (*samples.items, *samples.left_out)}
    numbers, labels = patient_labels(rows, misaligned=protocol != RELEASED)
    place = {number: i for i, number in enumerate(numbers)}
    splits = []
    for fold, positions in enumerate(released_folds(labels, k, seed), 1):
        part_of = {i: part for part, chosen in zip(("train", "val", "test"), positions, strict=True) for i in chosen}
        parts: dict[str, list[Sample]] = {"train": [], "val": [], "test": []}
        for row in rows:
            sample = known.get((row.path, samples.classes.index(row.label)))
            if sample is not None:  # unless --skip-bad left the file out
                parts[part_of[place[row.number]]].append(sample)
        splits.append(_checked(samples, dataset, protocol, seed, parts, fold=(fold, k)))
    return splits


def _ucsd(samples: Samples, dataset: str, k: int, seed: int) -> list[Split]:
    rest = [s for s in samples.items if s.part != "test"]
    official = [s for s in samples.items if s.part == "test"]
    splits = []
    for fold, (train, val, unused) in enumerate(released_folds([s.label for s in rest], k, seed), 1):
        parts = {"train": [rest[i] for i in train], "val": [rest[i] for i in val], "test": official}
        splits.append(_checked(samples, dataset, RELEASED, seed, parts, len(unused), (fold, k)))
    return splits


def _ucsd_teacher(samples: Samples, dataset: str, seed: int) -> Split:
    """Per class, in class order: the first fifth (rounded down) of a random permutation is val, the rest train."""
    torch = need("torch")
    rng = torch.Generator().manual_seed(seed)
    parts: dict[str, list[Sample]] = {"train": [], "val": [], "test": [s for s in samples.items if s.part == "test"]}
    for label in range(len(samples.classes)):
        own = [s for s in samples.items if s.part != "test" and s.label == label]
        order = torch.randperm(len(own), generator=rng).tolist()
        count = int(SHARE * len(own))
        parts["val"] += [own[i] for i in sorted(order[:count])]
        parts["train"] += [own[i] for i in sorted(order[count:])]
    return _checked(samples, dataset, RELEASED_TEACHER, seed, parts)


def _checked(
    samples: Samples, dataset: str, protocol: str, seed: int, parts: dict[str, list[Sample]], dropped: int = 0,
    fold: tuple[int, int] | None = None,
) -> Split:  # fmt: skip
    whole = {part: tuple(items) for part, items in parts.items()}
    split = Split(dataset, samples.classes, seed, whole, dropped, protocol, fold)
    check_split(split)
    return split
