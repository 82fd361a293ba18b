"""Tests of bounded means by betting, valid under continuous monitoring (Waudby-Smith and Ramdas 2024; Ville 1939).

The capital of a bet against the null hypothesis "the mean is at most m" starts at 1. Under the hypothesis it is a
supermartingale, so the probability that it ever reaches 1 / alpha is at most alpha (Ville's inequality).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from octc.stats.metrics import Float64
from octc.stats.proportions import Interval

STAKES = (0.1, 0.25, 0.5, 0.75, 0.95)  # as shares of the largest safe stake; the capital is the mean over all
GRID = 4096  # grid steps of an interval limit


def capital(values: npt.ArrayLike, mean: npt.ArrayLike, *, above: bool) -> Float64:
    """Logarithm of the capital after each value, [..., n], against "the true mean is at most `mean`" (`above`), or at least.

    values: [n] in [0, 1], in the order of observation, independent or exchangeable. mean: [...] in [0, 1].
    """
    x = np.asarray(values, np.float64)
    m = np.clip(np.asarray(mean, np.float64), 1e-9, 1 - 1e-9)[..., None, None]
    most = 1 / m if above else 1 / (1 - m)
    stakes = np.asarray(STAKES)[:, None] * most
    steps = np.log1p(stakes * (x - m) if above else stakes * (m - x))
    paths = np.cumsum(steps, axis=-1)
    top = paths.max(axis=-2)
    found: Float64 = top + np.log(np.exp(paths - top[..., None, :]).mean(axis=-2))
    return found


def e_value(values: npt.ArrayLike, mean: float, *, above: bool) -> float:
    """e-value: the final capital against "the true mean is at most `mean`" (`above`), or at least.

    For a sample that is analysed once: unlike the largest capital so far, it does not depend on the order of the values (which
    matters for a set sorted by class). 1 / e is a p-value (Markov's inequality), also for values with different means, because
    the product of fair bets on them is at most that on their mean.
    """
    return float(np.exp(np.clip(_last(values, mean, above=above), -700.0, 700.0)))


def _last(values: npt.ArrayLike, mean: float, *, above: bool) -> float:
    path = capital(values, mean, above=above)
    return float(path[-1]) if len(path) else 0.0


def _largest(values: npt.ArrayLike, mean: float, *, above: bool) -> float:
    return float(capital(values, mean, above=above).max(initial=0.0))


def mean_interval(values: npt.ArrayLike, alpha: float = 0.05, *, once: bool = False) -> Interval:
    """Confidence interval of the mean of values in [0, 1]: the means that neither bet rejects.

    Args:
        values: in the order of observation; the result is a confidence sequence, valid at every time. once: the values are a
            sample that is analysed once, in any order; only the final capital counts.

    Limits are on a grid of 1 / GRID, rounded outwards. The capital is monotone in the mean, so they are found by bisection.
    """
    x = np.asarray(values, np.float64)
    if not len(x):
        return 0.0, 1.0
    wealth, rich = _last if once else _largest, np.log(2 / alpha)
    low = _edge(lambda mean: wealth(x, mean, above=True) >= rich)
    high = 1 - _edge(lambda mean: wealth(x, 1 - mean, above=False) >= rich)
    return min(low, high), max(low, high)


def _edge(refuted: Callable[[float], bool]) -> float:
    """The largest rejected mean on the grid, if all smaller ones are rejected too; 0 if none is."""
    known, open_ = 0, GRID
    while open_ - known > 1:
        middle = (known + open_) // 2
        known, open_ = (middle, open_) if refuted(middle / GRID) else (known, middle)
    return known / GRID
