"""Patient bootstrap intervals of metrics that are not simple proportions: macro averages, ECE, Brier score, NLL, agreement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from octc.stats.cluster_bootstrap import dense_index, percentile_interval, pooled, resampled_weights
from octc.stats.metrics import Float64, Int64, confidence_order, present_classes
from octc.stats.outcome import Outcome
from octc.stats.proportions import Interval

MANY_IMAGES = 5_000  # above it, the bin edges of the whole set are used in all resamples
MOST_LEFT_OUT = 0.01  # maximum share of resamples without a class; above it the interval is None
BINS = 15


def _by_class(classes_of: Int64, clusters: Int64, count: int, classes: int) -> Float64:
    """Number of images per cluster and class [count, classes]."""
    found = np.bincount(clusters * classes + classes_of, minlength=count * classes)
    return found.reshape(count, classes).astype(np.float64)


def _model_sums(outcome: Outcome, labels: Int64, groups: Int64, count: int, classes: int) -> Float64:
    """Sums per cluster [count, 2K + 2]: hits per class, predictions per class, Brier score, NLL."""
    right = outcome.predictions == labels
    return np.column_stack(
        [
            _by_class(labels[right], groups[right], count, classes),
            _by_class(outcome.predictions, groups, count, classes),
            *(np.bincount(groups, weights=one(labels), minlength=count) for one in (outcome.brier, outcome.nll)),
        ]
    )


def _figures(total: Float64, n: Float64, support: Float64, present: Int64) -> Float64:
    """Sums of one model over resamples [B, 2K + 2] -> metrics [B, 4 + 2P] for P classes with images.

    Columns: macro sensitivity, macro specificity, Brier score, NLL, then sensitivities and specificities of the classes.
    """
    classes = support.shape[1]
    hits, predicted = total[:, :classes], total[:, classes : 2 * classes]
    others = n[:, None] - support
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity = (hits / support)[:, present]
        specificity = ((others - (predicted - hits)) / others)[:, present]
    scores = total[:, 2 * classes :] / n[:, None]
    return np.column_stack([sensitivity.mean(axis=1), specificity.mean(axis=1), scores, sensitivity, specificity])


def _ece_of(weights: Float64, outcome: Outcome, labels: Int64, order: Int64) -> Float64:
    """Equal-mass ECE of each resample; weights [B, n] are integer counts.

    Copies of an image are adjacent in the order, so the cumulative sums are piecewise linear in the number of images, and
    interpolation at the bin edges is exact.
    """
    gap = (outcome.confidence - (outcome.predictions == labels))[order]
    rows = weights[:, order]
    reached, running = np.cumsum(rows, axis=1), np.cumsum(rows * gap, axis=1)
    out = np.empty(len(rows))
    for i, (x, y) in enumerate(zip(reached, running, strict=True)):
        whole, more = divmod(int(x[-1]), BINS)
        edges = np.cumsum([0] + [whole + 1] * more + [whole] * (BINS - more))
        out[i] = np.abs(np.diff(np.interp(edges, np.concatenate([[0.0], x]), np.concatenate([[0.0], y])))).sum() / x[-1]
    return out


def _bin_sums(outcome: Outcome, labels: Int64, order: Int64, groups: Int64) -> Float64:
    """Sums [groups, BINS] of (confidence - correct) per group and equal-mass bin of the whole set."""
    gap = outcome.confidence - (outcome.predictions == labels)
    where = np.empty(len(order), np.int64)
    for j, own in enumerate(np.array_split(order, BINS)):
        where[own] = j
    count = int(groups.max()) + 1
    sums = np.bincount(groups * BINS + where, weights=gap, minlength=count * BINS)
    return sums.astype(np.float64).reshape(count, BINS)


def _interval(values: Float64, alpha: float) -> Interval | None:
    good = values[np.isfinite(values)]
    return percentile_interval(good, alpha) if len(good) >= (1 - MOST_LEFT_OUT) * len(values) else None


NAMES = ("macro_sensitivity", "macro_specificity", "brier", "nll")


def class_names(present: Int64) -> list[str]:
    """Keys of the per-class intervals: "sensitivity:2", "specificity:2" for the third class."""
    return [f"{figure}:{k}" for figure in ("sensitivity", "specificity") for k in present.tolist()]


def metric_intervals(
    ids: Sequence[str],
    labels: Int64,
    clusters: Int64 | None,
    models: dict[str, Outcome],
    classes: int,
    *,
    alpha: float,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Interval | None]]:
    """Patient bootstrap intervals, as fractions: for each model NAMES, `class_names` and ece_mass; "agreement": share of equal
    predictions.

    Without patients, images are resampled; with very many, pooled patients. An interval is None with one cluster, or if more
    than 1 % of the resamples lack a class that it needs; that of ECE also without scores.
    """
    groups = np.arange(len(labels)) if clusters is None else dense_index(clusters)
    present = present_classes(labels)
    keys = [*NAMES, *class_names(present), "ece_mass"]
    groups = pooled(groups, seed)
    if int(groups.max()) == 0:
        return {**{name: dict.fromkeys(keys) for name in models}, "agreement": {"rate": None}}
    first, second = models.values()
    count = int(groups.max()) + 1
    same = np.bincount(groups[first.predictions == second.predictions], minlength=count)
    shared = np.column_stack([np.bincount(groups), same, _by_class(labels, groups, count, classes)])
    sums = {name: _model_sums(model, labels, groups, count, classes) for name, model in models.items()}
    few = len(labels) <= MANY_IMAGES
    orders, binned = {}, {}
    for name, model in models.items():
        order = confidence_order(model.confidence, ids)
        if few:
            orders[name] = order
        else:
            binned[name] = _bin_sums(model, labels, order, groups)
    drawn: dict[str, list[Float64]] = {name: [] for name in (*models, "agreement")}
    for weights in resampled_weights(len(shared), resamples, seed):
        total = weights @ shared
        n, support = total[:, 0], total[:, 2:]
        images = weights[:, groups] if few else weights
        drawn["agreement"].append(total[:, 1:2] / n[:, None])
        for name, model in models.items():
            figures = _figures(weights @ sums[name], n, support, present)
            ece = np.full(len(n), np.nan)
            if model.scored:
                ece = _ece_of(images, model, labels, orders[name]) if few else np.abs(weights @ binned[name]).sum(axis=1) / n
            drawn[name].append(np.column_stack([figures, ece]))
    values = {name: np.concatenate(rows) for name, rows in drawn.items()}
    result: dict[str, dict[str, Interval | None]] = {
        name: {key: _interval(values[name][:, j], alpha) for j, key in enumerate(keys)} for name in models
    }
    if len(present) < 2:
        for name in models:
            result[name].update(macro_sensitivity=None, macro_specificity=None)
    result["agreement"] = {"rate": _interval(values["agreement"][:, 0], alpha)}
    return result
