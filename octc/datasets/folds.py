"""Cross-validation by patient: every image that may be trained on is held out exactly once, or one acquisition at a time.

An image whose patient is not known is a group of its own, as in `octc.datasets.split`.
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

INNER = 0.2  # share of what a fold trains on that chooses the epoch
LEAST = 5  # patients of each class without which an acquisition is no fold: its figures would say nothing


def make_folds(samples: Samples, dataset: str, k: int, seed: int, val: float = INNER) -> list[Split]:
    """`k` patient-grouped stratified folds, each a Split: `test` is what the fold holds out, `val` an inner share of the rest.

    Where the layout has an official test part, folds are made inside train (without images of its patients, which are
    dropped), and every fold carries the official test as the part "official": out-of-fold figures and figures on the fixed
    test are two things and are named so.

    Raises:
        OctcError: E104 fewer than two folds, E207 a class that too few patients have.
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
    """A split of these parts, without an official test where there is none."""
    known = {name: items for name, items in parts.items() if items or name != OFFICIAL}
    return Split(dataset, samples.classes, seed, known, may_lack=samples.may_lack)


def leave_out(samples: Samples, dataset: str, by: str, seed: int, val: float = INNER) -> list[Split]:
    """A fold for each acquisition, the one with most images first: `test` is all that it has, and nobody in it is trained on.

    This is leave-one-group-out cross-validation: it tells how a network does on images of another device or protocol than it
    has seen. An acquisition with fewer than LEAST patients of a class is left out together with the others of its kind; where
    they are too few even together they are trained on and never left out (`never_left_out`). The official test, where there is
    one, is a part of every fold, as in `make_folds`. by: "size" or "site", of `octc.datasets.acquisitions.acquisitions_of`.

    Raises:
        OctcError: E207 fewer than two acquisitions that can be left out, or one without whose patients a class has no images
            to train on, E233 a class that is left nowhere, and what `acquisitions_of` raises.
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
            text = f"where {by} {name} is left out{beside}: {error.message}"
            hint = f"--folds 5, or --leave-out by what fewer patients share; or {error.hint}"
            raise OctcError(error.code, text, hint=hint, place="--leave-out") from error
        folds.append(split)
    return folds


def never_left_out(folds: Sequence[Split]) -> int:
    """How many images are of acquisitions that none of the folds leaves out, so that all of them train on these."""
    tested = {s.path for fold in folds for part in ("test", OFFICIAL) for s in fold.parts.get(part, ())}
    return len({s.path for fold in folds for part in ("train", "val") for s in fold.parts[part]} - tested)


def _left_out(items: Sequence[Sample], names: Sequence[str], samples: Samples, by: str) -> tuple[list[str], str]:
    """The fold of each image by name, "" where it is never left out, and the name of the fold of small acquisitions, "" where
    there is none (OctcError E207 where there are no two folds)."""
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
        text = f"{len(whole) + bool(rest)} acquisitions by {by} can be left out; patients of the class with fewest: {told}"
        raise OctcError("OCT-E207", text, hint=f"each needs {LEAST} patients of every class; or --folds 5", place="--leave-out")
    return [name if name in whole else rest for name in names], rest


def _numbers(
    items: Sequence[Sample], classes: Sequence[str], k: int, rng: np.random.Generator, may_lack: Sequence[str]
) -> list[int]:
    """The fold of each image. Groups come largest first (ties in random order), each into the fold that has least of its
    classes so far: that is where the sum of squared class shares grows least. Every fold gets busy and quiet patients."""
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
    held = [[0.0] * len(classes) for _ in range(k)]  # share of each class that a fold has
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
