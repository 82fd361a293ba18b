"""Power and sample size: the check values of docs/parity.md, section 14, and plain sums to compare with."""

from __future__ import annotations

import csv
import io
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from octc.stats.power import exact_power, needed_n, planned_discordance, smallest_n
from octc.stats.proportions import (
    tango_interval,
    tango_t,
    z_of,
)

PP = 0.0006  # 0.6 of the last printed digit
VALUES = runpy.run_path(str(Path(__file__).with_name("parity_values.py")))


def rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(VALUES[name].strip())))


def test_power_check_values() -> None:
    for row in rows("POWER"):
        found = exact_power(int(row["n_eff"]), float(row["d_percent"]) / 100, float(row["delta_pp"]) / 100)
        assert found == pytest.approx(float(row["power"]), abs=PP), row
    assert [exact_power(n, 0.005, 0.005) for n in (600, 700)] == pytest.approx([0.242, 0.231], abs=PP)
    assert [exact_power(1000, d, 0.01, 0.10) for d in (0.01, 0.02)] == pytest.approx([0.880, 0.688], abs=PP)


def test_error_rate_at_the_boundary() -> None:
    for n, d, delta, rate in ((1000, 0.02, 0.01, 0.0234), (3000, 0.01, 0.005, 0.0221), (250, 0.04, 0.03, 0.0152)):
        assert exact_power(n, d, delta, difference=-delta) == pytest.approx(rate, abs=6e-5)


@pytest.mark.parametrize(("n", "d", "delta"), [(120, 0.05, 0.05), (80, 0.2, 0.1), (200, 0.01, 0.03), (5, 0.02, 0.01)])
def test_power_is_the_plain_sum_over_all_outcomes(n: int, d: float, delta: float) -> None:
    z = z_of(0.05)
    total = 0.0
    for pairs in range(n + 1):
        chance = binom.pmf(pairs, n, d)
        if chance > 1e-12:
            gained = np.array([c for c in range(pairs + 1) if tango_t(n, pairs - c, c, -delta) > z])
            total += chance * binom.pmf(gained, pairs, 0.5).sum()
    assert exact_power(n, d, delta) == pytest.approx(total, abs=1e-9)


def test_planned_discordance() -> None:
    assert planned_discordance(12, 3000) == pytest.approx(0.005094, abs=6e-7)
    assert exact_power(775, planned_discordance(12, 3000), 0.01) == pytest.approx(0.818, abs=PP)
    assert planned_discordance(3, 1000) == 0.005
    assert planned_discordance(None) == 0.02


def test_smallest_n_table() -> None:
    margins = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03)
    assert [smallest_n(margin) for margin in margins] == [3838, 1533, 765, 381, 189, 125]
    assert [smallest_n(margin, 0.10) for margin in margins] == [2703, 1080, 539, 268, 133, 88]
    for margin in margins:
        assert tango_interval(smallest_n(margin), 0, 0)[0] > -margin
        assert tango_interval(smallest_n(margin) - 1, 0, 0)[0] <= -margin


@pytest.mark.parametrize(
    ("power", "d", "delta", "deff"), [(0.6, 0.02, 0.01, 1.0), (0.8, 0.005, 0.01, 1.3), (0.8, 0.02, 0.02, 2.1)]
)
def test_needed_n_is_where_the_power_stays_above(power: float, d: float, delta: float, deff: float) -> None:
    found = needed_n(power, d, delta, deff=deff)
    assert found is not None
    assert found % 100 == 0
    grid = {n: exact_power(math.floor(n / deff), d, delta) for n in range(100, 3 * found, 100)}
    assert max(n for n, value in grid.items() if value <= power) == found - 100


def test_needed_n_that_nobody_has_is_none() -> None:
    assert needed_n(0.8, 0.5, 0.0001) is None
