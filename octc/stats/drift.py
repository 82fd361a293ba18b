"""Tests for drift: tests of exchangeability that are valid under continuous monitoring (docs/monitor.md).

Each new value is ranked among all earlier ones and those of a reference. If all are exchangeable, the ranks are independent and
uniform for any distribution (Vovk, Gammerman and Shafer 2005), and the probability that the capital of a bet on their histogram
ever reaches 1 / alpha is at most alpha (Ville 1939). New bets start at intervals, so that a late change is found too.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from octc.stats.metrics import Float64

BINS = 4  # histogram bins of ranks
FIRST, GROWTH = 25, 20  # a new bet starts every 25 values, later after each growth by 1 / 20
ALPHA = 0.01  # false alarm probability over the whole life of a store


def ranks(values: Sequence[float], reference: Sequence[float], draws: npt.ArrayLike) -> Float64:
    """Normalised sequential ranks of values, [n]: the share of earlier values that is larger; ties count in part.

    Args:
        reference: earlier values. draws: independent uniform random numbers [n] to break ties.

    A NaN gets its random number as rank, and no value is ranked against it.
    """
    bag = sorted(value for value in reference if not math.isnan(value))
    found = np.array(draws, np.float64)
    for k, value in enumerate(values):
        if math.isnan(value):
            continue
        low, high = bisect_left(bag, value), bisect_right(bag, value)
        found[k] = (len(bag) - high + found[k] * (high - low + 1)) / (len(bag) + 1)
        insort(bag, value)
    return found


def starts(count: int) -> list[int]:
    """The number of values after which each bet starts, up to `count`."""
    found = [0]
    while (following := found[-1] + max(FIRST, found[-1] // GROWTH)) < count:
        found.append(following)
    return found


def evidence(ranked: npt.ArrayLike) -> Float64:
    """Logarithm of the capital after each rank, [..., n]: the weighted mean over bets, later ones counting as 1.

    The k-th bet has weight 1 / (k (k + 1)), and predicts ranks by the histogram of those since its start (Krichevsky and
    Trofimov 1981).
    """
    p = np.asarray(ranked, np.float64)
    count, shape = p.shape[-1], p.shape[:-1]
    begin = starts(max(count, 1))
    number = np.arange(1, len(begin) + 1)
    share = 1 / (number * (number + 1.0))
    places = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    seen = np.zeros((*shape, len(begin), BINS))
    wealth = np.zeros((*shape, len(begin)))
    found = np.empty_like(p)
    active = 0
    for t in range(count):
        while active < len(begin) and begin[active] <= t:
            active += 1
        here = np.broadcast_to(places[..., t, None, None], (*shape, active, 1))
        mine = np.take_along_axis(seen[..., :active, :], here, axis=-1)[..., 0]
        total = t - np.asarray(begin[:active])
        wealth[..., :active] += np.log(BINS * (mine + 0.5) / (total + BINS / 2))
        np.put_along_axis(seen[..., :active, :], here, mine[..., None] + 1, axis=-1)
        top = np.maximum(wealth[..., :active].max(axis=-1), 0.0)
        rich = (share[:active] * np.exp(wealth[..., :active] - top[..., None])).sum(axis=-1)
        found[..., t] = top + np.log(rich + np.exp(-top) / (active + 1))
    return found


def together(paths: npt.ArrayLike) -> Float64:
    """Logarithm of the largest capital divided by the number of streams, [..., streams, n] -> [..., n].

    The probability that it ever reaches 1 / alpha is at most alpha for any dependence among streams (Bonferroni over Ville's
    inequality of each). The mean of the capitals would not be valid: the ranks of a stream are uniform given its own past, but
    not given the past of another stream (Choe and Ramdas 2024, Combining evidence across filtrations).
    """
    values = np.asarray(paths, np.float64)
    found: Float64 = values.max(axis=-2) - math.log(values.shape[-2])
    return found


def alarm_at(path: npt.ArrayLike, alpha: float = ALPHA) -> int | None:
    """The number of values after which the capital first reached 1 / alpha; None if it never did."""
    over = np.flatnonzero(np.asarray(path) >= -np.log(alpha))
    return int(over[0]) + 1 if len(over) else None
