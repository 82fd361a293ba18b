"""Exact and clustered intervals of one proportion (Clopper and Pearson 1934; design effect: docs/parity.md, section 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from octc.core.optional import need
from octc.stats.cluster_bootstrap import DEFAULT_ICC, dense_index, design_effect, patient_means
from octc.stats.metrics import Bool, Int64
from octc.stats.proportions import Interval


def clopper_pearson(hits: float, n: float, alpha: float = 0.05) -> Interval:
    """Exact interval of hits / n; both may be real numbers (divided by a design effect). (0, 1) for n = 0.

    >>> tuple(round(x, 4) for x in clopper_pearson(45, 45))
    (0.9213, 1.0)
    """
    if n <= 0:
        return 0.0, 1.0
    inverse = need("scipy.special").betaincinv
    misses = n - hits
    low = 0.0 if hits <= 0 else float(inverse(hits, misses + 1, alpha / 2))
    high = 1.0 if misses <= 0 else float(inverse(hits + 1, misses, 1 - alpha / 2))
    return low, high


@dataclass(frozen=True)
class Proportion:
    """A proportion: `hits` of `n` images of `patients` patients.

    exact: Clopper-Pearson interval of the images; clustered: the same with hits and n divided by `deff`. by_patient: mean over
    patients of each patient's share; None without images.
    """

    hits: int
    n: int
    patients: int
    exact: Interval
    clustered: Interval
    deff: float
    by_patient: float | None

    @property
    def value(self) -> float | None:
        return self.hits / self.n if self.n else None


def proportion(hit: Bool, clusters: Int64, alpha: float = 0.05) -> Proportion:
    """The proportion of hits [n] with clustered interval; clusters [n]: patient numbers."""
    n, hits = len(hit), int(hit.sum())
    if n == 0:
        return Proportion(0, 0, 0, (0.0, 1.0), (0.0, 1.0), 1.0, None)
    dense = dense_index(clusters)
    deff = design_effect_of(hit, dense)
    shares = patient_means(hit, dense)
    scaled = clopper_pearson(hits / deff, n / deff, alpha)
    return Proportion(hits, n, len(shares), clopper_pearson(hits, n, alpha), scaled, deff, float(shares.mean()))


def design_effect_of(hit: Bool, dense: Int64) -> float:
    """Design effect as for paired outcomes: the observed one if 20 patients have a miss, else at least the planned one."""
    none = np.zeros_like(hit)
    return design_effect(~hit, none, dense, DEFAULT_ICC)[2]


def images_needed(level: float, alpha: float = 0.05) -> int:
    """Minimum number of images of different patients, all hits, whose exact lower limit reaches `level`.

    >>> images_needed(0.98)
    183
    """
    return math.ceil(math.log(alpha / 2) / math.log(level) - 1e-9)
