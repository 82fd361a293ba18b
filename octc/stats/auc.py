"""Areas under ROC curves of two models on the same images: DeLong, and the patient bootstrap (docs/parity.md, section 8).

One class against the rest, from its softmax probability; equal scores count one half.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.stats.cluster_bootstrap import dense_index, percentile_interval, resampled_weights
from octc.stats.metric_intervals import MANY_IMAGES, MOST_LEFT_OUT
from octc.stats.metrics import Bool, Float64, Int64, present_classes
from octc.stats.outcome import Outcome
from octc.stats.proportions import Interval, normal_cdf, z_of

FLAT = 1e-12  # standard errors below it count as 0 (complete separation)


def midranks(values: Float64) -> Float64:
    """Ranks from 1; tied values get the mean of their ranks."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    counts = np.diff(np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]])))
    ordered = np.repeat(np.cumsum(counts) - (counts - 1) / 2, counts)
    out = np.empty(len(values))
    out[order] = ordered
    return out


def placements(scores: npt.ArrayLike, positives: npt.ArrayLike) -> tuple[Float64, Float64]:
    """DeLong's placements V10 [m] and V01 [l]: share of negatives below each positive, and of positives above each negative.

    DeLong et al. 1988, computed from ranks (Sun and Xu 2014).
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(positives, bool)
    above, below = values[truth], values[~truth]
    whole = midranks(values)
    v10: Float64 = (whole[truth] - midranks(above)) / len(below)
    v01: Float64 = 1 - (whole[~truth] - midranks(below)) / len(above)
    return v10, v01


@dataclass(frozen=True)
class Delong:
    """Two AUCs and the covariance of their estimates. `p`: two-sided test of no difference; None if the standard error is 0."""

    reference: float
    candidate: float
    var_reference: float
    var_candidate: float
    covariance: float

    @property
    def difference(self) -> float:
        return self.candidate - self.reference

    @property
    def error(self) -> float:
        """Standard error of the difference."""
        return math.sqrt(max(self.var_reference + self.var_candidate - 2 * self.covariance, 0.0))

    @property
    def p(self) -> float | None:
        return None if self.error < FLAT else 2 * normal_cdf(-abs(self.difference) / self.error)

    def difference_interval(self, alpha: float = 0.05) -> Interval | None:
        """Wald interval of the difference; None if the standard error is 0."""
        if self.error < FLAT:
            return None
        half = z_of(alpha) * self.error
        return self.difference - half, self.difference + half


def delong(reference: npt.ArrayLike, candidate: npt.ArrayLike, positives: npt.ArrayLike) -> Delong | None:
    """DeLong's comparison of two scores [n] on the same images; None with fewer than two positives or negatives."""
    truth = np.asarray(positives, bool)
    if truth.sum() < 2 or (~truth).sum() < 2:
        return None
    (r10, r01), (c10, c01) = placements(reference, truth), placements(candidate, truth)
    spread = np.cov(np.stack([r10, c10])) / len(r10) + np.cov(np.stack([r01, c01])) / len(r01)
    return Delong(float(r10.mean()), float(c10.mean()), float(spread[0, 0]), float(spread[1, 1]), float(spread[0, 1]))


def logit_interval(area: float, variance: float, alpha: float = 0.05) -> Interval | None:
    """Interval of one AUC, computed on the logit scale; None if the variance is 0, or the AUC 0 or 1."""
    if math.sqrt(max(variance, 0.0)) < FLAT or not 0 < area < 1:
        return None
    half = z_of(alpha) * math.sqrt(variance) / (area * (1 - area))
    middle = math.log(area / (1 - area))
    low, high = ((1 + math.tanh(value / 2)) / 2 for value in (middle - half, middle + half))
    return low, high


