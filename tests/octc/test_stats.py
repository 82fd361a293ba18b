"""The check values of docs/parity.md, section 14, and properties that any such test must have."""

from __future__ import annotations

import csv
import io
import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from octc.stats.cluster_bootstrap import (
    Paired,
    cluster_index,
    design_effect,
    difference_bootstrap,
    mean_cluster_size,
    paired,
    percentile_interval,
    planned_icc,
)
from octc.stats.proportions import (
    flip_rate_bound,
    holm,
    mcnemar_exact,
    mcnemar_midp,
    p_non_inferior,
    p_tost,
    tango_interval,
    tango_t,
    tier_needed,
    tier_reached,
    wilson,
    z_of,
)

PP = 0.0006  # 0.6 of the last printed digit


VALUES = runpy.run_path(str(Path(__file__).with_name("parity_values.py")))


def rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(VALUES[name].strip())))


def percent(limits: tuple[float, float] | None) -> list[float]:
    assert limits is not None
    return [100 * limit for limit in limits]


def outcomes(counts: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images, lost, gained) per patient -> arrays lost, gained, clusters."""
    lost = [i < b for n, b, _ in counts for i in range(n)]
    gained = [b <= i < b + c for n, b, c in counts for i in range(n)]
    return np.array(lost), np.array(gained), np.repeat(np.arange(len(counts)), [n for n, _, _ in counts])


def test_tango_check_values() -> None:
    for row in rows("TANGO"):
        n, b, c = (int(row[key]) for key in ("n", "lost", "gained"))
        assert percent(tango_interval(n, b, c)) == pytest.approx([float(row["L95"]), float(row["U95"])], abs=PP), row
        assert percent(tango_interval(n, b, c, 0.10)) == pytest.approx([float(row["L90"]), float(row["U90"])], abs=PP), row


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 7), (5, 3), (20, 20), (50, 0), (0, 50), (49, 1)])
def test_tango_limits_are_roots_and_swapping_mirrors(b: int, c: int) -> None:
    low, high = tango_interval(50, b, c)
    assert tango_interval(50, c, b) == pytest.approx((-high, -low), abs=1e-10)
    assert -1 <= low <= (c - b) / 50 <= high <= 1
    z = z_of(0.05)
    if low > -1:
        assert tango_t(50, b, c, low) == pytest.approx(z, abs=1e-6)
    if high < 1:
        assert tango_t(50, b, c, high) == pytest.approx(-z, abs=1e-6)


def test_all_pairs_lost_and_a_single_pair() -> None:
    assert percent(tango_interval(10, 10, 0)) == pytest.approx([-100, -44.493], abs=PP)
    assert percent(tango_interval(1, 0, 0)) == pytest.approx([-79.345, 79.345], abs=PP)


def test_non_inferiority_check_values() -> None:
    for row in rows("NI"):
        n, b, c = (int(row[key]) for key in ("n", "lost", "gained"))
        delta = float(row["delta_pp"]) / 100
        assert tango_t(n, b, c, -delta) == pytest.approx(float(row["T(-delta)"]), abs=PP)
        assert p_non_inferior(n, b, c, delta) == pytest.approx(float(row["p_NI"]), abs=6e-6)
        assert (tango_interval(n, b, c)[0] > -delta) == (row["non_inferior"] == "yes")


def test_tost_check_values() -> None:
    assert p_tost(1000, 5, 5, 0.01) == pytest.approx(0.00626, abs=6e-6)
    assert p_non_inferior(1000, 0, 5, 0.01) == pytest.approx(0.00005, abs=6e-6)
    assert p_tost(1000, 0, 5, 0.01) == pytest.approx(0.05602, abs=6e-6)


def test_largest_counts_that_pass() -> None:
    for row in rows("LARGEST"):
        n, delta = int(row["n"]), float(row["delta_pp"]) / 100
        equal, alone = int(row["max_equal"]), int(row["max_lost_only"])
        assert tango_interval(n, equal, equal)[0] > -delta
        assert tango_interval(n, equal + 1, equal + 1)[0] <= -delta
        assert tango_interval(n, alone, 0)[0] > -delta
        assert tango_interval(n, alone + 1, 0)[0] <= -delta


@pytest.mark.parametrize("name", ["SCALED", "UCSD"])
def test_scaled_tango_check_values(name: str) -> None:
    for row in rows(name):
        deff = float(row["deff"])
        scaled = [int(row[key]) / deff for key in ("n", "lost", "gained")]
        assert percent(tango_interval(*scaled)) == pytest.approx([float(row["L95"]), float(row["U95"])], abs=PP), row


def test_ten_patients() -> None:
    sizes = [1, 1, 2, 2, 3, 1, 4, 2, 1, 3]
    lost, gained, clusters = outcomes(
        list(zip(sizes, [0, 1, 0, 0, 2, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0, 1, 0, 0, 1], strict=True))
    )
    observed, planned, deff, hit = design_effect(lost, gained, clusters, 0.5)
    assert observed == pytest.approx(1.096866, abs=6e-7)
    assert mean_cluster_size(clusters) == pytest.approx(2.5)
    assert (planned, deff, hit) == (1.75, 1.75, 6)
    result = paired(lost, gained, clusters)
    assert result.difference == pytest.approx(-0.1)
    assert percent(result.tango) == pytest.approx([-37.234, 18.790], abs=PP)
    assert percent(result.scaled) == pytest.approx([-45.458, 28.404], abs=PP)


def test_patient_bootstrap_agrees_with_all_256_resamples() -> None:
    lost, gained, clusters = outcomes([(1, 0, 0), (2, 1, 0), (3, 0, 0), (2, 0, 1)])
    sizes, x = np.array([1, 2, 3, 2]), np.array([0, -1, 0, 1])
    exact = np.array([x[list(draw)].sum() / sizes[list(draw)].sum() for draw in itertools.product(range(4), repeat=4)])
    assert exact.std() == pytest.approx(0.183604, abs=6e-7)
    drawn = difference_bootstrap(lost, gained, clusters, 10_000, seed=0)
    assert drawn.std() == pytest.approx(0.184, abs=0.006)
    assert percentile_interval(drawn, 0.05) == pytest.approx((-1 / 3, 1 / 3))
    assert percentile_interval(exact, 0.05) == pytest.approx((-1 / 3, 1 / 3))
    assert len(np.unique(np.round(drawn, 9))) <= 17
    assert (difference_bootstrap(lost, gained, clusters, 2000, seed=1) == drawn[:2000]).mean() < 1


def test_bootstrap_is_seeded() -> None:
    lost, gained, clusters = outcomes([(2, 1, 0)] * 6 + [(1, 0, 1)] * 3 + [(3, 0, 0)] * 20)
    first, again = (paired(lost, gained, clusters, seed=3).bootstrap for _ in range(2))
    assert first is not None
    assert first == again


def test_deciding_interval_is_the_widest_of_both() -> None:
    lost, gained, clusters = outcomes([(6, 5, 0)] * 3 + [(2, 0, 1)] * 4 + [(2, 0, 0)] * 60)
    result = paired(lost, gained, clusters)
    assert result.bootstrap is not None
    assert result.scaled is not None
    assert result.deciding == (min(result.bootstrap[0], result.scaled[0]), max(result.bootstrap[1], result.scaled[1]))


def test_c06_without_discordant_pairs_the_bootstrap_is_degenerate_and_the_scaled_interval_decides() -> None:
    lost, gained, clusters = outcomes([(2, 0, 0)] * 100)
    result = paired(lost, gained, clusters)
    assert (result.bootstrap, result.bootstrap_reason) == (None, "degenerate")
    assert (result.deff_obs, result.deff) == (None, 1.5)
    z = z_of(0.05)
    n = 200 / 1.5
    assert result.deciding == pytest.approx((-(z**2) / (n + z**2), z**2 / (n + z**2)))


def test_one_patient_has_no_clustered_interval() -> None:
    result = paired(np.array([True, False, False]), np.zeros(3, bool), np.zeros(3, np.int64))
    assert (result.deciding, result.decided_by) == (None, "one_cluster")


def test_without_patients_the_plain_interval_decides() -> None:
    result = paired(np.array([True] + [False] * 9), np.zeros(10, bool), cluster_index([None] * 10))
    assert result.deciding == result.tango
    assert result.patients is None


def test_images_without_patient_are_their_own_cluster() -> None:
    clusters = cluster_index(["a", None, "a", None])
    assert clusters is not None
    assert clusters.tolist() == [0, 1, 0, 2]


def test_many_discordant_patients_use_the_observed_design_effect() -> None:
    lost, gained, clusters = outcomes([(4, 1, 0)] * 15 + [(4, 0, 1)] * 15 + [(4, 0, 0)] * 70)
    result = paired(lost, gained, clusters)
    assert result.deff_obs is not None
    assert result.deff == max(1.0, result.deff_obs)
    assert result.deff_plan == pytest.approx(2.5)


def _facts(result: Paired) -> dict[str, object]:
    return result.facts()


def test_icc_for_planning() -> None:
    assert planned_icc(None) == 0.5
    few = paired(*outcomes([(3, 1, 0)] * 5 + [(3, 0, 0)] * 20))
    assert planned_icc(_facts(few)) == 0.5
    many = paired(*outcomes([(3, 2, 0)] * 15 + [(3, 0, 2)] * 15 + [(3, 0, 0)] * 70))
    assert many.deff_obs is not None
    assert planned_icc(_facts(many)) == pytest.approx((many.deff_obs - 1) / 2)
    assert planned_icc({**_facts(many), "deff_obs": 0.3}) == 0.05
    assert planned_icc({**_facts(many), "mean_size": 1.0}) == 0.5


def test_mcnemar_check_values() -> None:
    for row in rows("MCNEMAR"):
        b, c = int(row["lost"]), int(row["gained"])
        assert mcnemar_exact(b, c) == pytest.approx(float(row["exact_p"]), abs=6e-7)
        assert mcnemar_midp(b, c) == pytest.approx(float(row["mid_p"]), abs=6e-7)
        assert mcnemar_midp(b, c) == mcnemar_midp(c, b)


def test_mcnemar_of_thousands_of_pairs_is_a_number() -> None:
    assert mcnemar_midp(3000, 3000) == pytest.approx(1 - binom.pmf(3000, 6000, 0.5) / 2)


def test_wilson_check_values() -> None:
    for row in rows("WILSON"):
        k, n = int(row["k"]), int(row["n"])
        assert percent(wilson(k, n)) == pytest.approx([float(row["lower"]), float(row["upper"])], abs=PP)
    deff = 1.289889
    for k, n, low, high in ((245, 250, 94.904, 99.230), (232, 250, 88.270, 95.667), (984, 1000, 97.249, 99.074)):
        assert percent(wilson(k / deff, n / deff)) == pytest.approx([low, high], abs=PP)
    assert wilson(0, 0) is None


def test_bound_of_the_flip_rate_without_flips() -> None:
    for n, bound, digit in ((250, 1.191, PP), (1000, 0.299, PP), (3000, 0.100, PP), (10000, 0.030, PP), (21600, 0.0139, 6e-5)):
        assert 100 * flip_rate_bound(n) == pytest.approx(bound, abs=digit)


def test_holm_check_values() -> None:
    assert holm([0.004, 0.030, 0.020, 0.600]) == pytest.approx([0.016, 0.060, 0.060, 0.600])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_tier_check_values() -> None:
    for row in rows("TIERS"):
        k = int(row["k_reference"])
        assert tier_needed(k, "99") == int(row["needed_99"])
        assert tier_needed(k, "99.9") == int(row["needed_99_9"])
        for tier in ("99", "99.9"):
            assert tier_reached(k, tier_needed(k, tier), tier)
            assert not tier_reached(k, tier_needed(k, tier) - 1, tier)
