"""Tests by betting on bounded means: valid however often one looks (Waudby-Smith and Ramdas 2024; Ville 1939).

A bettor who wins against "the mean is at most m" can only be rich if that is false: the capital starts at 1 and its expected
value never rises, so it reaches 1 / alpha with probability alpha at most, ever.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from octc.stats.metrics import Float64
from octc.stats.proportions import Interval

STAKES = (0.1, 0.25, 0.5, 0.75, 0.95)  # shares of the largest stake that cannot ruin; the capital is the mean of all of them
GRID = 4096  # steps of a limit


def capital(values: npt.ArrayLike, mean: npt.ArrayLike, *, above: bool) -> Float64:
    """Logarithm of the capital after each value, [..., n], against "the mean is `mean` or lower" (`above`), or or higher.

    values: within 0 and 1, [n], in the order in which they came, independent or exchangeable. mean: [...], within 0 and 1.
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
    """The capital after all values against "the mean is `mean` or lower" (or, not `above`, or higher).

    For a sample that is looked at once: the order of the values does not matter, as the largest capital on the way would make
    it (of a set that is sorted by class it speaks of the first class alone). 1 / e is a p value, also where the values have
    different means (Markov; the product of fair bets on them is at most that on their mean).
    """
    return float(np.exp(np.clip(_last(values, mean, above=above), -700.0, 700.0)))


def _last(values: npt.ArrayLike, mean: float, *, above: bool) -> float:
    path = capital(values, mean, above=above)
    return float(path[-1]) if len(path) else 0.0


def _largest(values: npt.ArrayLike, mean: float, *, above: bool) -> float:
    return float(capital(values, mean, above=above).max(initial=0.0))


def mean_interval(values: npt.ArrayLike, alpha: float = 0.05, *, once: bool = False) -> Interval:
    """The means of values within 0 and 1 that neither bettor got rich against.

    Args:
        values: in the order in which they came: a confidence sequence, which holds at every look. once: they are a sample that
            is looked at once, in whatever order: only the capital at the end counts.

    Limits lie on a grid of 1 / GRID, outwards of where a bettor is just rich: his capital falls with the mean that he bets
    against, so that the edge is found by halving.
    """
    x = np.asarray(values, np.float64)
    if not len(x):
        return 0.0, 1.0
    wealth, rich = _last if once else _largest, np.log(2 / alpha)
    low = _edge(lambda mean: wealth(x, mean, above=True) >= rich)
    high = 1 - _edge(lambda mean: wealth(x, 1 - mean, above=False) >= rich)
    return min(low, high), max(low, high)


def _edge(refuted: Callable[[float], bool]) -> float:
    """The largest mean of the grid that is refuted, where all below it are; 0 where none is."""
    known, open_ = 0, GRID
    while open_ - known > 1:
        middle = (known + open_) // 2
        known, open_ = (middle, open_) if refuted(middle / GRID) else (known, middle)
    return known / GRID
