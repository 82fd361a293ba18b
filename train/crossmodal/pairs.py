"""Unpaired images of the other modality, matched by label: which one stands beside a student's image in an epoch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Targets = tuple[int, ...]
SALT = 0x9A1B


@dataclass(frozen=True)
class Partners:
    """own, theirs: classes of every training image of the student's and of the other modality; same: combination -> theirs."""

    own: tuple[Targets, ...]
    theirs: tuple[Targets, ...]
    same: dict[Targets, tuple[int, ...]]

    def draw(self, seed: int, epoch: int, indices: Sequence[int]) -> tuple[list[int], list[bool]]:
        """A partner for each of the student's images, and whether its labels are the same.

        A random image with exactly the same combination of labels; where none has it, any random image. The draw depends on
        (seed, epoch, image) alone, so a resumed run and other batch sizes draw alike.
        """
        chosen, matched = [], []
        for index in indices:
            rng = np.random.default_rng([seed, epoch, index, SALT])
            fits = self.same.get(self.own[index], ())
            chosen.append(int(fits[rng.integers(len(fits))]) if fits else int(rng.integers(len(self.theirs))))
            matched.append(bool(fits))
        return chosen, matched


def make_partners(own: Sequence[Targets], theirs: Sequence[Targets]) -> Partners:
    """Partners for training images whose classes these are (indices, in any order)."""
    mine, others = (tuple(tuple(sorted(set(one))) for one in side) for side in (own, theirs))
    same: dict[Targets, list[int]] = defaultdict(list)
    for number, targets in enumerate(others):
        same[targets].append(number)
    return Partners(mine, others, {targets: tuple(numbers) for targets, numbers in same.items()})
