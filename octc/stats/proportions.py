"""Paired tests and intervals for two classifiers on the same images (docs/parity.md, sections 5, 7 and 12).

Proportions and differences are fractions. `lost` (regressed) counts images that only the reference gets right, `gained`
(improved) those that only the candidate gets right; both may be real numbers (scaled for clusters). Difference =
(gained - lost) / n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from octc.stats.metrics import Float64
from octc.stats.test_plan import TIERS

Interval = tuple[float, float]


def z_of(alpha: float) -> float:
    """Two-sided normal quantile: 1.959964 for 0.05."""
    return NormalDist().inv_cdf(1 - alpha / 2)


def normal_cdf(z: float) -> float:
    """P(Z <= z) of the standard normal distribution, accurate in the lower tail too."""
    return math.erfc(-z / math.sqrt(2)) / 2


def wilson(hits: float, n: float, alpha: float = 0.05) -> Interval | None:
    """Wilson interval of hits / n (Wilson 1927); None for n = 0. With clusters, pass hits / deff and n / deff."""
    if n <= 0:
        return None
    z, p = z_of(alpha), hits / n
    scale = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(max(p * (1 - p), 0.0) / n + z * z / (4 * n * n)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def wilson_upper(hits: float, n: float, level: float) -> float:
    """One-sided upper Wilson limit at `level` (0.80: one-sided 80 % confidence)."""
    limits = wilson(hits, n, 2 * (1 - level))
    return 1.0 if limits is None else limits[1]


def half_tail(most: int, n: int) -> float:
    """P(Bin(n, 1/2) <= most), exact except for the final rounding."""
    term = total = 1
    for k in range(most):
        term = term * (n - k) // (k + 1)
        total += term
    return total / (1 << n)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """The root of a decreasing function in [low, high], by bisection down to adjacent floats."""
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return middle


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided exact McNemar p-value (McNemar 1947). It tests for a difference; a large p does not show equality."""
    n = lost + gained
    return 1.0 if n == 0 else min(1.0, 2 * half_tail(min(lost, gained), n))


def mcnemar_midp(lost: int, gained: int) -> float:
    """Two-sided McNemar mid-p (Fagerland, Lydersen, Laake 2013)."""
    n, least = lost + gained, min(lost, gained)
    if n == 0:
        return 1.0
    point = float(math.comb(n, least) / 2**n)
    return 1 - point / 2 if lost == gained else mcnemar_exact(lost, gained) - point


def tango_variance(n: npt.ArrayLike, lost: npt.ArrayLike, gained: npt.ArrayLike, x: npt.ArrayLike) -> Float64:
    """Variance of (gained - lost - n x) under the constraint that the true difference is `x` (Tango 1998)."""
    n_, b, c, t = (np.asarray(value, np.float64) for value in (n, lost, gained, x))
    half = -b - c + (2 * n_ - c + b) * t
    root = np.sqrt(np.maximum(half**2 + 8 * n_ * b * t * (1 - t), 0.0))
    q = (root - half) / (4 * n_)
    return np.maximum(n_ * (2 * q + t * (1 - t)), 0.0)


def tango_t(n: float, lost: float, gained: float, x: float) -> float:
    """Tango's score statistic for the difference `x`, decreasing in `x`; +-inf if its variance is 0."""
    distance = gained - lost - n * x
    spread = math.sqrt(float(tango_variance(n, lost, gained, x)))
    if spread == 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / spread


def _tango_lower(n: float, lost: float, gained: float, z: float) -> float:
    if lost + gained == 0:
        return -z * z / (n + z * z)

    def beyond(x: float) -> float:
        return gained - lost - n * x - z * math.sqrt(float(tango_variance(n, lost, gained, x)))

    top = (gained - lost) / n - 1e-12  # at the difference itself both terms may be 0
    if top <= -1 or beyond(-1.0) <= 0 or beyond(top) >= 0:
        return -1.0
    return _root(beyond, -1.0, top)


def tango_interval(n: float, lost: float, gained: float, alpha: float = 0.05) -> Interval:
    """Tango's score interval of the paired difference (Tango 1998). Swapping lost and gained mirrors it."""
    z = z_of(alpha)
    return _tango_lower(n, lost, gained, z), -_tango_lower(n, gained, lost, z)


def p_non_inferior(n: float, lost: float, gained: float, margin: float) -> float:
    """One-sided p-value of the null hypothesis that the true difference is at most -margin."""
    return normal_cdf(-tango_t(n, lost, gained, -margin))


def p_tost(n: float, lost: float, gained: float, margin: float) -> float:
    """The larger p-value of the two one-sided tests (Schuirmann 1987)."""
    return max(p_non_inferior(n, lost, gained, margin), normal_cdf(tango_t(n, lost, gained, margin)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, in the given order (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def tier_needed(reference_hits: int, tier: str) -> int:
    """The smallest number of correct images that reaches the tier."""
    part, whole = TIERS[tier]
    return -(-part * reference_hits // whole)


def tier_reached(reference_hits: int, candidate_hits: int, tier: str) -> bool:
    """Whether the tier is reached (exact, no rounding)."""
    part, whole = TIERS[tier]
    return whole * candidate_hits >= part * reference_hits


def flip_rate_bound(n: int, level: float = 0.95) -> float:
    """One-sided upper bound of the disagreement rate if n images had no disagreement."""
    return 1.0 - float((1 - level) ** (1 / n))
