"""Patient-bootstrap intervals of the figures that are no simple proportion: macro values, ECE, Brier, NLL, agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octc.stats.cluster_bootstrap import dense_index, percentile_interval, pooled, resampled_weights
from octc.stats.metrics import Float64, Int64, brier_scores, confidence_order, nll_scores
from octc.stats.proportions import Interval

MANY_IMAGES = 5_000  # above them the edges of the bins are those of the whole set
MOST_LEFT_OUT = 0.01  # share of resamples without a class, above which the interval is null
BINS = 15


@dataclass(frozen=True)
class Outcome:
    """What one model predicted for n images, after its views were combined.

    scores [n, K]: logits (one view) or mean probabilities; probabilities and logs [n, K]; predictions [n]; ties: images
    whose largest score occurs more than once (the lowest index is taken); scored: False where answers alone are known.
    """

    scores: Float64
    probabilities: Float64
    logs: Float64
    predictions: Int64
    ties: int
    scored: bool = True

    @property
    def confidence(self) -> Float64:
        out: Float64 = self.probabilities[np.arange(len(self.predictions)), self.predictions]
        return out


def _per_cluster(values: Float64, clusters: Int64) -> Float64:
    """Sums of the rows of `values` [n, q] over clusters [k, q]."""
    return np.column_stack([np.bincount(clusters, weights=values[:, j]) for j in range(values.shape[1])])


def _model_columns(outcome: Outcome, labels: Int64, classes: int) -> Float64:
    """[n, 2K + 2]: hits by class, predictions by class, Brier, NLL."""
    found = np.zeros((len(labels), 2 * classes + 2))
    rows, right = np.arange(len(labels)), outcome.predictions == labels
    found[rows[right], labels[right]] = 1
    found[rows, classes + outcome.predictions] = 1
    found[:, -2], found[:, -1] = brier_scores(outcome.probabilities, labels), nll_scores(outcome.logs, labels)
    return found


def _figures(total: Float64, n: Float64, support: Float64, present: Int64) -> Float64:
    """Sums of one model over resamples [B, 2K + 2] -> macro sensitivity, macro specificity, Brier, NLL, and both by class.

    [B, 4 + 2P] for P classes with images: their sensitivities, then their specificities.
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
    """Equal-mass ECE of each resample; weights [B, n] are whole counts.

    Copies of an image lie side by side in the order, so the running sums are piecewise linear in the number of images and
    reading them at the bin edges is exact.
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
    """Sums [groups, BINS] of confidence less right answers by bin of equal mass of the whole set."""
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
    """Keys of the intervals of single classes: "sensitivity:2", "specificity:2" for the third class."""
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
    """Patient-bootstrap intervals, as fractions: for each model NAMES, `class_names` and ece_mass; "agreement": equal answers.

    Images are resampled where there are no patients, and pooled patients where there are very many. An interval is None with
    one cluster, or when more than 1 % of the resamples lacked a class that it needs; that of ECE also where answers have no
    scores.
    """
    groups = np.arange(len(labels)) if clusters is None else dense_index(clusters)
    present = np.unique(labels)
    keys = [*NAMES, *class_names(present), "ece_mass"]
    groups = pooled(groups, seed)
    if int(groups.max()) == 0:
        return {**{name: dict.fromkeys(keys) for name in models}, "agreement": {"rate": None}}
    first, second = models.values()
    same = (first.predictions == second.predictions).astype(np.float64)
    common = np.column_stack([np.ones(len(labels)), same, np.eye(classes)[labels]])
    sums = {name: _per_cluster(_model_columns(model, labels, classes), groups) for name, model in models.items()}
    shared = _per_cluster(common, groups)
    orders = {name: confidence_order(model.confidence, ids) for name, model in models.items()}
    few = len(labels) <= MANY_IMAGES
    binned = {} if few else {name: _bin_sums(model, labels, orders[name], groups) for name, model in models.items()}
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
