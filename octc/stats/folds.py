"""Metrics over the folds of a model: the spread of each metric, and the metrics of the summed confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from octc.stats.cluster_bootstrap import bootstrap_sums, dense_index, percentile_interval
from octc.stats.metric_intervals import MOST_LEFT_OUT
from octc.stats.metrics import ClassMetrics, Float64, Int64, Metrics, confusion_matrix, find_normal, metrics_of
from octc.stats.proportions import Interval

NAMES = (
    "accuracy",
    "macro_sensitivity",
    "macro_specificity",
    "macro_precision",
    "macro_f1",
    "disease_vs_normal_sensitivity",
    "disease_vs_normal_specificity",
)


@dataclass(frozen=True)
class Spread:
    """A metric over folds, as fractions. None if a fold lacks it; the sample deviation (ddof 1) needs two folds.

    KD-OCT reports the population deviation (ddof 0) after +-.
    """

    per_fold: tuple[float | None, ...]
    mean: float | None
    std_population: float | None
    std_sample: float | None


def spread_of(values: Sequence[float | None]) -> Spread:
    """Mean and both standard deviations of a metric over folds."""
    known = np.array([value for value in values if value is not None], np.float64)
    if len(known) < len(values) or not len(known):
        return Spread(tuple(values), None, None, None)
    sample = float(known.std(ddof=1)) if len(known) > 1 else None
    return Spread(tuple(values), float(known.mean()), float(known.std()), sample)


@dataclass(frozen=True)
class Folds:
    """Summary of folds. spreads: by metric. per_class: per class, by metric. pooled: metrics of the summed matrices."""

    spreads: dict[str, Spread]
    per_class: dict[str, tuple[Spread, ...]]
    pooled: Metrics


def summarise_folds(matrices: Sequence[npt.ArrayLike], normal: int | None = None) -> Folds:
    """Summarise the confusion matrices [true, predicted] of several folds with the same classes."""
    folds = [metrics_of(matrix, normal) for matrix in matrices]
    classes = range(len(folds[0].per_class))

    def of_class(name: str, k: int) -> Spread:
        rows: list[ClassMetrics] = [fold.per_class[k] for fold in folds]
        return spread_of([getattr(row, name) for row in rows])

    return Folds(
        spreads={name: spread_of([getattr(fold, name) for fold in folds]) for name in NAMES},
        per_class={
            name: tuple(of_class(name, k) for k in classes) for name in ("sensitivity", "specificity", "precision", "f1")
        },
        pooled=metrics_of(np.sum([np.asarray(matrix) for matrix in matrices], axis=0), normal),
    )


def bootstrap_figures(
    labels: Int64, predictions: Int64, clusters: Int64, classes: Sequence[str], resamples: int, seed: int
) -> dict[str, Interval | None]:
    """95 % patient bootstrap intervals of the metrics NAMES and of each class's sensitivity ("sensitivity NAME").

    Args:
        labels, predictions, clusters: [n]; clusters as from `octc.stats.cluster_bootstrap.cluster_index`.
    """
    count = len(classes)
    dense = dense_index(clusters)
    sums = np.zeros((int(dense.max()) + 1, count * count))
    np.add.at(sums, (dense, labels * count + predictions), 1.0)
    names = (*NAMES, *(f"sensitivity {name}" for name in classes))
    if len(sums) < 2:
        return dict.fromkeys(names)
    present = np.flatnonzero(confusion_matrix(labels, predictions, count).sum(1))
    normal = find_normal(classes)
    drawn = bootstrap_sums(sums, lambda total: _drawn_figures(total, count, present, normal), resamples, seed)
    found: dict[str, Interval | None] = {}
    for name, values in zip(names, drawn.T, strict=True):
        known = values[np.isfinite(values)]
        enough = len(known) >= (1 - MOST_LEFT_OUT) * len(values)
        found[name] = percentile_interval(known, 0.05) if enough else None
    return found


def _drawn_figures(total: Float64, count: int, present: Int64, normal: int | None) -> Float64:
    """Summed matrices [B, K * K] -> metrics NAMES and sensitivities [B, 7 + K]; NaN if undefined."""
    table = total.reshape(-1, count, count)
    n, hits = table.sum((1, 2)), np.diagonal(table, axis1=1, axis2=2)
    support, predicted = table.sum(2), table.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity = hits / support
        specificity = (n[:, None] - support - predicted + hits) / (n[:, None] - support)
        precision = hits / predicted
        f1 = 2 * hits / (support + predicted)
        macro = [part[:, present].mean(1) for part in (sensitivity, specificity, precision, f1)]
        ill = np.full((len(total), 2), np.nan)
        if normal is not None:
            sick = np.delete(np.delete(table, normal, 1), normal, 2).sum((1, 2))
            ill = np.stack([sick / (n - support[:, normal]), sensitivity[:, normal]], axis=1)
        return np.column_stack([hits.sum(1) / n, *macro, ill, sensitivity])
