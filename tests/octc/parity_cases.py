"""Logits that were made up so that counts come out as wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from octc.stats.comparison import Comparison, Known, Logits, compare_logits
from octc.stats.test_plan import ParityOptions

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
SURE = 4.0  # logit of the class that is said, the others have 0


def labels_of(n: int, classes: int = 4) -> list[int]:
    """n labels in turn."""
    return [i % classes for i in range(n)]


def says(answers: Sequence[int], classes: int = 4, sure: float = SURE) -> Logits:
    """Logits [n, 1, K] of a model that gives these answers."""
    out = np.zeros((len(answers), 1, classes), np.float32)
    out[np.arange(len(answers)), 0, list(answers)] = sure
    return out


def answers(labels: Sequence[int], wrong: Iterable[int], classes: int = 4) -> list[int]:
    """The labels, but the next class for the images `wrong`."""
    missed = set(wrong)
    return [(label + 1) % classes if i in missed else label for i, label in enumerate(labels)]


def counted(
    n: int, lost: int, gained: int, options: ParityOptions | None = None, *, both_wrong: int = 0,
    patients: Sequence[str | None] | None = None, **more: Any,
) -> Comparison:  # fmt: skip
    """n images of four classes with that many lost, gained and both wrong, in this order from the first image on."""
    labels = labels_of(n)
    lost_ones, gained_ones = range(lost), range(lost, lost + gained)
    bad = range(lost + gained, lost + gained + both_wrong)
    reference, candidate = answers(labels, [*gained_ones, *bad]), answers(labels, [*lost_ones, *bad])
    return compare_logits(
        [f"{i:05d}" for i in range(n)], labels, patients or [None] * n, says(reference), says(candidate), CLASSES,
        options or ParityOptions(bootstrap=1000), Known(**more),
    )  # fmt: skip
