"""What an export finds of the speed of INT8: the interval of a median, its words, and a file that is not worth it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import octc
from octc.core.progress import LogReporter
from octc.export import int8_speed
from octc.export.int8_speed import median_limits, say_speed
from octc.store.artifacts import read_artifact
from octc.store.int8_speed import KEY, is_slower, speed_words


@pytest.mark.parametrize(("n", "places"), [(9, (2, 8)), (20, (6, 15)), (100, (40, 61))])
def test_the_interval_of_a_median_has_the_places_of_the_table(n: int, places: tuple[int, int]) -> None:
    """Conover, Practical Nonparametric Statistics, table A3: quantiles of binomial (n, 1/2)."""
    assert median_limits([float(i) for i in range(n, 0, -1)]) == places


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=60))
def test_the_interval_holds_the_median(values: list[float]) -> None:
    low, high = median_limits(values)
    assert low <= np.median(values) <= high


def test_the_interval_covers_as_it_says() -> None:
    draw = np.random.default_rng(0).lognormal(0.0, 1.0, (2000, 15))
    held = [low <= 1.0 <= high for low, high in (median_limits(list(row)) for row in draw)]
    assert 0.95 <= np.mean(held) <= 0.98  # exactly 0.965 for 15 values


@pytest.mark.parametrize(("numbers", "slower"), [((2.0, 1.8, 2.2), True), ((0.5, 0.4, 0.6), False), ((1.1, 0.9, 1.3), False)])
def test_a_file_is_slower_only_where_that_was_shown(numbers: tuple[float, float, float], slower: bool) -> None:
    found = {**dict(zip(("ratio", "low", "high"), numbers, strict=True)), "engine": "ONNX Runtime", "processor": "this one"}
    assert is_slower({KEY: found}) == slower
    assert is_slower({KEY: found}, "this one") == slower
    assert not is_slower({KEY: found}, "another one")
    assert f"{numbers[0]:.2g}" in (speed_words({KEY: found}) or "")


@pytest.mark.parametrize(
    "value", [None, 7, {}, {"ratio": "1", "low": 2, "high": 3}, {"ratio": float("nan"), "low": 2.0, "high": 3.0}]
)
def test_details_of_other_programs_say_nothing(value: object) -> None:
    assert not is_slower({KEY: value})
    assert speed_words({KEY: value}) is None


class Timed:
    """A call that takes a stated time by the clock of the test."""

    def __init__(self, clock: list[int], took: int) -> None:
        self.clock, self.took = clock, took

    def __call__(self) -> None:
        self.clock[0] += self.took


@pytest.mark.parametrize(("small", "ratio"), [(2_000_000, 2.0), (250_000, 0.25)])
def test_pairs_of_calls_give_the_ratio_of_their_times(small: int, ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0]
    monkeypatch.setattr(int8_speed.time, "perf_counter_ns", lambda: clock[0])
    monkeypatch.setattr(int8_speed.time, "perf_counter", lambda: clock[0] / 1e9)
    monkeypatch.setattr(int8_speed, "SECONDS", 1.0)
    found = int8_speed._pairs(Timed(clock, small), Timed(clock, 1_000_000))
    assert found == [ratio] * min(len(found), int8_speed.MOST)
    assert len(found) == min(int8_speed.MOST, -(-1_000_000_000 // (small + 1_000_000)))


def test_an_int8_artifact_keeps_what_it_costs_beside_fp32(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)) for _ in range(32)]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    options = octc.QuantizeOptions(rounding=False, observers=["max"])
    made = octc.quantize(net, images, octc.Preprocess(size=32), classes=("a", "b"), options=options)
    for folder in octc.export(made, ["onnx", "openvino"], out=tmp_path):
        found = read_artifact(folder).details[KEY]
        assert found["pairs"] >= int8_speed.FEWEST
        assert 0 < found["low"] <= found["ratio"] <= found["high"]
    (plain,) = octc.export(made, ["onnx"], "fp32", out=tmp_path)
    assert KEY not in read_artifact(plain).details


def test_a_slower_file_is_warned_of_and_another_target_named() -> None:
    told = LogReporter()
    details = {KEY: {"ratio": 2.0, "low": 1.8, "high": 2.2, "engine": "ONNX Runtime", "processor": "this one"}}
    for model in (nn.ReLU(), nn.Sequential(nn.SiLU())):
        say_speed(Path("x"), cast("Any", SimpleNamespace(details=details, target="onnx")), told, model)
    assert [one["code"] for one in told.warnings] == ["OCT-W611"] * 2
    assert ["octc simplify --activation hard-swish" in one["message"] for one in told.warnings] == [False, True]
    assert "--target openvino" in told.warnings[0]["message"]
    assert "--target onnx" not in told.warnings[0]["message"]
