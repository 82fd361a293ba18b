"""Patient clusters: design effect, scaled Tango interval, bootstrap, the deciding interval (docs/parity.md, section 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.stats.metrics import Bool, Float64, Int64
from octc.stats.patients import Patients
from octc.stats.proportions import Interval, tango_interval

ENOUGH = 20  # minimum number of patients with a discordant image for using the observed design effect
LEAST_BOOTSTRAP = 5  # minimum number of patients with a discordant image for a bootstrap
DEFAULT_ICC = 0.5
CHUNK = 500  # resamples per block, fewer with many clusters
BLOCK = 2_000_000  # draws per block
MANY = 20_000  # clusters; above it, identical clusters are drawn by count, and others pooled
POOLS = 5_000
GENERATOR = "numpy.random.PCG64"


def cluster_index(patients: Patients) -> Int64 | None:
    """Cluster index of each image, in order of appearance; an image without a patient is its own cluster. None: no patients."""
    if isinstance(patients, np.ndarray):
        return _numbered(patients)
    if all(patient is None for patient in patients):
        return None
    names: dict[object, int] = {}
    return np.array([names.setdefault(i if p is None else p, len(names)) for i, p in enumerate(patients)], np.int64)


def _numbered(patients: npt.NDArray[np.integer[Any]]) -> Int64 | None:
    """Cluster indices from patient numbers [n], -1 where unknown."""
    unknown = patients < 0
    if unknown.all():
        return None
    own = patients.astype(np.int64)
    own[unknown] = int(own.max()) + 1 + np.arange(int(unknown.sum()))
    own = dense_index(own)
    first = np.empty(int(own.max()) + 1, np.int64)
    first[own[::-1]] = np.arange(len(own))[::-1]  # written in reverse, so that the first occurrence remains
    number = np.empty_like(first)
    number[np.argsort(first)] = np.arange(len(first))
    out: Int64 = number[own]
    return out


def clusters_of(patients: Sequence[str | None]) -> Int64:
    """Cluster index of each image; an image without a patient is its own cluster."""
    index = cluster_index(patients)
    return np.arange(len(patients)) if index is None else index


def dense_index(clusters: npt.ArrayLike) -> Int64:
    """Renumber clusters [n] to consecutive indices from 0."""
    values = np.asarray(clusters)
    if len(values) and values.dtype.kind in "iu" and values.min() >= 0 and values.max() < 2 * len(values):  # no need to sort
        seen = np.zeros(int(values.max()) + 1, np.bool_)
        seen[values] = True
        out: Int64 = values.astype(np.int64, copy=False) if seen.all() else (np.cumsum(seen) - 1)[values]
        return out
    return np.unique(clusters, return_inverse=True)[1].astype(np.int64)


def patient_means(values: npt.ArrayLike, clusters: Int64) -> Float64:
    """Mean of the values [n] per patient, ordered by their number in `clusters` [n]."""
    dense = dense_index(clusters)
    out: Float64 = np.bincount(dense, weights=np.asarray(values, np.float64)) / np.bincount(dense)
    return out


def named_images(patients: Patients) -> Bool:
    """Mask [n] of the images with a known patient."""
    if isinstance(patients, np.ndarray):
        known: Bool = patients >= 0
        return known
    return np.array([patient is not None for patient in patients], np.bool_)


def mean_cluster_size(clusters: Int64) -> float:
    """Sum of squared cluster sizes over n: the mean, over images, of the size of the image's cluster."""
    sizes = np.bincount(clusters)
    return float((sizes.astype(np.float64) ** 2).sum() / len(clusters))


def standard_error(values: Float64, groups: Int64) -> float:
    """Cluster-robust standard error of the mean of values [n] over groups [n]; 0 without variation, or with one group.

    With G groups and r the residuals about the mean: sqrt(G / (G - 1) * sum over groups of (sum of r)^2) / n, the
    cluster-robust variance of a mean (Cameron and Miller 2015, A Practitioner's Guide to Cluster-Robust Inference, section II).
    """
    sums = np.bincount(dense_index(groups), values - values.mean())
    count = len(sums)
    return 0.0 if count < 2 else float(np.sqrt(count / (count - 1) * (sums**2).sum()) / len(values))


