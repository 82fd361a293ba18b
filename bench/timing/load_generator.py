"""The load generator: times a callable with a clock, independent of models.

Method: docs/measurement.md, sections 4, 5 and 12. Queries run one after the other (MLPerf's SingleStream).
"""

from __future__ import annotations

import gc
import statistics
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

Query = Callable[[int], Any]  # index of the query -> its result, in host memory on return
Clock = Callable[[], int]  # nanoseconds, monotonic

WINDOW = 10  # calls per window of the warm-up
WINDOWS = 5  # number of windows whose medians must agree
AGREE = 0.02
KEPT_SHARE, KEPT_LEAST = 0.01, 32  # share and minimum number of outputs that are checked afterwards


@dataclass(frozen=True)
class WarmUp:
    """Number of warm-up calls, and whether the last five windows of ten agreed within 2 %."""

    calls: int
    settled: bool


@dataclass(frozen=True)
class Limits:
    """When a timed loop ends: after both `min_queries` and `duration_s`, or after `max_duration_s` in any case."""

    duration_s: float
    min_queries: int
    max_duration_s: float


@dataclass(frozen=True)
class Timed:
    """Raw samples of one loop.

    Attributes:
        starts_ns: start of each query since the start of the loop. durations_ns: duration of each query.
        kept: index -> result of the queries that were chosen beforehand.
        wall_s: time from the first start to the last end, seconds.
    """

    starts_ns: array[int]
    durations_ns: array[int]
    kept: dict[int, Any]
    wall_s: float


@contextmanager
def no_collection() -> Iterator[None]:
    """Run the garbage collector before and after the block, and disable it within."""
    gc.collect()
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def settled(window_medians: Sequence[float]) -> bool:
    """Whether the medians of the last five windows agree within 2 %."""
    last = window_medians[-WINDOWS:]
    return len(last) == WINDOWS and max(last) <= min(last) * (1 + AGREE)


def warm_up(
    query: Query, clock: Clock = time.perf_counter_ns, *, least: int = 50, most: int = 500, seconds: float = 30.0
) -> WarmUp:
    """Call until the times are stable: at least `least` calls, at most `most`, or `seconds` after `least` calls."""
    medians: list[float] = []
    calls, begin = 0, clock()
    with no_collection():
        while True:
            window = []
            for _ in range(WINDOW):
                start = clock()
                query(calls)
                window.append(clock() - start)
                calls += 1
            medians.append(statistics.median(window))
            if calls >= least and settled(medians):
                return WarmUp(calls, True)
            if calls >= most or (calls >= least and clock() - begin >= seconds * 1e9):
                return WarmUp(calls, False)


def choose_kept(min_queries: int, seed: int) -> Callable[[int], bool]:
    """A predicate for the queries whose output is kept: 1 %, at least 32, chosen at random with a seed.

    Among the first `min_queries` they are drawn without replacement; each later query is kept with a probability of 1 %.
    """
    rng = np.random.default_rng([seed, 9])
    count = min(min_queries, max(KEPT_LEAST, -int(-min_queries * KEPT_SHARE // 1)))
    first = frozenset(int(i) for i in rng.choice(min_queries, size=count, replace=False))
    later = rng.random(4096) < KEPT_SHARE
    return lambda number: number in first if number < min_queries else bool(later[number % len(later)])


def timed_loop(query: Query, limits: Limits, keep: Callable[[int], bool], clock: Clock = time.perf_counter_ns) -> Timed:
    """Time query after query individually. Outputs and samples are stored between the queries, outside their times."""
    starts, durations = array("q"), array("q")
    kept: dict[int, Any] = {}
    shortest, longest = int(limits.duration_s * 1e9), int(limits.max_duration_s * 1e9)
    number = 0
    with no_collection():
        begin = clock()
        while True:
            start = clock()
            result = query(number)
            end = clock()
            starts.append(start - begin)
            durations.append(end - start)
            if keep(number):
                kept[number] = result
            number += 1
            elapsed = end - begin
            if (elapsed >= shortest and number >= limits.min_queries) or elapsed >= longest:
                return Timed(starts, durations, kept, elapsed / 1e9)


def block(
    query: Query,
    clock: Clock = time.perf_counter_ns,
    *,
    seconds: float = 1.0,
    calls: int = 20,
    slow_calls: int = 5,
    slow_s: float = 0.2,
) -> array[int]:
    """One block of a comparison: durations in ns, over at least `seconds` and `calls`.

    If the first call takes longer than `slow_s`, `slow_calls` are sufficient.
    """
    durations = array("q")
    with no_collection():
        begin = clock()
        while True:
            start = clock()
            query(len(durations))
            end = clock()
            durations.append(end - start)
            needed = slow_calls if durations[0] > slow_s * 1e9 else calls
            if end - begin >= seconds * 1e9 and len(durations) >= needed:
                return durations


def clock_overhead_ns() -> float:
    """Overhead of the clock per query: median time of a thousand empty calls, ns."""

    def nothing(_number: int) -> None:
        return None

    found = []
    for number in range(1000):
        start = time.perf_counter_ns()
        nothing(number)
        found.append(time.perf_counter_ns() - start)
    return float(statistics.median(found))
