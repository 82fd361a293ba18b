"""Is what a box sees now what it saw before? Tests of exchangeability, valid however often one looks (docs/monitor.md).

Each new value is ranked among all before it, those of a reference among them. If all are exchangeable, the ranks are
independent and uniform whatever the distribution is (Vovk, Gammerman and Shafer 2005), and a bettor on histograms of them gets
rich with probability alpha at most, ever (Ville 1939). Bettors start again and again, so that a change is found whenever it
comes.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from octc.stats.metrics import Float64

BINS = 4  # of a bettor's histogram of ranks
FIRST, GROWTH = 25, 20  # a new bettor every 25 values, later every twentieth part of what there is
ALPHA = 0.01  # false alarms in the whole life of a store


def ranks(values: Sequence[float], reference: Sequence[float], draws: npt.ArrayLike) -> Float64:
    """Uniform ranks of values in their order, [n]: the share of all before that is larger; equal ones in part.

    Args:
        reference: values from before. draws: uniform numbers [n] that break ties, independent of the values.

    NaN has no rank: it becomes its draw, and nobody is ranked against it.
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
    """After how many values each bettor begins, as far as `count` of them."""
    found = [0]
    while (following := found[-1] + max(FIRST, found[-1] // GROWTH)) < count:
        found.append(following)
    return found


def evidence(ranked: npt.ArrayLike) -> Float64:
    """Logarithm of the capital after each rank, [..., n]: the mean of bettors, those to come counting as 1.

    The k-th bettor has the share 1 / (k (k + 1)) and bets on the histogram of ranks that it saw (Krichevsky and Trofimov 1981).
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
    """Logarithm of the richest bettor's capital over the number of streams, [..., streams, n] -> [..., n].

    It ever reaches 1 / alpha in at most alpha of boxes, whatever the streams have to do with each other (Bonferroni over
    Ville's inequality of each). The mean of the capitals would not do: a stream's ranks are uniform given its own past, and
    no longer given that of another stream, so that nobody who looks at both has a fair game (Choe and Ramdas 2024, Combining
    evidence across filtrations).
    """
    values = np.asarray(paths, np.float64)
    found: Float64 = values.max(axis=-2) - math.log(values.shape[-2])
    return found


def alarm_at(path: npt.ArrayLike, alpha: float = ALPHA) -> int | None:
    """After how many values the capital first reached 1 / alpha; None where it has not."""
    over = np.flatnonzero(np.asarray(path) >= -np.log(alpha))
    return int(over[0]) + 1 if len(over) else None
