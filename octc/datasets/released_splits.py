"""The splits that KD-OCT released, for comparison with its published numbers only: they leak, and say so.

"as-released" is what its students were trained on, "as-released-teacher" its teachers:

* NEH, student: StratifiedKFold over bare patient numbers (which restart in every class, so up to three people are one).
* NEH, teacher: the same numbers, but the labels that stratify them are in sorted order while the numbers are not.
* UCSD, student: StratifiedKFold over images; the fold's own fifth is used by nobody, every fold is tested on the official test.
* UCSD, teacher: one split, a fifth of the images of each class drawn for validation.

Patients and copies stand on both sides. The released loaders take an unsorted directory listing; here images are in the
order of their paths. NEH splits hold the copies and contradictory images that a clean scan leaves out, as released.
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
    """The splits of a protocol: one, or one for each fold. Without a seed it is 0 for "clean" and 43, as released, else.

    val: share of what may be trained on that chooses the epoch; of "clean", the others have a fifth. by: folds that leave out
    one acquisition each (`octc.datasets.folds.leave_out`).

    Raises:
        OctcError: E104 unknown protocol, E102 a protocol that this data set does not have, E901 without scikit-learn (torch
            for the teacher of UCSD), and what `make_split` and `make_folds` raise.
    """
    if protocol not in PROTOCOLS:
        hint = f"one of: {', '.join(PROTOCOLS)}"
        raise OctcError("OCT-E104", f"unknown protocol {protocol!r}", hint=hint, place="--protocol")
    if by is not None and (folds is not None or protocol != CLEAN):
        other = "--folds" if folds is not None else f"--protocol {protocol}"
        text = f"--leave-out and {other} contradict each other: acquisitions are the folds"
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
    """Positions of k stratified folds, and of an inner fifth of what each trains on (scikit-learn's own procedures)."""
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
    """Bare patient numbers in order of first appearance, and the labels that stratify them: the most frequent label of each
    number (the alphabetically first of a tie). `misaligned` puts the labels in sorted order of the numbers (B1)."""
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
    """Per class in class order: the first fifth (rounded down) of one random permutation validates, the rest trains."""
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
