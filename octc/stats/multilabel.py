"""Multi-label metrics: sigmoid scores, pooling by eye, sensitivity, specificity etc. per class, mAP, thresholds.

All functions take arrays and return float64 values; an undefined metric is None, never NaN. A class without positives has no
AUC and no AP, and is left out of the means, which report their number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.stats.metrics import Bool, Float64
from octc.stats.roc import average_precision, roc

# pooling of the images of an eye [m, K]: scores, and labels (of any image, of the first, of the majority)
POOL: dict[str, Callable[[Any], Any]] = {"max": lambda own: own.max(0), "mean": lambda own: own.mean(0)}
TRUTH: dict[str, Callable[[Any], Any]] = {
    "union": lambda own: own.any(0),
    "first": lambda own: own[0],
    "mode": lambda own: own.mean(0) > 0.5,
}
COLUMNS = ("class", "sensitivity", "specificity", "accuracy", "auc", "ap", "f1", "f1_ss", "support", "predicted", "threshold")
MEANS = ("sensitivity", "specificity", "accuracy", "auc", "ap", "f1", "f1_ss")
HALF = 0.5


def sigmoid(logits: npt.ArrayLike) -> Float64:
    """Sigmoid in float64, without overflow."""
    values = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(values))
    out: Float64 = np.where(values >= 0, 1, small) / (1 + small)
    return out


def view_scores(logits: npt.ArrayLike) -> Float64:
    """Logits [N, views, K] -> scores [N, K]: the mean of the views' probabilities."""
    out: Float64 = sigmoid(logits).mean(axis=1)
    return out


def target_matrix(targets: Sequence[Sequence[int]], classes: int) -> Bool:
    """Class indices of each image -> boolean matrix [N, K]."""
    matrix = np.zeros((len(targets), classes), bool)
    for row, own in enumerate(targets):
        matrix[row, list(own)] = True
    return matrix


@dataclass(frozen=True)
class Eyes:
    """Scores [E, K], labels [E, K] and patients of eyes (of images, if no eye is known), sorted by name."""

    names: tuple[str, ...]
    scores: Float64
    truth: Bool
    patients: tuple[str | None, ...]


def by_eye(
    scores: Float64,
    truth: Bool,
    eyes: Sequence[str],
    patients: Sequence[str | None],
    *,
    pool: str = "max",
    label: str = "union",
) -> Eyes:
    """Pool images [N, K] by eye. The score of an eye is the maximum (or mean) over its images.

    The labels of an eye are the union of its images' labels, those of its first image (as QD-RetNet), or those of the majority.
    """
    names = sorted(set(eyes))
    place = {name: i for i, name in enumerate(names)}
    rows: list[list[int]] = [[] for _ in names]
    for i, eye in enumerate(eyes):
        rows[place[eye]].append(i)
    pooled, labelled = POOL[pool], TRUTH[label]
    return Eyes(
        tuple(names),
        np.stack([pooled(scores[own]) for own in rows]),
        np.stack([labelled(truth[own]) for own in rows]),
        tuple(patients[own[0]] for own in rows),
    )


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def harmonic_mean(one: float | None, other: float | None) -> float | None:
    """Harmonic mean; 0 if both are 0, None if one is None."""
    if one is None or other is None:
        return None
    return 2 * one * other / (one + other) if one + other else 0.0


def class_figures(scores: Float64, truth: Bool, threshold: float) -> dict[str, Any]:
    """Metrics of one class: scores [N], truth [N], positive at "score >= threshold". f1_ss: harmonic mean of sens. and spec."""
    predicted = scores >= threshold
    tp, fp, fn, tn = (
        int((a & b).sum()) for a, b in ((predicted, truth), (predicted, ~truth), (~predicted, truth), (~predicted, ~truth))
    )
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    curve = roc(scores, truth)
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "accuracy": _ratio(tp + tn, len(truth)),
        "auc": None if curve is None else curve.area,
        "ap": average_precision(scores, truth),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn) if tp + fn else None,
        "f1_ss": harmonic_mean(sensitivity, specificity),
        "support": tp + fn,
        "predicted": tp + fp,
        "threshold": float(threshold),
    }


def figures(eyes: Eyes, classes: Sequence[str], thresholds: Sequence[float]) -> list[dict[str, Any]]:
    """One row of metrics per class, with the keys of COLUMNS."""
    rows = zip(classes, range(len(classes)), thresholds, strict=True)
    return [{"class": name, **class_figures(eyes.scores[:, k], eyes.truth[:, k], at)} for name, k, at in rows]


def overall(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Unweighted means over the classes with a defined metric, and the number of these classes; `ap` is the mAP."""
    known = {name: [row[name] for row in rows if row[name] is not None] for name in MEANS}
    means: dict[str, Any] = {name: float(np.mean(values)) if values else None for name, values in known.items()}
    absent = [row["class"] for row in rows if not row["support"]]
    return {**means, "classes": {name: len(values) for name, values in known.items()}, "without_positives": absent}


def mean_ap(scores: Float64, truth: Bool) -> float | None:
    """mAP of scores [N, K] over the classes with a positive; None if no class has one."""
    values = [average_precision(scores[:, k], truth[:, k]) for k in range(truth.shape[1])]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def chance_map(truth: Bool) -> float:
    """The expected mAP of random scores: the mean share of positives."""
    return float(truth.mean(0)[truth.any(0)].mean())


def tuned_thresholds(eyes: Eyes) -> tuple[float, ...]:
    """The threshold of each class with the largest sensitivity + specificity (Youden's J); 0.5 without positives or negatives.

    The threshold is midway between the chosen score and the next lower one, so that equal scores are classified alike.
    """
    found = []
    for k in range(eyes.truth.shape[1]):
        curve = roc(eyes.scores[:, k], eyes.truth[:, k])
        if curve is None:
            found.append(0.5)
            continue
        best = int(np.argmax(curve.true_positive - curve.false_positive))
        low = curve.threshold[best + 1] if best + 1 < len(curve.threshold) else 0.0
        high = min(float(curve.threshold[best]), 1.0)
        found.append((high + float(low)) / 2)
    return tuple(found)


def thresholds_of(details: dict[str, Any], classes: int) -> tuple[float, ...]:
    """The thresholds in a manifest, 0.5 without any (ValueError: invalid thresholds)."""
    stated = details.get("thresholds")
    if stated is None:
        return (HALF,) * classes
    values = tuple(float(value) for value in stated)
    if len(values) != classes or not all(0 <= value <= 1 for value in values):
        raise ValueError(f"thresholds {stated!r}"[:200])
    return values
