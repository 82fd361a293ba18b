"""Cross-validation by patient: each training image is held out exactly once, in k folds or one acquisition at a time.

An image without a known patient is a group of its own, as in `octc.datasets.split`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from octc.core.errors import OctcError, shorten
from octc.datasets.acquisitions import acquisitions_of
from octc.datasets.base import Sample, Samples, ids_of
from octc.datasets.split import OFFICIAL, Split, apart, check_classes, check_split, drawn, groups_of, without
from octc.stats.patients import UNKNOWN

INNER = 0.2  # share of a fold's training images used to choose the epoch
LEAST = 5  # minimum patients per class of an acquisition for a fold: with fewer its metrics are meaningless


def make_folds(samples: Samples, dataset: str, k: int, seed: int, val: float = INNER) -> list[Split]:
    """Make `k` stratified folds grouped by patient. Each is a Split: `test` is held out, `val` is a share of the rest.

    With an official test part, folds are made inside train (images of patients in the test part are dropped), and every fold
    has the official test as the part "official". Out-of-fold metrics and metrics on the official test are reported separately.

    Raises:
        OctcError: E104 fewer than two folds; E207 a class with too few patients.
    """
    if k < 2:
        raise OctcError("OCT-E104", f"{k} folds", hint="--folds 5: at least 2", place="--folds")
    rest, official, dropped = apart(samples)
    rng = np.random.default_rng([seed, 0xF01D, k])
    number = _numbers(rest, samples.classes, k, rng, samples.may_lack)
    folds = []
    for fold in range(k):
        held = tuple(s for s, n in zip(rest, number, strict=True) if n == fold)
        others = [s for s, n in zip(rest, number, strict=True) if n != fold]
        inner = np.random.default_rng([seed, 0xF01D, k, fold])
        train, chosen = drawn(others, val, len(samples.classes), inner)
        split = _fold(samples, dataset, seed, {"train": train, "val": chosen, "test": held, OFFICIAL: official})
        split = replace(split, dropped=dropped, fold=(fold + 1, k))
        check_split(split)
        check_classes(split)
        folds.append(split)
    return folds


def _fold(samples: Samples, dataset: str, seed: int, parts: dict[str, tuple[Sample, ...]]) -> Split:
    """A split with these parts; without the part "official" if it is empty."""
    known = {name: items for name, items in parts.items() if items or name != OFFICIAL}
    return Split(dataset, samples.classes, seed, known, may_lack=samples.may_lack)


def leave_out(samples: Samples, dataset: str, by: str, seed: int, val: float = INNER) -> list[Split]:
    """Leave-one-acquisition-out cross-validation: one fold per acquisition, the one with most images first.

    `test` of a fold is the whole acquisition, and none of its patients is in train or val. The metrics estimate performance on
    a device or protocol that the network has not seen. Acquisitions with fewer than LEAST patients of a class are left out
    together; if even together they have too few, every fold trains on them (`never_left_out`). An official test is a part of
    every fold, as in `make_folds`.

    by: "size" or "site", as in `octc.datasets.acquisitions.acquisitions_of`.

    Raises:
        OctcError: E207 fewer than two acquisitions can be left out, or without one of them a class has no training images;
            E233 a class is absent from val or test; and the errors of `acquisitions_of`.
    """
    rest, official, dropped = apart(samples)
    names, small = _left_out(rest, acquisitions_of(samples.root, rest, by), samples, by)
    order = [
        name for name, _ in sorted(Counter(filter(None, names)).items(), key=lambda one: (one[0] == small, -one[1], one[0]))
    ]
    folds = []
    for number, name in enumerate(order, 1):
        others, held, lost = without(rest, [s for s, own in zip(rest, names, strict=True) if own == name])
        train, chosen = drawn(others, val, len(samples.classes), np.random.default_rng([seed, 0x0A7, number]))
        split = _fold(samples, dataset, seed, {"train": train, "val": chosen, "test": held, OFFICIAL: official})
        split = replace(split, dropped=dropped + lost, fold=(number, len(order)), left_out=f"{by} {name}")
        try:
            check_split(split)
            check_classes(split)
        except OctcError as error:
            beside = f", with {lost} other images of its patients" if lost else ""
            text = f"with {by} {name} left out{beside}: {error.message}"
            hint = f"use --folds 5, or group by something that fewer patients share; or {error.hint}"
            raise OctcError(error.code, text, hint=hint, place="--leave-out") from error
        folds.append(split)
    return folds


def never_left_out(folds: Sequence[Split]) -> int:
    """Number of images of acquisitions that no fold leaves out; every fold trains on them."""
    tested = {s.path for fold in folds for part in ("test", OFFICIAL) for s in fold.parts.get(part, ())}
    return len({s.path for fold in folds for part in ("train", "val") for s in fold.parts[part]} - tested)


def _left_out(items: Sequence[Sample], names: Sequence[str], samples: Samples, by: str) -> tuple[list[str], str]:
    """The name of each image's fold ("": never left out), and the name of the fold of small acquisitions ("": none).
    OctcError E207: there are fewer than two folds."""
    people: dict[str, list[set[int]]] = defaultdict(lambda: [set() for _ in samples.classes])
    groups = groups_of(items)
    for sample, name, group in zip(items, names, groups, strict=True):
        for k in range(len(samples.classes)):
            if sample.has(k):
                people[name][k].add(group)
    asked = [k for k, name in enumerate(samples.classes) if name not in samples.may_lack]
    whole = {name for name, own in people.items() if all(len(own[k]) >= LEAST for k in asked)}
    small = sorted(people.keys() - whole)
    together = [set().union(*(people[name][k] for name in small)) for k in asked]
    rest = f"others ({shorten(small, 3)})" if small and all(len(own) >= LEAST for own in together) else ""
    if len(whole) + bool(rest) < 2:
        counts = {name: min(len(own[k]) for k in asked) for name, own in people.items()}
        told = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items(), key=lambda one: -one[1])[:10])
        text = f"{len(whole) + bool(rest)} acquisitions by {by} can be left out; patients in the smallest class of each: {told}"
        raise OctcError("OCT-E207", text, hint=f"each needs {LEAST} patients of every class; or --folds 5", place="--leave-out")
    return [name if name in whole else rest for name in names], rest


def _numbers(
    items: Sequence[Sample], classes: Sequence[str], k: int, rng: np.random.Generator, may_lack: Sequence[str]
) -> list[int]:
    """The fold index of each image. Groups are assigned largest first (ties in random order), each to the fold where the sum of
    squared class shares grows least, so that every fold gets patients with many and with few images."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups_of(items)):
        members[group].append(i)
    groups = [(chosen, Counter(items[i].label for i in chosen)) for _, chosen in sorted(members.items())]
    people = Counter(label for _, counts in groups for label in counts)
    needed = {label: 2 if name in may_lack else k for label, name in enumerate(classes)}  # train may not lack a class
    if few := [label for label, count in needed.items() if people[label] < count]:
        whole = "images" if ids_of(items).state == UNKNOWN else "patients"
        named = ", ".join(f"{classes[label]} ({people[label]})" for label in few)
        text = f"{k} folds need {k} {whole} of each class, and 2 of one that val and test may lack; too few: {named}"
        least = min(people[label] for label in few)
        more = f"add {whole}: a fold holds out whole {whole}, and trains on the others; or leave the class out"
        hint = f"--folds {least}" if least >= 2 else more
        raise OctcError("OCT-E207", text, hint=hint, place="--folds")
    totals = Counter(s.label for s in items)
    held = [[0.0] * len(classes) for _ in range(k)]  # share of each class in each fold
    images = [0] * k
    number = [0] * len(items)
    order = [groups[j] for j in rng.permutation(len(groups))]
    ties = rng.permuted(np.tile(np.arange(k), (len(groups), 1)), axis=1).tolist()
    for (chosen, counts), tie in zip(sorted(order, key=lambda group: -len(group[0])), ties, strict=True):
        own = {label: count / totals[label] for label, count in counts.items()}
        loads = [sum(row[label] * share for label, share in own.items()) for row in held]
        fold = min(range(k), key=lambda f: (round(loads[f], 12), images[f], tie[f]))
        for label, share in own.items():
            held[fold][label] += share
        images[fold] += len(chosen)
        for i in chosen:
            number[i] = fold
    return number