@dataclass(frozen=True)
class Paired:
    """Paired comparison of two classifiers on the same images: counts and intervals of the difference (fractions).

    Attributes:
        patients: number of known patients; None if none is known.
        discordant_patients, mean_size, deff_obs, deff_plan: number of clusters with a discordant image, mean cluster size,
            observed and planned design effect (an image without a patient is a cluster); None without patients; deff_obs
            also None if undefined.
        bootstrap: bootstrap interval; None if degenerate or without patients (`bootstrap_reason`).
        deciding: interval that decides; None for a single patient.
        decided_by: "tango", "tango_scaled", "tango_scaled and bootstrap", or "one_cluster".
    """

    n: int
    lost: int
    gained: int
    patients: int | None
    discordant_patients: int | None
    mean_size: float | None
    deff_obs: float | None
    deff_plan: float | None
    deff: float
    tango: Interval
    scaled: Interval | None
    bootstrap: Interval | None
    bootstrap_reason: str | None
    deciding: Interval | None
    decided_by: str

    @property
    def difference(self) -> float:
        return (self.gained - self.lost) / self.n

    @property
    def effective(self) -> tuple[float, float, float]:
        """n, lost and gained, each divided by the design effect."""
        return self.n / self.deff, self.lost / self.deff, self.gained / self.deff

    def facts(self) -> dict[str, Any]:
        """The facts of this result (on the validation set) that a later plan uses."""
        names = ("n", "lost", "gained", "patients", "discordant_patients", "mean_size", "deff_obs")
        return {name: getattr(self, name) for name in names}


def planned_icc(facts: Mapping[str, Any] | None) -> float:
    """Intra-patient correlation for planning, from `Paired.facts` of the validation set; 0.5 if that has too few data."""
    if facts is None or (facts.get("discordant_patients") or 0) < ENOUGH:
        return DEFAULT_ICC
    size, observed = facts.get("mean_size"), facts.get("deff_obs")
    if size is None or observed is None or size <= 1:
        return DEFAULT_ICC
    return min(1.0, max(0.05, (float(observed) - 1) / (float(size) - 1)))


def design_effect(lost: Bool, gained: Bool, clusters: Int64, icc: float) -> tuple[float | None, float, float, int]:
    """(deff_obs or None, deff_plan, deff, number of patients with a discordant image) of paired outcomes; arrays are [n]."""
    n, k = len(lost), int(clusters.max()) + 1
    x = np.bincount(clusters, weights=gained.astype(np.float64) - lost, minlength=k)
    sizes = np.bincount(clusters, minlength=k)
    hit = int((np.bincount(clusters, weights=(lost | gained).astype(np.float64), minlength=k) > 0).sum())
    discordant, net = int(lost.sum() + gained.sum()), int(gained.sum()) - int(lost.sum())
    iid = discordant - net * net / n
    clustered = k / (k - 1) * float(((x - net / n * sizes) ** 2).sum()) if k > 1 else 0.0
    observed = clustered / iid if iid > 1e-12 and k > 1 else None
    planned = 1 + (mean_cluster_size(clusters) - 1) * icc
    if hit >= ENOUGH and observed is not None:
        return observed, planned, max(1.0, observed), hit
    return observed, planned, max(1.0, planned, observed or 1.0), hit


