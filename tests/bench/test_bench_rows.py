"""From a worker's answer to a row that is valid or not; rates, precisions, samples, and what leaves a row as JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from octc.bench.timing.conditions import Snapshot
from octc.bench.timing.plan import RowPlan
from octc.bench.timing.power.energy import no_energy
from octc.bench.timing.profiles import CANDIDATE, REFERENCE, STANDARD, Options
from octc.bench.timing.render_markdown import table_lines
from octc.bench.timing.rows import Row, block_rate, broken_row, judge_row, not_measured, precision_holds, samples_csv
from tests.bench_tools import check_row

PLAN = RowPlan("onnx-int8-device-1", "onnx-int8", "single_stream", "device", 1)
OPTIONS = Options(STANDARD, 2, "quota")
STEADY = Snapshot(None, None, None, (0, 1000), 0)


def answer(n: int = 6100, ms: float = 10.0, **more: Any) -> dict[str, Any]:
    """What a worker says of n queries of `ms`."""
    durations = [int(ms * 1e6)] * n
    starts = [int(i * ms * 1e6) for i in range(n)]
    return {
        "durations_ns": durations, "starts_ns": starts, "wall_s": n * ms / 1e3, "warmup": {"calls": 50, "settled": True},
        "parts_ns": {}, "differ": [], "kept": 61, "rss_peak_mib": 120.0, "rss_before_mib": 40.0, "clock_ns": 60.0,
        "read_ms": 0.1, **more,
    }  # fmt: skip


def row(found: dict[str, Any], looks: tuple[Snapshot, ...] = (STEADY, STEADY), **more: Any) -> Row:
    given = {
        "precision_holds": True,
        "samples": ("samples/b-1/x.csv", "0" * 64),
        **more,
    }
    made = judge_row(given.pop("plan", PLAN), given.pop("role", CANDIDATE), OPTIONS, found, looks, **given)
    return replace(made, energy=no_energy("virtual_machine"))


def follows(made: Row) -> dict[str, Any]:
    document = made.to_json()
    check_row(document)
    return document


def test_a_row_that_has_what_it_needs_is_valid() -> None:
    made = row(answer())
    assert (made.status, made.reasons) == ("VALID", ())
    document = follows(made)
    assert document["latency_ms"]["p99"]["value"] == 10.0
    assert document["latency_ms"]["p99_9"]["value"] == 10.0
    assert document["images_per_s"]["value"] == pytest.approx(100.0)
    assert document["memory"]["rss_delta_mib"]["value"] == 80.0
    assert document["mlperf_sample_size"] is False
    assert follows(row(answer(24_576)))["mlperf_sample_size"] is True


@pytest.mark.parametrize(
    ("found", "looks", "reason"),
    [
        (answer(1000, 61.0), (STEADY, STEADY), "below_minimum"),
        (answer(5000, 10.0), (STEADY, STEADY), "below_minimum"),
        (answer(warmup={"calls": 500, "settled": False}), (STEADY, STEADY), "warmup_unstable"),
        (answer(differ=[17]), (STEADY, STEADY), "output_mismatch"),
        (answer(), (STEADY, replace(STEADY, steal=(51, 2000))), "steal"),
        (answer(), (replace(STEADY, throttles=3), replace(STEADY, throttles=4)), "thermal_throttle"),
        (answer(), tuple(replace(STEADY, clock_mhz=c) for c in [3000.0] * 18 + [2840.0] * 2), "clock_drop"),
        (answer(durations_ns=[*[10_000_000] * 5490, *[10_510_000] * 610]), (STEADY, STEADY), "drift"),
    ],
)
def test_r02_r03_what_makes_a_row_invalid(found: dict[str, Any], looks: tuple[Snapshot, ...], reason: str) -> None:
    made = row(found, looks)
    assert (made.status, made.reasons) == ("INVALID", (reason,))
    follows(made)


def test_signs_just_within_their_limits_are_none() -> None:
    assert row(answer(), (STEADY, replace(STEADY, steal=(50, 2000)))).status == "VALID"
    clocks = tuple(replace(STEADY, clock_mhz=c) for c in [3000.0] * 18 + [2860.0] * 2)
    assert row(answer(), clocks).status == "VALID"
    assert row(answer(durations_ns=[*[10_000_000] * 5490, *[10_490_000] * 610])).status == "VALID"
    drifting = answer(durations_ns=[*[10_000_000] * 5490, *[12_000_000] * 610])
    assert row(drifting, clocks).status == "VALID", "where the clock can be read, the clock decides"


def test_wrong_precision_is_invalid() -> None:
    assert row(answer(), precision_holds=False).reasons == ("precision_mismatch",)


@pytest.mark.parametrize(
    ("asked", "found", "holds"),
    [
        ("fp32", {"fp32": 3}, True), ("fp32", {"fp32": 2, "bf16": 1}, False), ("fp32", {"int8": 1}, False),
        ("fp16", {"fp32": 3}, True), ("fp16", {"fp16": 1, "fp32": 2}, True), ("fp16", {"bf16": 3}, False),
        ("int8", {"int8": 3, "fp32": 1}, True), ("int8", {"fp32": 4}, False), ("int8", {"int8": 3, "bf16": 1}, False),
    ],
)  # fmt: skip
def test_precisions_that_were_asked_for(asked: str, found: dict[str, int], holds: bool) -> None:
    assert precision_holds(asked, found) is holds


def test_rows_without_numbers_say_why() -> None:
    assert follows(not_measured(PLAN, "same_as_device"))["status"] == "NA"
    assert follows(broken_row(PLAN, "incomplete"))["reasons"] == ["incomplete"]


def test_r06_energy_is_null_with_a_reason_and_never_zero() -> None:
    energy = follows(row(answer()))["energy"]
    assert energy["source"] == "none"
    for name in ("gross_mj", "net_mj", "idle_w"):
        assert energy[name] == {"value": None, "reason": "virtual_machine"}


def test_parts_of_an_end_to_end_row_are_medians_with_intervals() -> None:
    plan = replace(PLAN, id="onnx-int8-end_to_end-1", scope="end_to_end")
    parts = {"decode": list(range(1_000_000, 7_100_000, 1000)), "infer": [5_000_000] * 6100}
    document = follows(row(answer(parts_ns=parts), plan=plan))
    assert document["parts_ms"]["infer"] == {"value": 5.0, "ci95": [5.0, 5.0]}
    assert document["parts_ms"]["decode"]["value"] == pytest.approx(4.049)


def test_few_samples_of_a_teacher_give_few_percentiles() -> None:
    made = judge_row(
        PLAN, REFERENCE, replace(OPTIONS, max_duration_s=600.0), answer(150, 4000.0), (STEADY, STEADY),
        precision_holds=True, samples=None,
    )  # fmt: skip
    assert made.status == "VALID"
    document = follows(made)
    assert document["latency_ms"]["p90"]["value"] == 4000.0
    assert document["latency_ms"]["p99"] == {"value": None, "reason": "n<459"}
    assert document["samples_file"] is None


def test_clock_that_is_not_negligible_is_noted() -> None:
    assert row(answer(), (STEADY, STEADY)).clock_note == ""
    assert "2.0 % of p50" in row(answer(clock_ns=200_000.0)).clock_note


def test_throughput_is_the_mean_of_ten_equal_blocks_with_its_t_interval() -> None:
    durations = np.repeat([10, 11, 9, 10, 10, 12, 10, 9, 10, 10], 4) * 1_000_000
    starts = np.concatenate([[0], np.cumsum(durations)[:-1]])
    found = block_rate(starts, durations, 8)
    rates = [8 / (ms / 1e3) for ms in (10, 11, 9, 10, 10, 12, 10, 9, 10, 10)]
    half = 2.2621571627 * np.std(rates, ddof=1) / np.sqrt(10)
    assert found.value == pytest.approx(np.mean(rates))
    assert found.ci95 == pytest.approx((np.mean(rates) - half, np.mean(rates) + half))
    assert block_rate(starts[:9], durations[:9], 8).reason == "n<10"


def test_offline_counts_images() -> None:
    plan = RowPlan("onnx-int8-offline", "onnx-int8", "offline", "device", 16)
    made = row(answer(64, 1000.0), plan=plan)
    assert made.status == "VALID"
    assert follows(made)["images_per_s"]["value"] == pytest.approx(16.0)
    assert row(answer(63, 1000.0), plan=plan).reasons == ("below_minimum",)


def test_samples_are_index_start_and_duration() -> None:
    text = samples_csv({"starts_ns": [0, 5], "durations_ns": [4, 3]}).decode()
    assert text == "index,start_ns,duration_ns\n0,0,4\n1,5,3\n"


def test_a_bar_or_a_new_line_in_a_cell_ends_no_cell_of_markdown() -> None:
    rows = [("a|b", "one\ntwo")]
    assert table_lines(("name", "why"), rows) == ["| name | why |", "| --- | --- |", "| a\\|b | one two |"]
