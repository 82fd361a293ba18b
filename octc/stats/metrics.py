"""Metrics of one classifier on one labelled set: confusion matrix and its metrics, calibration, divergence.

All functions take arrays and return float64 values; an undefined metric is None, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.stats.sorted_ids import sorted_ids

BLOCK = 65_536  # images per block of float64 values by class
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


def confusion_matrix(labels: npt.ArrayLike, predictions: npt.ArrayLike, classes: int) -> Int64:
    """Counts [true, predicted], shape [classes, classes]."""
    true, predicted = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def present_classes(labels: Int64) -> Int64:
    """The sorted classes that occur in labels [n]."""
    return np.flatnonzero(np.bincount(labels)).astype(np.int64)


@dataclass(frozen=True)
class ClassMetrics:
    """One class against the rest. support: number of its images; predicted: number of images predicted as it."""

    support: int
    predicted: int
    tp: int
    fp: int
    fn: int
    tn: int
    sensitivity: float | None
    specificity: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class Metrics:
    """Metrics of a confusion matrix, as fractions.

    Macro averages are unweighted means over the classes with images; None if only one class has images, or if the metric is
    undefined for one of them. Disease against normal is None without `normal`, or without images on either side.
    """

    n: int
    accuracy: float | None
    macro_sensitivity: float | None
    macro_specificity: float | None
    macro_precision: float | None
    macro_f1: float | None
    disease_vs_normal_sensitivity: float | None
    disease_vs_normal_specificity: float | None
    per_class: tuple[ClassMetrics, ...]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _one_class(matrix: Int64, k: int) -> ClassMetrics:
    n, tp = int(matrix.sum()), int(matrix[k, k])
    support, predicted = int(matrix[k].sum()), int(matrix[:, k].sum())
    fp, fn = predicted - tp, support - tp
    tn = n - tp - fp - fn
    if support == 0:
        return ClassMetrics(support, predicted, tp, fp, fn, tn, None, None, None, None)
    return ClassMetrics(
        support,
        predicted,
        tp,
        fp,
        fn,
        tn,
        _ratio(tp, support),
        _ratio(tn, tn + fp),
        _ratio(tp, predicted),
        _ratio(2 * tp, 2 * tp + fp + fn),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) and len(known) > 1 else None


def metrics_of(matrix: npt.ArrayLike, normal: int | None = None) -> Metrics:
    """The metrics of a confusion matrix [true, predicted]; `normal` is the index of the class without disease."""
    table = np.asarray(matrix, np.int64)
    per_class = tuple(_one_class(table, k) for k in range(len(table)))
    present = [one for one in per_class if one.support]
    n = int(table.sum())
    disease = None if normal is None else n - per_class[normal].support
    kept = None if normal is None else int(np.delete(np.delete(table, normal, 0), normal, 1).sum())
    return Metrics(
        n=n,
        accuracy=_ratio(int(np.trace(table)), n),
        macro_sensitivity=_mean([one.sensitivity for one in present]),
        macro_specificity=_mean([one.specificity for one in present]),
        macro_precision=_mean([one.precision for one in present]),
        macro_f1=_mean([one.f1 for one in present]),
        disease_vs_normal_sensitivity=None if disease is None or kept is None else _ratio(kept, disease),
        disease_vs_normal_specificity=None if normal is None else per_class[normal].sensitivity,
        per_class=per_class,
    )


def find_normal(classes: Sequence[str]) -> int | None:
    """Index of the class named "normal" (any letter case), or None."""
    return next((k for k, name in enumerate(classes) if name.lower() == "normal"), None)


def softmax(logits: npt.ArrayLike) -> Float64:
    """Softmax over the last axis in float64."""
    values = np.asarray(logits, np.float64)
    raised: Float64 = np.exp(values - values.max(axis=-1, keepdims=True))
    out: Float64 = raised / raised.sum(axis=-1, keepdims=True)
    return out


def log_softmax(logits: npt.ArrayLike) -> Float64:
    """Logarithm of the softmax over the last axis in float64, without underflow."""
    values = np.asarray(logits, np.float64)
    shifted = values - values.max(axis=-1, keepdims=True)
    out: Float64 = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return out


def combine_views(logits: npt.ArrayLike) -> tuple[Float64, Float64]:
    """Combine logits [N, views, K] -> (probabilities [N, K], their logarithms).

    Views are combined by the mean of their softmax probabilities, not of their logarithms (docs/parity.md, section 12).
    """
    logs = log_softmax(logits)
    if logs.shape[1] == 1:
        return np.exp(logs[:, 0]), logs[:, 0]
    mean: Float64 = np.exp(logs).mean(axis=1)
    return mean, np.log(np.maximum(mean, np.finfo(np.float64).tiny))


def confidence_order(confidence: npt.ArrayLike, ids: Sequence[str]) -> Int64:
    """Indices of the images sorted by (confidence, id): the order for equal-mass bins, the same on every machine."""
    values, (_, order) = np.asarray(confidence, np.float64), sorted_ids(ids)
    if order is None:
        return np.argsort(values, kind="stable").astype(np.int64, copy=False)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return np.lexsort((rank, values)).astype(np.int64)


def ece_mass(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> float:
    """Expected calibration error with equal-mass bins; the arrays must be in `confidence_order`.

    Bin sizes differ by at most one, larger bins first. Naeini et al. 2015, Guo et al. 2017.
    """
    conf, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    parts = zip(np.array_split(conf, bins), np.array_split(right, bins), strict=True)
    return float(sum(abs(c.sum() - r.sum()) for c, r in parts) / len(conf))


def ece_width(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> float:
    """Expected calibration error with equal-width bins (lo, hi]."""
    conf, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    where = np.clip(np.searchsorted(np.linspace(0.0, 1.0, bins + 1), conf, side="left") - 1, 0, bins - 1)
    gaps = np.bincount(where, weights=conf - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(conf))


def brier_scores(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Float64:
    """Brier score of each image [N], 0 to 2: squared distance of its probabilities [N, K] from the one-hot label."""
    p = np.asarray(probabilities, np.float64)
    out: Float64 = ((p - np.eye(p.shape[1])[np.asarray(labels)]) ** 2).sum(axis=1)
    return out


def nll_scores(log_probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Float64:
    """Negative log-likelihood of each image [N], nats."""
    logs = np.asarray(log_probabilities, np.float64)
    out: Float64 = -logs[np.arange(len(logs)), np.asarray(labels)]
    return out


def kl_scores(reference_logs: npt.ArrayLike, candidate_logs: npt.ArrayLike) -> Float64:
    """KL divergence of each image [N] from reference to candidate, nats; from log-probabilities [N, K]."""
    r, c = np.asarray(reference_logs, np.float64), np.asarray(candidate_logs, np.float64)
    out: Float64 = (np.exp(r) * (r - c)).sum(axis=1)
    return np.maximum(out, 0.0)


def top_two_margin(scores: npt.ArrayLike) -> Float64:
    """Largest minus second largest score of each image [N, K]; infinity for a single class."""
    ordered = np.sort(np.asarray(scores, np.float64), axis=1)
    out: Float64 = ordered[:, -1] - ordered[:, -2] if ordered.shape[1] > 1 else np.full(len(ordered), np.inf)
    return out


def logit_distances(reference: npt.ArrayLike, candidate: npt.ArrayLike) -> dict[str, Any]:
    """Distances between raw logits [N, views, K].

    Returns max, p99 and mean of the absolute difference, the largest difference after centring each row, and `s`: the mean over
    rows of (largest - smallest) reference logit.
    """
    before, after = np.asarray(reference), np.asarray(candidate)
    largest, spread = np.empty(before.shape[:-1]), np.empty(before.shape[:-1])
    sums, centred = [], 0.0
    for start in range(0, len(before), BLOCK):
        part = slice(start, start + BLOCK)
        r = np.asarray(before[part], np.float64)
        gap = np.asarray(after[part], np.float64) - r
        centred = max(centred, float(np.abs(gap - gap.mean(axis=-1, keepdims=True)).max()))
        size = np.abs(gap)
        sums.append(float(size.sum()))
        largest[part], spread[part] = size.max(axis=-1), r.max(axis=-1) - r.min(axis=-1)
    return {
        "dlogit_max": float(largest.max()),
        "dlogit_p99": float(np.quantile(largest, 0.99)),
        "dlogit_mean": math.fsum(sums) / before.size,
        "dlogit_centred_max": centred,
        "s": float(spread.mean()),
    }
