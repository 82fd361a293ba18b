"""What one model predicted for the images of a set. Probabilities are made from logits for BLOCK images at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.stats.metrics import BLOCK, Float64, Int64, brier_scores, combine_views, kl_scores, nll_scores

COLUMNS = 16 << 20  # probabilities of single classes that are held at once
AnyLogits = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Outcome:
    """What one model predicted for n images, after its views were combined.

    Attributes:
        logits: [n, views, K]. predictions: [n]. ties: images whose largest score occurs more than once (the lowest index is
            taken). scored: False where answers alone are known.
    """

    logits: AnyLogits
    predictions: Int64
    ties: int
    scored: bool = True

    def blocks(self) -> Iterator[tuple[slice, Float64, Float64]]:
        """(images, their probabilities [m, K], the logarithms of these), in order."""
        for part in _parts(len(self.logits)):
            probabilities, logs = combine_views(self.logits[part])
            yield part, probabilities, logs

    def each(self, figure: Callable[[slice, Float64, Float64], Float64]) -> Float64:
        """A number for each image [n], of what `blocks` gives."""
        found = np.empty(len(self.logits))
        for part, probabilities, logs in self.blocks():
            found[part] = figure(part, probabilities, logs)
        return found

    def scores(self, images: npt.ArrayLike) -> Float64:
        """Scores [m, K] of some images [m]: logits (one view) or mean probabilities."""
        return scores_of(self.logits[np.asarray(images)])

    @cached_property
    def probabilities(self) -> Float64:
        """[n, K], of all images at once."""
        return combine_views(self.logits)[0]

    @cached_property
    def confidence(self) -> Float64:
        """Probability of the predicted class [n]."""
        return self.each(lambda part, p, _: p[np.arange(len(p)), self.predictions[part]])

    def brier(self, labels: Int64) -> Float64:
        """Brier score of each image [n]."""
        return self.each(lambda part, p, _: brier_scores(p, labels[part]))

    def nll(self, labels: Int64) -> Float64:
        """Negative log likelihood of each image [n], nats."""
        return self.each(lambda part, _, logs: nll_scores(logs, labels[part]))

    def class_probabilities(self, classes: Sequence[int]) -> Iterator[Float64]:
        """The probability of each of these classes [n], one class after another."""
        at_once = max(1, COLUMNS // max(1, len(self.logits)))
        for start in range(0, len(classes), at_once):
            own = list(classes[start : start + at_once])
            found = np.empty((len(own), len(self.logits)))
            for part, probabilities, _ in self.blocks():
                found[:, part] = probabilities[:, own].T
            yield from found


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, count, BLOCK))


def scores_of(logits: AnyLogits) -> Float64:
    """Logits [n, views, K] -> what decides [n, K]: the logits of one view, the mean probabilities of several."""
    return np.asarray(logits[:, 0], np.float64) if logits.shape[1] == 1 else combine_views(logits)[0]


def outcome_of(logits: AnyLogits) -> Outcome:
    """Logits [n, views, K] of one model -> what it predicted. The largest score wins, the lowest index on a tie."""
    predictions, ties = np.empty(len(logits), np.int64), 0
    for part in _parts(len(logits)):
        scores = scores_of(logits[part])
        predictions[part] = scores.argmax(axis=1)
        ties += int(((scores == scores.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
    return Outcome(logits, predictions, ties)


def kl_of(reference: Outcome, candidate: Outcome) -> Float64:
    """KL divergence of each image [n], reference to candidate, nats."""
    found = np.empty(len(reference.logits))
    for (part, _, r), (_, _, c) in zip(reference.blocks(), candidate.blocks(), strict=True):
        found[part] = kl_scores(r, c)
    return found
