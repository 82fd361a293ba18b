"""Exact power from n, the margin and the planned discordance, before any result (docs/parity.md, section 11)."""

from __future__ import annotations

import math

import numpy as np

from octc.core.optional import need
from octc.stats.metrics import Float64, Int64
from octc.stats.proportions import tango_variance, wilson_upper, z_of

FLOOR = 0.60  # minimum power; below it the verdict is at best inconclusive
GRID = 100  # needed numbers of images are multiples of this
ASSUMED_DISCORDANCE = 0.02
LEAST_DISCORDANCE = 0.005
MOST = 10_000_000  # largest needed number of images that is reported


def smallest_n(margin: float, alpha: float = 0.05) -> int:
    """The smallest n at which the margin can be shown, without any discordant pair."""
    z = z_of(alpha)
    return math.floor(z * z * (1 - margin) / margin) + 1


def planned_discordance(discordant: int | None, n: int = 0) -> float:
    """max(0.5 %, one-sided 80 % upper Wilson limit of the discordance on the validation set); 2 % without a result there."""
    return ASSUMED_DISCORDANCE if discordant is None else max(LEAST_DISCORDANCE, wilson_upper(discordant, n, 0.80))


def _log_binomial(n: int, k: Int64, p: float) -> Float64:
    special = need("scipy.special")
    out: Float64 = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    out += special.xlogy(k, p) + special.xlog1py(n - k, -p)
    return out


def _passes(n: int, total: Int64, gained: Int64, margin: float, z: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    lost = total - gained
    spread = np.sqrt(tango_variance(n, lost, gained, -margin))
    out: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = gained - lost + n * margin > z * spread
    return out


def exact_power(n: int, discordance: float, margin: float, alpha: float = 0.05, difference: float = 0.0) -> float:
    """Probability that the lower limit exceeds -margin.

    The number of discordant pairs is Bin(n, discordance); each of them is gained with probability
    (1 + difference / discordance) / 2. For a given number of discordant pairs the statistic increases with the gained ones, so
    the claim is shown from a threshold on, which is found by bisection for all numbers at once.
    """
    z, share = z_of(alpha), (1 + difference / discordance) / 2
    if n < 1:
        return 0.0
    middle, sd = n * discordance, math.sqrt(n * discordance * (1 - discordance))
    total = np.arange(max(0, math.floor(middle - 12 * sd - 12)), min(n, math.ceil(middle + 12 * sd + 40)) + 1, dtype=np.int64)
    low, high = np.zeros_like(total), total + 1  # the threshold is in [low, high]; total + 1: never shown
    while bool((low < high).any()):
        half = (low + high) // 2
        good = _passes(n, total, np.minimum(half, total), margin, z) & (half <= total)
        low, high = np.where(good, low, np.minimum(half + 1, high)), np.where(good, half, high)
    beyond = need("scipy.special").bdtrc(np.maximum(low - 1, 0).astype(np.float64), np.maximum(total, 1), share)
    tail = np.where(low <= 0, 1.0, beyond)
    tail = np.where(low > total, 0.0, tail)
    return float(np.minimum(1.0, (np.exp(_log_binomial(n, total, discordance)) * tail).sum()))


def needed_n(power: float, discordance: float, margin: float, alpha: float = 0.05, deff: float = 1.0) -> int | None:
    """Number of images (a multiple of 100) from which the power stays above `power`, with design effect `deff`.

    None above 10 million. Power is not monotone in n (counts are discrete), so the crossing is bracketed and then scanned on
    both sides.
    """

    def at(steps: int) -> float:
        return exact_power(math.floor(GRID * steps / deff), discordance, margin, alpha)

    high = 1
    while at(high) <= power:
        high *= 2
        if high * GRID > MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle) <= power else (low, middle)
    reach = max(4, high // 5)
    stride = max(1, reach // 25)  # at most fifty more evaluations, whatever the size
    below = [steps for steps in range(max(1, high - reach), high + reach + 1, stride) if at(steps) <= power]
    return GRID * (max([low, *below]) + 1)