class Areas:
    """One-vs-rest AUCs of one model over weighted images, which are sorted once."""

    def __init__(self, scores: Float64, labels: Int64, classes: Int64) -> None:
        self._truth = [labels == k for k in classes]
        self._order = [np.argsort(scores[:, k], kind="stable") for k in classes]
        ordered = [scores[order, k] for order, k in zip(self._order, classes, strict=True)]
        self._starts = [np.flatnonzero(np.diff(one, prepend=-np.inf)) for one in ordered]

    def of(self, weights: Float64) -> Float64:
        """Weights [B, n] -> AUCs [B, classes]; NaN if positives or negatives have no weight."""
        return np.column_stack([self._one(weights, i) for i in range(len(self._truth))])

    def _one(self, weights: Float64, i: int) -> Float64:
        """AUC of class i: over groups of tied scores, positives times the negatives below and half of the tied ones."""
        order, truth, starts = self._order[i], self._truth[i], self._starts[i]
        rows = weights[:, order]
        up = np.add.reduceat(rows * truth[order], starts, axis=1)
        down = np.add.reduceat(rows * ~truth[order], starts, axis=1)
        below = np.cumsum(down, axis=1) - down
        with np.errstate(divide="ignore", invalid="ignore"):
            out: Float64 = (up * (below + down / 2)).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1))
        return out


@dataclass(frozen=True)
class AucRow:
    """AUCs of both models for one class (or their mean, "macro"), as fractions.

    method: "DeLong", "patient bootstrap" or (above MANY_IMAGES) "Obuchowski"; reason: why an interval is None ("degenerate",
    "one_cluster", "class_left_out"), or why there are no AUCs ("single_class", "empty_class", "too_few_images").
    """

    name: str
    reference: float | None = None
    candidate: float | None = None
    reference_interval: Interval | None = None
    candidate_interval: Interval | None = None
    difference_interval: Interval | None = None
    p: float | None = None
    method: str | None = None
    reason: str | None = None

    @property
    def difference(self) -> float | None:
        return None if self.reference is None or self.candidate is None else self.candidate - self.reference

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "difference": self.difference}


def compare_areas(
    labels: Int64,
    clusters: Int64 | None,
    models: tuple[Outcome, Outcome],
    names: Sequence[str],
    *,
    alpha: float,
    resamples: int,
    seed: int,
) -> tuple[AucRow, ...]:
    """One row per class, then "macro": the mean over the classes with images.

    With patients, intervals come from the patient bootstrap (on very large sets from Obuchowski's variance); without, from
    DeLong.
    """
    present = present_classes(labels)
    if len(present) < 2:
        return tuple(AucRow(name, reason="single_class") for name in (*names, "macro"))
    known = [*(names[k] for k in present), "macro"]
    if clusters is None:
        found = [delong(r, c, labels == k) for k, r, c in _columns(models, present)]
        rows = [_by_delong(name, one, alpha) for name, one in zip(known, [*found, _mean(models, labels, present)], strict=True)]
    elif len(labels) > MANY_IMAGES:
        dense = dense_index(clusters)
        rows = _by_obuchowski(known, models, labels, present, dense, alpha)
    else:
        groups = dense_index(clusters)
        both = tuple(Areas(one.probabilities, labels, present) for one in models)
        points = [np.append(row, row.mean()) for row in (one.of(np.ones((1, len(labels))))[0] for one in both)]
        drawn = _drawn(both, groups, resamples, seed)
        columns = [None if drawn is None else (drawn[0][:, j], drawn[1][:, j]) for j in range(len(known))]
        rows = [_resampled(name, float(points[0][j]), float(points[1][j]), columns[j], alpha) for j, name in enumerate(known)]
    by_name = {row.name: row for row in rows}
    return tuple(by_name.get(name, AucRow(name, reason="empty_class")) for name in (*names, "macro"))


def _columns(models: tuple[Outcome, Outcome], classes: Int64) -> Iterator[tuple[int, Float64, Float64]]:
    """(class, probabilities [n] of both models) for each class."""
    wanted = classes.tolist()
    return zip(wanted, *(one.class_probabilities(wanted) for one in models), strict=True)


def _mean(models: tuple[Outcome, Outcome], labels: Int64, present: Int64) -> Delong:
    """The mean AUC, with DeLong's variance of each image's contribution to the AUCs of all classes."""
    points, added = [], []
    for one in models:
        parts, areas = np.zeros(len(labels)), np.zeros(len(present))
        for j, (k, own) in enumerate(zip(present, one.class_probabilities(present.tolist()), strict=True)):
            v10, v01 = placements(own, labels == k)
            areas[j] = v10.mean()
            parts[labels == k] += (v10 - areas[j]) / len(v10)
            parts[labels != k] += (v01 - areas[j]) / len(v01)
        points.append(float(areas.mean()))
        added.append(parts / len(present))
    r, c = added
    return Delong(points[0], points[1], float(r @ r), float(c @ c), float(r @ c))


