"""ROC curve and average precision of one score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from octc.stats.metrics import Float64


@dataclass(frozen=True)
class Roc:
    """ROC curve from (0, 0) to (1, 1): a point per distinct score, and the origin (threshold infinity).

    false_positive, true_positive: rates at "score >= threshold". All three arrays have the same length.
    """

    false_positive: Float64
    true_positive: Float64
    threshold: Float64

    @property
    def area(self) -> float:
        """AUC by the trapezoidal rule: the probability that a positive scores above a negative, ties counted half."""
        steps = np.diff(self.false_positive)
        return float((steps * (self.true_positive[1:] + self.true_positive[:-1]) / 2).sum())


def _counts(scores: npt.ArrayLike, positives: npt.ArrayLike) -> tuple[Float64, Float64, Float64]:
    """Decreasing thresholds, and the numbers of true and false positives at each."""
    values, truth = np.asarray(scores, np.float64), np.asarray(positives, bool)
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    hits = np.cumsum(truth)[last].astype(np.float64)
    return values[last], hits, (last + 1) - hits


def roc(scores: npt.ArrayLike, positives: npt.ArrayLike) -> Roc | None:
    """The ROC curve of scores [n] for labels [n]; None without positives or negatives."""
    truth = np.asarray(positives, bool)
    if not truth.any() or truth.all():
        return None
    thresholds, hits, misses = _counts(scores, truth)
    return Roc(
        np.concatenate([[0.0], misses / misses[-1]]),
        np.concatenate([[0.0], hits / hits[-1]]),
        np.concatenate([[np.inf], thresholds]),
    )


def average_precision(scores: npt.ArrayLike, positives: npt.ArrayLike) -> float | None:
    """Average precision: sum over thresholds of precision times the increase of recall; None without positives."""
    truth = np.asarray(positives, bool)
    if not truth.any():
        return None
    _, hits, misses = _counts(scores, truth)
    gain = np.diff(hits, prepend=0.0) / hits[-1]
    return float((gain * hits / (hits + misses)).sum())
