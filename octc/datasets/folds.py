"""Cross-validation by patient: every image that may be trained on is held out exactly once.

An image whose patient is not known is a group of its own, as in `octc.datasets.split`.
"""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from octc.core.errors import OctcError
from octc.datasets.base import Sample, Samples, ids_of
from octc.datasets.split import OFFICIAL, Split, apart, check_classes, check_split, drawn, groups_of
from octc.stats.patients import UNKNOWN

INNER = 0.2  # share of what a fold trains on that chooses the epoch


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
        parts = {"train": train, "val": chosen, "test": held}
        if official:
            parts[OFFICIAL] = official
        split = Split(dataset, samples.classes, seed, parts, dropped, fold=(fold + 1, k), may_lack=samples.may_lack)
        check_split(split)
        check_classes(split)
        folds.append(split)
    return folds


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
    asked = [label for label, name in enumerate(classes) if name not in may_lack]
    if few := [f"{classes[label]} ({people[label]})" for label in asked if people[label] < k]:
        whole = "images" if ids_of(items).state == UNKNOWN else "patients"
        text = f"{k} folds need {k} {whole} of each class; too few: {', '.join(few)}"
        least = min(people[label] for label in asked)
        names = shlex.quote(",".join(classes[label] for label in asked if people[label] < 2))
        more = f"add {whole}: a fold holds out whole {whole}; or --allow-empty {names}"
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
