"""Statistics of latency samples: percentiles as far as n allows, their intervals, ratios of blocks.

Method: docs/measurement.md, sections 5 and 12. No interpolation, no outlier removal, no assumed distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.bench.timing.quantiles import binomial_cdf, student_quantile

Samples = npt.NDArray[np.float64]  # milliseconds

PERCENTILES = {"p50": "0.5", "p90": "0.9", "p95": "0.95", "p99": "0.99", "p99_9": "0.999"}
TAIL = 0.01  # a percentile is reported if p^n is at most this
OUTLIER = 3.0  # multiple of the median above which samples are counted
MLPERF = 24_576  # samples that MLPerf requires for p90


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % interval, or no number and the reason."""

    value: float | None
    ci95: tuple[float, float] | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"value": self.value}
        if self.ci95 is not None:
            found["ci95"] = list(self.ci95)
        if self.reason is not None:
            found["reason"] = self.reason
        return found


def missing(reason: str) -> Measure:
    """A missing number with the reason."""
    return Measure(None, None, reason)


@dataclass(frozen=True)
class LatencyReport:
    """Latency of one row, ms: percentiles by name, minimum, maximum, and the number of samples above three medians."""

    n: int
    percentiles: dict[str, Measure]
    least: float
    most: float
    above: int

    def to_json(self) -> dict[str, Any]:
        """The `latency_ms` object of a row."""
        shown = {name: measure.to_json() for name, measure in self.percentiles.items()}
        return {"min": {"value": self.least}, **shown, "max": {"value": self.most}, "count_above_3x_p50": self.above}

    def to_text(self) -> str:
        """One line with n, p50, p90, p99 and max."""
        shown = " · ".join(f"{name} {spell(self.percentiles[name])}" for name in ("p50", "p90", "p99"))
        return f"n={self.n:,} · {shown} · max {spell_number(self.most)} ms"

    def to_markdown(self) -> str:
        """A small Markdown table with the intervals."""
        rows = [f"| {name} | {spell(m)} | {spell_interval(m)} |" for name, m in self.percentiles.items()]
        last = f"| max | {spell_number(self.most)} | |"
        return "\n".join([f"| n={self.n:,} | ms | 95 % interval |", "| --- | --- | --- |", *rows, last]) + "\n"


def needed_n(p: str) -> int:
    """Smallest n with p^n <= 0.01: with 99 % probability a sample exceeds the true percentile."""
    share, n = Fraction(p), max(1, math.floor(math.log(TAIL) / math.log(float(Fraction(p)))) - 1)
    while share**n > Fraction(1, 100):
        n += 1
    return n


def rank_of(p: str, n: int) -> int:
    """Nearest rank of a percentile, counted from 1."""
    return max(1, math.ceil(Fraction(p) * n))


def rank_interval(p: str, n: int) -> tuple[int, int]:
    """Ranks of the order statistics of a 95 % interval of the percentile (two tails of at most 2.5 %)."""
    below = binomial_cdf(n, float(Fraction(p)))  # P(Bin(n, p) <= m)
    low = int(np.searchsorted(below, 0.025, side="right"))  # number of m with P <= 0.025; the largest is low - 1
    high = int(np.searchsorted(below, 0.975, side="left"))  # smallest m with P >= 0.975
    return max(1, low), min(n, high + 1)


def percentile(ordered: Samples, p: str) -> Measure:
    """A percentile of sorted samples with its interval; missing if n is too small."""
    least = needed_n(p)
    if len(ordered) < least:
        return missing(f"n<{least}")
    low, high = rank_interval(p, len(ordered))
    return Measure(float(ordered[rank_of(p, len(ordered)) - 1]), (float(ordered[low - 1]), float(ordered[high - 1])))


def summarise(durations_ms: npt.ArrayLike) -> LatencyReport:
    """All percentiles of a row from its raw samples, ms (at least one)."""
    ordered = np.sort(np.asarray(durations_ms, dtype=np.float64))
    middle = float(ordered[rank_of("0.5", len(ordered)) - 1])
    return LatencyReport(
        n=len(ordered),
        percentiles={name: percentile(ordered, p) for name, p in PERCENTILES.items()},
        least=float(ordered[0]),
        most=float(ordered[-1]),
        above=int((ordered > OUTLIER * middle).sum()),
    )


def median_of(values: npt.ArrayLike) -> float:
    """Nearest-rank median of at least one value."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return float(ordered[rank_of("0.5", len(ordered)) - 1])


def ratio(reference: Sequence[float], candidate: Sequence[float]) -> Measure:
    """Geometric mean of r = reference / candidate over pairs of block medians, with the t interval of ln r.

    Raises:
        ValueError: fewer than two pairs, or different numbers of blocks.
    """
    if len(reference) != len(candidate) or len(candidate) < 2:
        raise ValueError(f"{len(reference)} and {len(candidate)} blocks: at least two pairs are needed")
    logs = np.log(np.asarray(reference, dtype=np.float64) / np.asarray(candidate, dtype=np.float64))
    half = student_quantile(len(logs) - 1, 0.975) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    mean = float(logs.mean())
    return Measure(math.exp(mean), (math.exp(mean - half), math.exp(mean + half)))


def spell_number(value: float) -> str:
    """A number as text with about three significant digits: 123, 12.3, 1.23, 0.012."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def spell(measure: Measure) -> str:
    """A number for a table, or the reason why it is missing."""
    return spell_number(measure.value) if measure.value is not None else (measure.reason or "null")


def spell_interval(measure: Measure) -> str:
    """The interval as "[low, high]", or "" without one."""
    return "" if measure.ci95 is None else f"[{spell_number(measure.ci95[0])}, {spell_number(measure.ci95[1])}]"
