"""The load generator: it knows a callable and a clock, and nothing of models.

Method: docs/measurement.md, sections 4, 5 and 12. Queries follow each other; none is sent ahead.
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

Query = Callable[[int], Any]  # number of the query -> its result, which is on the host when it returns
Clock = Callable[[], int]  # nanoseconds, monotonic

WINDOW = 10  # calls in a window of the warm-up
WINDOWS = 5  # windows whose medians must agree
AGREE = 0.02
KEPT_SHARE, KEPT_LEAST = 0.01, 32  # outputs that are looked at afterwards


@dataclass(frozen=True)
class WarmUp:
    """calls that were made, and whether the last five windows of ten agreed within 2 %."""

    calls: int
    settled: bool


@dataclass(frozen=True)
class Limits:
    """When a timed loop ends: after `min_queries` and `duration_s`, or after `max_duration_s` whatever was reached."""

    duration_s: float
    min_queries: int
    max_duration_s: float


@dataclass(frozen=True)
class Timed:
    """Raw samples of one loop.

    Attributes:
        starts_ns: start of each query after the start of the loop. durations_ns: what each took.
        kept: number of the query -> its result, for the queries that were chosen beforehand.
        wall_s: from the first start to the last end.
    """

    starts_ns: array[int]
    durations_ns: array[int]
    kept: dict[int, Any]
    wall_s: float


@contextmanager
def no_collection() -> Iterator[None]:
    """Garbage is collected before and after, not within."""
    gc.collect()
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def settled(window_medians: Sequence[float]) -> bool:
    """Whether the medians of the last five windows lie within 2 % of each other."""
    last = window_medians[-WINDOWS:]
    return len(last) == WINDOWS and max(last) <= min(last) * (1 + AGREE)


def warm_up(
    query: Query, clock: Clock = time.perf_counter_ns, *, least: int = 50, most: int = 500, seconds: float = 30.0
) -> WarmUp:
    """Call until the times settle: at least `least` calls, at most `most`, or `seconds` once there were `least`."""
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
    """Which queries keep their output: 1 %, at least 32, spread by a seeded rule over however many there will be.

    Among the first `min_queries` they are drawn without replacement; each later query is kept with a chance of 1 %.
    """
    rng = np.random.default_rng([seed, 9])
    count = min(min_queries, max(KEPT_LEAST, -int(-min_queries * KEPT_SHARE // 1)))
    first = frozenset(int(i) for i in rng.choice(min_queries, size=count, replace=False))
    later = rng.random(4096) < KEPT_SHARE
    return lambda number: number in first if number < min_queries else bool(later[number % len(later)])


def timed_loop(query: Query, limits: Limits, keep: Callable[[int], bool], clock: Clock = time.perf_counter_ns) -> Timed:
    """Query after query, each timed on its own. Keeping an output and writing down a sample happen between the queries."""
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
    """One block of a comparison: durations in ns, of at least `seconds` and `calls`.

    Where the first call takes longer than `slow_s`, `slow_calls` are enough.
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
    """What the clock adds to a query: median time of an empty call (of a thousand), ns."""

    def nothing(_number: int) -> None:
        return None

    found = []
    for number in range(1000):
        start = time.perf_counter_ns()
        nothing(number)
        found.append(time.perf_counter_ns() - start)
    return float(statistics.median(found))
