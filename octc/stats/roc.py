"""Receiver operating characteristic and precision over recall of one score, from stored predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from octc.stats.metrics import Float64


@dataclass(frozen=True)
class Roc:
    """Points from (0, 0) to (1, 1), one for each distinct score and the origin (threshold infinity).

    false_positive, true_positive: rates at "score >= threshold". All three have one length.
    """

    false_positive: Float64
    true_positive: Float64
    threshold: Float64

    @property
    def area(self) -> float:
        """Trapezoids: the chance that a positive scores above a negative, ties counted half."""
        steps = np.diff(self.false_positive)
        return float((steps * (self.true_positive[1:] + self.true_positive[:-1]) / 2).sum())


def _counts(scores: npt.ArrayLike, positives: npt.ArrayLike) -> tuple[Float64, Float64, Float64]:
    """Thresholds, falling, and the true and false positives at each of them."""
    values, truth = np.asarray(scores, np.float64), np.asarray(positives, bool)
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    hits = np.cumsum(truth)[last].astype(np.float64)
    return values[last], hits, (last + 1) - hits


def roc(scores: npt.ArrayLike, positives: npt.ArrayLike) -> Roc | None:
    """The curve of scores [n] against truth [n]; None where one of both sides has no image."""
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
    """Sum over thresholds of precision times the gain in recall, without interpolation; None without a positive."""
    truth = np.asarray(positives, bool)
    if not truth.any():
        return None
    _, hits, misses = _counts(scores, truth)
    gain = np.diff(hits, prepend=0.0) / hits[-1]
    return float((gain * hits / (hits + misses)).sum())
