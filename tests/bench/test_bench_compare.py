"""Interleaved blocks, dropped pairs, the words of a ratio, gates and the end of a bench."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from octc.bench.timing.conditions import Conditions, Snapshot
from octc.bench.timing.gates import judge
from octc.bench.timing.interleaved import (
    Comparison,
    Pairs,
    compared,
    int8_finding,
    int8_text,
    no_comparison,
    run_pairs,
    teacher_text,
)
from octc.bench.timing.latency import Measure
from octc.bench.timing.plan import Plan, RowPlan
from octc.bench.timing.profiles import QUICK, STANDARD, Options
from octc.core.errors import OctcError
from tests.bench.test_bench_rows import answer, row

CALM = Snapshot(None, None, 0, (0, 1000), 0)
CANDIDATE = [3.02, 3.05, 2.98, 3.10, 3.04, 3.01, 3.07, 3.03, 2.99, 3.06]
REFERENCE = [4.11, 4.20, 4.05, 4.31, 4.16, 4.08, 4.22, 4.12, 4.10, 4.19]


class Turns:
    """Blocks whose medians are given, and the order in which they were asked for; `hot` blocks saw a throttle counter rise."""

    def __init__(self, times: dict[str, list[float]], hot: tuple[int, ...] = ()) -> None:
        self.times, self.order, self.hot = {name: iter(values) for name, values in times.items()}, "", hot
        self.count = 0

    def block(self, name: str) -> Any:
        def run() -> tuple[list[int], tuple[Snapshot, ...]]:
            self.order += name
            self.count += 1
            after = replace(CALM, throttles=1) if self.count in self.hot else CALM
            ms = next(self.times[name])
            return [int(ms * 1e6)] * 5, (CALM, after)

        return run


def test_blocks_alternate_and_give_the_ratio_of_the_method() -> None:
    turns = Turns({"a": REFERENCE, "b": CANDIDATE})
    pairs = run_pairs(turns.block("a"), turns.block("b"), STANDARD)
    assert turns.order == "abba" * 5
    found = compared("as_shipped", ("s-device-1", "t-device-1"), ("INT8 (s)", "FP32 (t)"), pairs, "blocks")
    assert found.ratio.value == pytest.approx(1.3686, abs=6e-5)
    assert found.ratio.ci95 == pytest.approx((1.3611, 1.3761), abs=6e-5)
    assert (found.status, found.pairs, found.dropped) == ("VALID", 10, 0)
    assert found.text == "the teacher takes 1.37 times as long [1.36, 1.38]"
    turns = Turns({"a": [1.0] * 5, "b": [1.0, 1.1, 1.0, 1.0, 1.0]})
    assert len(run_pairs(turns.block("a"), turns.block("b"), QUICK).candidate) == 5


def test_r03_pair_with_a_throttle_sign_is_dropped_and_replaced() -> None:
    turns = Turns({"a": [*REFERENCE, 4.0, 4.1], "b": [*CANDIDATE, 3.0, 3.1]}, hot=(4, 9))
    pairs = run_pairs(turns.block("a"), turns.block("b"), STANDARD)
    assert (len(pairs.reference), pairs.dropped, pairs.reason) == (10, 2, None)
    assert pairs.reference[1] == REFERENCE[2], "the second pair, which was hot, is not in it"


def test_r03_more_than_a_fifth_dropped_is_invalid_and_ends_early() -> None:
    turns = Turns({"a": [4.0] * 20, "b": [3.0] * 20}, hot=(1, 3, 5))
    pairs = run_pairs(turns.block("a"), turns.block("b"), STANDARD)
    assert turns.count == 6
    found = compared("as_shipped", ("s", "t"), ("S", "T"), pairs, "blocks")
    assert (found.status, found.ratio.value, found.ratio.reason) == ("INVALID", None, "thermal_throttle")


def test_stolen_time_makes_a_comparison_invalid() -> None:
    stolen = Conditions((CALM, replace(CALM, steal=(60, 2000))))
    assert Pairs((4.0, 4.1), (3.0, 3.1), 0, stolen).reason == "steal"


@pytest.mark.parametrize(
    ("value", "limits", "word", "text"),
    [
        (0.61, (0.60, 0.62), "int8_faster", "INT8 takes 0.61 [0.60, 0.62] of the time of FP32"),
        (1.0095, (0.9861, 1.0335), "int8_no_gain", "no speed difference shown between INT8 and FP32 here: 1.01 [0.99, 1.03]"),
        (1.14, (1.12, 1.16), "int8_slower",
         "INT8 is slower than FP32 here: 1.14 times [1.12, 1.16]. Use FP32 on this machine."),
    ],
)  # fmt: skip
def test_what_the_ratio_of_int8_means(value: float, limits: tuple[float, float], word: str, text: str) -> None:
    found = Measure(value, limits)
    assert int8_finding(found) == word
    assert int8_text(found, "INT8", "FP32") == text


def test_interval_with_one_in_it_shows_no_difference() -> None:
    assert teacher_text(Measure(1.2, (0.9, 1.6))).startswith("no difference shown")
    assert teacher_text(Measure(79.4, (77.0, 82.0))) == "the teacher takes 79.4 times as long [77.0, 82.0]"


ROW = RowPlan("s-device-1", "s", "single_stream", "device", 1)
SLOWER = Comparison("int8_vs_other", "s-device-1", "f-device-1", Measure(0.5, (0.48, 0.52)), 10, 0, "blocks", "VALID", "")


class Known:
    """The part of a bench that its end looks at."""

    def __init__(self, gates: dict[str, float], *rows: Any, comparisons: tuple[Comparison, ...] = (), **more: Any) -> None:
        self.options = Options(STANDARD, 1, "option", gates=gates, **more)
        self.rows = {r.plan.id: r for r in rows}
        self.plan = Plan((), tuple(r.plan for r in rows), (), ("s",), ())
        self.comparisons, self.errors, self.interrupted = list(comparisons), [], None


def spread_row(**more: Any) -> Any:
    """p50 10 ms, p90 18 [17.9, 18.1] ms or so."""
    found = answer(6100)
    found["durations_ns"] = [10_000_000 + (i * 7919 % 1000) * 10_000 for i in range(6100)]
    return row(found, plan=ROW, **more)


@pytest.mark.parametrize(
    ("gates", "holds"),
    [({"max_p90_ms": 30.0}, True), ({"max_p90_ms": 19.2}, True), ({"max_p90_ms": 19.0}, False), ({"max_p50_ms": 14.0}, False),
     ({"max_p99_ms": 20.0}, True)],
)  # fmt: skip
def test_gate_looks_at_the_upper_limit_of_the_interval(gates: dict[str, float], holds: bool) -> None:
    found = judge(Known(gates, spread_row()))  # type: ignore[arg-type]
    assert [gate.holds for gate in found.gates] == [holds]
    assert (found.status, found.exit_code) == (("PASS", 0) if holds else ("FAIL", 1))
    assert [error.code for error in found.errors] == ([] if holds else ["OCT-E604"])


def test_gate_whose_point_alone_would_pass_is_not_shown() -> None:
    one = spread_row()
    p90 = one.latency.percentiles["p90"]
    between = (p90.value + p90.ci95[1]) / 2
    assert p90.value < between < p90.ci95[1]
    found = judge(Known({"max_p90_ms": between}, one))  # type: ignore[arg-type]
    assert found.gates[0].text.endswith("not shown")
    assert found.exit_code == 1


def test_gate_on_a_row_that_is_not_valid_or_has_too_few_samples_is_not_shown() -> None:
    bad = row(answer(), plan=ROW, precision_holds=False)
    found = judge(Known({"max_p90_ms": 900.0}, bad))  # type: ignore[arg-type]
    assert "not shown, the row is INVALID" in found.gates[0].text
    assert (found.status, [e.code for e in found.errors]) == ("FAIL", ["OCT-E406", "OCT-E604"])


def test_gate_on_the_gain_of_int8() -> None:
    for limit, holds in ((1.9, True), (2.0, False)):
        found = judge(Known({"require_speedup": limit}, spread_row(), comparisons=(SLOWER,)))  # type: ignore[arg-type]
        assert [gate.holds for gate in found.gates] == [holds]
    assert not judge(Known({"require_speedup": 1.1}, spread_row())).gates[0].holds  # type: ignore[arg-type]


def test_gate_on_throughput_looks_at_the_lower_limit() -> None:
    plan = RowPlan("s-offline", "s", "offline", "device", 16)
    one = row(answer(640, 100.0), plan=plan)
    assert judge(Known({"min_images_per_s": 159.9}, one, scenario="offline")).gates[0].holds  # type: ignore[arg-type]
    assert not judge(Known({"min_images_per_s": 160.1}, one, scenario="offline")).gates[0].holds  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "code"),
    [({"wall_s": 59.0}, "OCT-E602"), ({"differ": [1]}, "OCT-E608"), ({"warmup": {"calls": 500, "settled": False}}, "OCT-E607")],
)
def test_invalid_rows_end_with_one_and_a_code_of_their_own(change: dict[str, Any], code: str) -> None:
    found = judge(Known({}, row(answer(**change), plan=ROW)))  # type: ignore[arg-type]
    assert (found.exit_code, [error.code for error in found.errors]) == (1, [code])
    assert found.status == ("FAIL" if code == "OCT-E608" else "INVALID")


def test_throttled_row_has_its_code() -> None:
    hot = row(answer(), (CALM, replace(CALM, throttles=2)), plan=ROW)
    assert [error.code for error in judge(Known({}, hot)).errors] == ["OCT-E603"]  # type: ignore[arg-type]


def test_crash_outranks_an_invalid_row() -> None:
    known = Known({}, row(answer(wall_s=1.0), plan=ROW))
    known.errors = [OctcError("OCT-E609", "x: the runtime crashed", hint="read the log")]  # type: ignore[list-item]
    found = judge(known)  # type: ignore[arg-type]
    assert (found.exit_code, found.status, found.errors[0].code) == (5, "FAIL", "OCT-E609")


def test_no_ratio_says_why() -> None:
    found = no_comparison("as_shipped", ("s", "teacher"), "torch is not installed").to_json()
    assert (found["status"], found["interleave"], found["pairs"]) == ("NA", "none", 0)
    assert found["ratio"] == {"value": None, "reason": "torch is not installed"}


def test_interval_wider_than_ten_percent_is_unsteady_and_ends_with_one() -> None:
    wild = Pairs((4.0, 4.4, 3.8, 4.6), (3.0, 2.9, 3.2, 3.0), 0, None)
    found = compared("as_shipped", ("s-device-1", "t-device-1"), ("S", "T"), wild, "blocks")
    assert (found.status, found.ratio.value, found.ratio.reason) == ("INVALID", None, "unsteady")
    busy = Pairs((4.0, 4.0), (3.0, 3.0), 0, None, foreign=7.0)
    assert compared("as_shipped", ("s", "t"), ("S", "T"), busy, "blocks").ratio.reason == "foreign_load"
    verdict = judge(Known({}, comparisons=(found,)))  # type: ignore[arg-type]
    assert (verdict.status, verdict.exit_code, [e.code for e in verdict.errors]) == ("INVALID", 1, ["OCT-E607"])
    assert "1 comparison is INVALID (unsteady): s-device-1 and t-device-1" in verdict.errors[0].message
