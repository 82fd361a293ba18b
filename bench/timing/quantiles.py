"""Binomial distribution function and Student's quantile without scipy, with its accuracy (tests/bench/test_quantiles.py).

A device that measures has only numpy and the standard library. Sources: Abramowitz and Stegun 26.7.3 and 26.7.4 (Student's
distribution for integer degrees of freedom as a finite sum); binomial probabilities from their logarithms.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt


def binomial_cdf(n: int, p: float) -> npt.NDArray[np.float64]:
    """P(Bin(n, p) <= m) for m = 0..n; 0 < p < 1."""
    steps = np.log(np.arange(1, n + 1, dtype=np.float64))
    factorials = np.concatenate([[0.0], np.cumsum(steps)])
    m = np.arange(n + 1)
    logs: Any = factorials[n] - factorials - factorials[::-1] + m * math.log(p) + (n - m) * math.log1p(-p)
    below = np.cumsum(np.exp(logs))
    return np.asarray(below / below[-1])


@cache
def student_quantile(freedom: int, share: float) -> float:
    """t with P(T <= t) = share for `freedom` >= 1 degrees of freedom; 0.5 < share < 1."""
    low, high = 0.0, 1.0
    while student_cdf(freedom, high) < share:
        low, high = high, 2 * high
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if student_cdf(freedom, middle) < share else (low, middle)


def student_cdf(freedom: int, t: float) -> float:
    """P(T <= t), t >= 0."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    total, term = 0.0, math.cos(angle) if odd else 1.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= square * k / (k + 1)
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 + within) / 2