def _by_obuchowski(
    names: Sequence[str],
    models: tuple[Outcome, Outcome],
    labels: Int64,
    present: Int64,
    clusters: Int64,
    alpha: float,
) -> list[AucRow]:
    """A row per class and their mean, from each patient's contribution to the AUC (Obuchowski 1997)."""
    count = int(clusters.max()) + 1
    points: list[tuple[float, float]] = []
    sums, found = [np.zeros(count), np.zeros(count)], []
    for k, *both in _columns(models, present):
        r, c = (_area_parts(one, labels == k, clusters) for one in both)
        points.append((r[0], c[0]))
        if count > 1:
            found.append(_clustered(r, c))
            sums = [total + one[1] for total, one in zip(sums, (r, c), strict=True)]
    mean = tuple(float(np.mean(own)) for own in zip(*points, strict=True))
    if count == 1:
        alone = zip(names, [*points, mean], strict=True)
        return [AucRow(name, a, b, method="Obuchowski", reason="one_cluster") for name, (a, b) in alone]
    r, c = ((point, total / len(present)) for point, total in zip(mean, sums, strict=True))
    return [_row_of(name, one, alpha, "Obuchowski") for name, one in zip(names, [*found, _clustered(r, c)], strict=True)]


def _area_parts(scores: Float64, positives: Bool, clusters: Int64) -> tuple[float, Float64]:
    """An AUC, and the contribution of each cluster to its error [clusters]."""
    v10, v01 = placements(scores, positives)
    area = float(v10.mean())
    parts = np.empty(len(scores))
    parts[positives] = (v10 - area) / len(v10)
    parts[~positives] = (v01 - area) / len(v01)
    return area, np.bincount(clusters, weights=parts).astype(np.float64)


def _clustered(reference: tuple[float, Float64], candidate: tuple[float, Float64]) -> Delong:
    (a, r), (b, c) = reference, candidate
    factor = len(r) / (len(r) - 1)
    return Delong(a, b, factor * float(r @ r), factor * float(c @ c), factor * float(r @ c))


def _drawn(both: tuple[Areas, ...], groups: Int64, resamples: int, seed: int) -> tuple[Float64, Float64] | None:
    """AUCs of both models over resamples [B, classes + 1], the mean last; None with one cluster."""
    clusters = int(groups.max()) + 1
    if clusters == 1:
        return None
    found: tuple[list[Float64], list[Float64]] = ([], [])
    for weights in resampled_weights(clusters, resamples, seed):
        images = weights[:, groups]
        for kept, one in zip(found, both, strict=True):
            areas = one.of(images)
            kept.append(np.column_stack([areas, areas.mean(axis=1)]))
    return np.concatenate(found[0]), np.concatenate(found[1])


def _resampled(name: str, reference: float, candidate: float, values: tuple[Float64, Float64] | None, alpha: float) -> AucRow:
    how = "patient bootstrap"
    if values is None:
        return AucRow(name, reference, candidate, method=how, reason="one_cluster")
    good: Bool = np.isfinite(values[0]) & np.isfinite(values[1])
    if good.mean() < 1 - MOST_LEFT_OUT:
        return AucRow(name, reference, candidate, method=how, reason="class_left_out")
    r, c = values[0][good], values[1][good]
    limits = [None if np.ptp(one) < FLAT else percentile_interval(one, alpha) for one in (r, c, c - r)]
    reason = "degenerate" if any(one is None for one in limits) else None
    return AucRow(name, reference, candidate, limits[0], limits[1], limits[2], method=how, reason=reason)


def _by_delong(name: str, found: Delong | None, alpha: float) -> AucRow:
    if found is None:
        return AucRow(name, method="DeLong", reason="too_few_images")
    return _row_of(name, found, alpha, "DeLong")


def _row_of(name: str, found: Delong, alpha: float, method: str) -> AucRow:
    limits = (
        logit_interval(found.reference, found.var_reference, alpha),
        logit_interval(found.candidate, found.var_candidate, alpha),
        found.difference_interval(alpha),
    )
    reason = "degenerate" if any(one is None for one in limits) else None
    return AucRow(name, found.reference, found.candidate, *limits, p=found.p, method=method, reason=reason)