def resampled_weights(clusters: int, resamples: int, seed: int) -> Iterator[Float64]:
    """Counts of each cluster per resample, in blocks [<= CHUNK, clusters]: `clusters` draws with replacement.

    The draws do not depend on the block size.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    step = min(CHUNK, max(1, BLOCK // clusters))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        weights = np.empty((rows, clusters))
        for weight, draws in zip(weights, rng.integers(0, clusters, size=(rows, clusters)), strict=True):
            weight[:] = np.bincount(draws, minlength=clusters)
        yield weights


def percentile_interval(values: Float64, alpha: float) -> Interval:
    """Percentile interval by the inverted empirical distribution function."""
    low, high = np.quantile(values, [alpha / 2, 1 - alpha / 2], method="inverted_cdf")
    return float(low), float(high)


def pooled(groups: Int64, seed: int) -> Int64:
    """Pool clusters [n] at random into at most POOLS groups of whole clusters, if there are more than MANY.

    Groups of independent patients are independent, so the variance of a resampled sum stays (its error is about 1 % with 5,000
    groups), while the cost of a resample does not grow with the set.
    """
    clusters = int(groups.max()) + 1
    if clusters <= MANY:
        return groups
    dealt = np.random.Generator(np.random.PCG64(seed)).permutation(clusters) % POOLS
    return dealt[groups].astype(np.int64)


def _drawn_kinds(sums: Float64, resamples: int, seed: int) -> tuple[Float64, Float64]:
    """The distinct rows of `sums`, and their counts per resample [resamples, rows]: identical clusters are drawn by count."""
    kinds, counts = np.unique(sums, axis=0, return_counts=True)
    rng = np.random.Generator(np.random.PCG64(seed))
    return kinds, rng.multinomial(len(sums), counts / len(sums), size=resamples).astype(np.float64)


def bootstrap_sums(sums: Float64, statistic: Callable[[Float64], Float64], resamples: int, seed: int) -> Float64:
    """Patient bootstrap of a statistic that is a function of sums over clusters.

    Args:
        sums: per cluster [k, q]; a resample sums the rows that it draws.
        statistic: sums of the resamples [B, q] -> values [B] or [B, m]; NaN if undefined.
    """
    return np.concatenate([statistic(weights @ sums) for weights in resampled_weights(len(sums), resamples, seed)])


def difference_bootstrap(lost: Bool, gained: Bool, clusters: Int64, resamples: int, seed: int) -> Float64:
    """Bootstrap values [resamples] of the paired difference: ratio of sums over patients drawn with replacement."""
    x = np.bincount(clusters, weights=gained.astype(np.float64) - lost)
    sums = np.stack([x, np.bincount(clusters).astype(np.float64)], axis=1)
    if len(sums) > MANY:
        kinds, drawn = _drawn_kinds(sums, resamples, seed)
        total = drawn @ kinds
        out: Float64 = total[:, 0] / total[:, 1]
        return out
    return bootstrap_sums(sums, lambda total: total[:, 0] / total[:, 1], resamples, seed)


def paired(
    lost: Bool,
    gained: Bool,
    clusters: Int64 | None,
    *,
    named: Bool | None = None,
    alpha: float = 0.05,
    icc: float = DEFAULT_ICC,
    resamples: int = 10_000,
    seed: int = 0,
) -> Paired:
    """Counts and intervals of paired outcomes, arrays [n], n > 0; `clusters` as from `cluster_index`.

    named: mask of images with a known patient (None: all); an image without one is a cluster, but does not count as a patient.
    """
    n, b, c = len(lost), int(lost.sum()), int(gained.sum())
    plain = tango_interval(n, b, c, alpha)
    if clusters is None:
        return Paired(n, b, c, None, None, None, None, None, 1.0, plain, None, None, "no_patients", plain, "tango")
    dense = dense_index(clusters)
    k = int(dense.max()) + 1
    observed, planned, deff, hit = design_effect(lost, gained, dense, icc)
    people = k if named is None else int((np.bincount(dense[named]) > 0).sum())
    head = (n, b, c, people, hit, mean_cluster_size(dense), observed, planned, deff, plain)
    if k == 1:
        return Paired(*head, None, None, "one_cluster", None, "one_cluster")
    scaled = tango_interval(n / deff, b / deff, c / deff, alpha)
    if hit < LEAST_BOOTSTRAP:
        return Paired(*head, scaled, None, "degenerate", scaled, "tango_scaled")
    drawn = percentile_interval(difference_bootstrap(lost, gained, dense, resamples, seed), alpha)
    widest = (min(scaled[0], drawn[0]), max(scaled[1], drawn[1]))
    return Paired(*head, scaled, drawn, None, widest, "tango_scaled and bootstrap")
