"""The load generator against a clock that the test turns, and check values (docs/measurement.md, section 20)."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from octc.bench.timing.latency import (
    PERCENTILES,
    needed_n,
    rank_interval,
    rank_of,
    ratio,
    spell,
    summarise,
)
from octc.bench.timing.load_generator import Limits, block, choose_kept, settled, timed_loop, warm_up

RANKS = """44,0.9,40,35,44,0.9800
100,0.5,50,40,61,0.9648
459,0.9,414,400,426,0.9569
459,0.99,455,450,459,0.9714
1000,0.5,500,469,532,0.9537
1024,0.5,512,481,544,0.9511
1024,0.9,922,902,941,0.9578
1024,0.99,1014,1007,1020,0.9584
4603,0.99,4557,4543,4571,0.9624
4603,0.999,4599,4594,4603,0.9705"""


@dataclass
class Turned:
    """A clock that stands still but for the queries: query `i` takes `cost(i)` milliseconds."""

    cost: Callable[[int], float]
    now: int = 0
    queries: int = 0

    def __call__(self) -> int:
        return self.now

    def query(self, number: int) -> int:
        self.now += int(self.cost(self.queries) * 1e6)
        self.queries += 1
        return number


@pytest.mark.parametrize(("p", "n"), [("0.5", 7), ("0.75", 17), ("0.9", 44), ("0.95", 90), ("0.99", 459), ("0.995", 919),
                                      ("0.999", 4603)])  # fmt: skip
def test_smallest_n_of_a_percentile(p: str, n: int) -> None:
    assert needed_n(p) == n


@pytest.mark.parametrize("line", RANKS.splitlines())
def test_rank_and_interval(line: str) -> None:
    n, p, rank, low, high, coverage = line.split(",")
    assert rank_of(p, int(n)) == int(rank)
    assert rank_interval(p, int(n)) == (int(low), int(high))
    from scipy.stats import binom

    reached = binom.cdf(int(high) - 1, int(n), float(p)) - binom.cdf(int(low) - 1, int(n), float(p))
    assert reached == pytest.approx(float(coverage), abs=6e-5)


def test_nearest_rank_and_percentiles_that_n_does_not_allow() -> None:
    report = summarise([3.1, 2.9, 3.0, 3.3, 2.8, 3.2, 9.9, 3.0, 2.9, 3.1])
    assert report.percentiles["p50"].value == 3.0
    assert report.percentiles["p90"].value is None
    assert report.percentiles["p90"].reason == "n<44"
    assert (report.most, report.above) == (9.9, 1)
    assert "n<44" in report.to_text()
    assert "| p99 | n<459 |" in report.to_markdown()
    assert report.to_json()["p99"] == {"value": None, "reason": "n<459"}


@pytest.mark.parametrize("n", [1, 6, 7, 43, 44, 89, 90, 458, 459, 4602, 4603])
def test_a_percentile_is_there_exactly_when_n_is_enough(n: int) -> None:
    report = summarise(np.arange(n, 0, -1, dtype=float))
    for name, p in PERCENTILES.items():
        measure = report.percentiles[name]
        assert (measure.value is not None) == (n >= needed_n(p))
        assert spell(measure)
        if measure.value is not None:
            assert measure.ci95 is not None
            assert measure.value == rank_of(p, n)
            assert measure.ci95[0] <= measure.value <= measure.ci95[1]


def test_ratio_of_blocks() -> None:
    candidate = [3.02, 3.05, 2.98, 3.10, 3.04, 3.01, 3.07, 3.03, 2.99, 3.06]
    reference = [4.11, 4.20, 4.05, 4.31, 4.16, 4.08, 4.22, 4.12, 4.10, 4.19]
    found = ratio(reference, candidate)
    assert found.value == pytest.approx(1.3686, abs=6e-5)
    assert found.ci95 == pytest.approx((1.3611, 1.3761), abs=6e-5)
    int8 = [5.21, 5.30, 5.18, 5.40, 5.25, 5.22, 5.33, 5.28, 5.19, 5.31]
    fp32 = [4.93, 5.41, 5.02, 5.52, 5.11, 5.30, 5.09, 5.45, 5.00, 5.38]
    found = ratio(int8, fp32)
    assert found.value == pytest.approx(1.0095, abs=6e-5)
    assert found.ci95 == pytest.approx((0.9861, 1.0335), abs=6e-5)


@pytest.mark.parametrize("pairs", [0, 1])
def test_ratio_needs_two_pairs(pairs: int) -> None:
    with pytest.raises(ValueError, match="two pairs"):
        ratio([1.0] * pairs, [1.0] * pairs)


def test_warm_up_of_steady_times_ends_at_the_least() -> None:
    clock = Turned(lambda _: 1.0)
    found = warm_up(clock.query, clock)
    assert (found.calls, found.settled) == (50, True)


def test_warm_up_waits_for_times_that_fall() -> None:
    clock = Turned(lambda i: max(1.0, 3.0 - 0.02 * i))
    found = warm_up(clock.query, clock)
    assert found.settled
    assert found.calls == 150  # 1.0 from call 100 on: five windows more


def test_warm_up_that_never_settles_ends_at_the_limit() -> None:
    clock = Turned(lambda i: 1.0 + (i // 10 % 2))
    assert warm_up(clock.query, clock).calls == 500
    assert not warm_up(clock.query, clock).settled


def test_warm_up_of_a_slow_model_ends_after_its_seconds_but_never_before_fifty_calls() -> None:
    clock = Turned(lambda i: 2000.0 + 500 * (i // 10 % 2))
    found = warm_up(clock.query, clock)
    assert (found.calls, found.settled) == (50, False)
    clock = Turned(lambda i: 300.0 + 100 * (i // 10 % 2))
    assert warm_up(clock.query, clock).calls == 90


def test_windows_agree_within_two_percent() -> None:
    assert settled([9.0, 1.0, 1.01, 1.02, 1.0, 1.005])
    assert not settled([1.0, 1.01, 1.021, 1.0, 1.0])
    assert not settled([1.0, 1.0, 1.0, 1.0])


def test_loop_needs_both_its_time_and_its_queries() -> None:
    for cost, expected in ((1.0, 1000), (100.0, 64)):  # a second of 1 ms queries; 64 slow ones take longer than it
        clock = Turned(lambda _, cost=cost: cost)
        timed = timed_loop(clock.query, Limits(1.0, 64, 600.0), lambda _: False, clock)
        assert len(timed.durations_ns) == expected
        assert set(timed.durations_ns) == {int(cost * 1e6)}
        assert timed.wall_s == pytest.approx(expected * cost / 1e3)


def test_loop_ends_at_its_longest_time() -> None:
    clock = Turned(lambda _: 1000.0)
    timed = timed_loop(clock.query, Limits(1.0, 64, 5.0), lambda _: False, clock)
    assert len(timed.durations_ns) == 5
    assert list(timed.starts_ns) == [0, 10**9, 2 * 10**9, 3 * 10**9, 4 * 10**9]


def test_kept_outputs_are_those_of_the_chosen_queries() -> None:
    clock = Turned(lambda _: 1.0)
    timed = timed_loop(clock.query, Limits(0.0, 20, 9.0), lambda number: number % 7 == 3, clock)
    assert timed.kept == {3: 3, 10: 10, 17: 17}


@pytest.mark.parametrize(("queries", "kept"), [(20, 20), (459, 32), (1024, 32), (10_000, 100)])
def test_one_percent_and_at_least_32_outputs_are_kept(queries: int, kept: int) -> None:
    keep = choose_kept(queries, 0)
    chosen = [number for number in range(queries) if keep(number)]
    assert len(chosen) == kept
    assert chosen == [number for number in range(queries) if choose_kept(queries, 0)(number)]
    later = sum(keep(number) for number in range(queries, queries + 40_960))
    assert 200 < later < 700


def test_garbage_collection_rests_during_a_loop_and_comes_back() -> None:
    seen = []
    clock = Turned(lambda _: 1.0)

    def query(number: int) -> None:
        seen.append(gc.isenabled())
        clock.query(number)

    timed_loop(query, Limits(0.0, 3, 9.0), lambda _: False, clock)
    assert seen == [False] * 3
    assert gc.isenabled()


@pytest.mark.parametrize(("cost", "calls"), [(0.01, 100_000), (10.0, 100), (80.0, 20), (300.0, 5)])
def test_blocks_last_a_second_and_have_enough_calls(cost: float, calls: int) -> None:
    clock = Turned(lambda _: cost)
    assert len(block(clock.query, clock)) == calls
