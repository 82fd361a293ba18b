"""Predictions of one model on a set. Probabilities are computed from logits for BLOCK images at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.stats.metrics import BLOCK, Float64, Int64, brier_scores, combine_views, kl_scores, nll_scores

COLUMNS = 16 << 20  # maximum number of per-class probabilities in memory
AnyLogits = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Outcome:
    """Predictions of one model for n images, after combining its views.

    Attributes:
        logits: [n, views, K]. predictions: [n]. ties: number of images with several largest scores (the lowest index is
            predicted). scored: False if only predicted classes are known.
    """

    logits: AnyLogits
    predictions: Int64
    ties: int
    scored: bool = True

    def blocks(self) -> Iterator[tuple[slice, Float64, Float64]]:
        """(slice of images, probabilities [m, K], their logarithms) block by block."""
        for part in _parts(len(self.logits)):
            probabilities, logs = combine_views(self.logits[part])
            yield part, probabilities, logs

    def each(self, figure: Callable[[slice, Float64, Float64], Float64]) -> Float64:
        """Apply a function to each block; returns one value per image [n]."""
        found = np.empty(len(self.logits))
        for part, probabilities, logs in self.blocks():
            found[part] = figure(part, probabilities, logs)
        return found

    def scores(self, images: npt.ArrayLike) -> Float64:
        """Scores [m, K] of the selected images [m]: logits (one view) or mean probabilities."""
        return scores_of(self.logits[np.asarray(images)])

    @cached_property
    def probabilities(self) -> Float64:
        """Probabilities of all images [n, K]."""
        return combine_views(self.logits)[0]

    @cached_property
    def confidence(self) -> Float64:
        """Probability of the predicted class of each image [n]."""
        return self.each(lambda part, p, _: p[np.arange(len(p)), self.predictions[part]])

    def brier(self, labels: Int64) -> Float64:
        """Brier score of each image [n]."""
        return self.each(lambda part, p, _: brier_scores(p, labels[part]))

    def nll(self, labels: Int64) -> Float64:
        """Negative log likelihood of each image [n], nats."""
        return self.each(lambda part, _, logs: nll_scores(logs, labels[part]))

    def class_probabilities(self, classes: Sequence[int]) -> Iterator[Float64]:
        """The probabilities [n] of each of these classes, one class at a time."""
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
    """Logits [n, views, K] -> scores [n, K] whose maximum is the prediction: logits (one view), or mean probabilities."""
    return np.asarray(logits[:, 0], np.float64) if logits.shape[1] == 1 else combine_views(logits)[0]


def outcome_of(logits: AnyLogits) -> Outcome:
    """Predictions from the logits [n, views, K] of one model: the class with the largest score, at a tie the lowest index."""
    predictions, ties = np.empty(len(logits), np.int64), 0
    for part in _parts(len(logits)):
        scores = scores_of(logits[part])
        predictions[part] = scores.argmax(axis=1)
        ties += int(((scores == scores.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
    return Outcome(logits, predictions, ties)


def kl_of(reference: Outcome, candidate: Outcome) -> Float64:
    """KL divergence of each image [n] from reference to candidate, nats."""
    found = np.empty(len(reference.logits))
    for (part, _, r), (_, _, c) in zip(reference.blocks(), candidate.blocks(), strict=True):
        found[part] = kl_scores(r, c)
    return found
