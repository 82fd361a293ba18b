"""Areas under ROC curves and temperatures: check values of docs/parity.md, section 14, scikit-learn as oracle, edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from octc.stats.auc import Areas, compare_areas, delong, logit_interval
from octc.stats.metrics import softmax
from octc.stats.outcome import outcome_of
from octc.stats.temperature import HIGHEST, fit, fit_temperature, nll_at

R = [0.95, 0.90, 0.80, 0.70, 0.55, 0.40, 0.60, 0.50, 0.40, 0.30, 0.20, 0.15, 0.10, 0.05]
C = [0.93, 0.88, 0.82, 0.60, 0.50, 0.45, 0.60, 0.55, 0.35, 0.30, 0.25, 0.10, 0.10, 0.05]
POSITIVE = [True] * 6 + [False] * 8
HEATED = [(8, 2, 0, -2), (6, 5, 0, 0), (1, 7, 0, 2), (0, 2, 9, 1), (4, 0, 2, 6), (2, 4, 1, 0), (0, 1, 5, 4), (7, 0, 1, 2)]
TRUE = [0, 1, 1, 2, 3, 1, 2, 3]
NAMES = ("a", "b", "c", "d")


def noisy(n: int, seed: int, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and logits [n, 1, 4] that know something of them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    return labels, (rng.normal(size=(n, 1, 4)) + scale * np.eye(4)[labels][:, None]).astype(np.float32)


def test_check_values_of_delong() -> None:
    found = delong(R, C, POSITIVE)
    assert found is not None
    assert [found.reference, found.candidate] == pytest.approx([0.927083, 0.906250], abs=1e-6)
    spread = [found.var_reference, found.var_candidate, found.covariance]
    assert spread == pytest.approx([0.00455729, 0.00636781, 0.00477431], abs=1e-8)
    assert [found.difference, found.error] == pytest.approx([-0.020833, 0.037101], abs=1e-6)
    assert [found.difference / found.error, found.p] == pytest.approx([-0.5615, 0.5744], abs=1e-4)
    assert found.difference_interval() == pytest.approx((-0.0936, 0.0519), abs=1e-4)
    assert logit_interval(found.reference, found.var_reference) == pytest.approx((0.6423, 0.9890), abs=1e-4)
    assert logit_interval(found.candidate, found.var_candidate) == pytest.approx((0.6054, 0.9839), abs=1e-4)


def test_the_area_of_hanley_and_mcneils_ratings_is_the_published_one() -> None:
    """109 CT images rated from 1 to 5 (Hanley and McNeil 1982, table I): 0.8932, error 0.0307, [0.83295, 0.95339], as the
    manual of Stata's roctab prints them (DeLong). Most ratings are ties."""
    counts = [33, 6, 6, 11, 2, 3, 2, 2, 11, 33]
    ratings, abnormal = np.repeat([1.0, 2, 3, 4, 5] * 2, counts), np.repeat([False] * 5 + [True] * 5, counts)
    found = delong(ratings, ratings, abnormal)
    assert found is not None
    error = math.sqrt(found.var_reference)
    assert (round(found.reference, 4), round(error, 4)) == (0.8932, 0.0307)
    half = 1.959964 * error
    assert [found.reference - half, found.reference + half] == pytest.approx([0.83295, 0.95339], abs=5e-6)
    assert found.p is None  # the same ratings twice: no difference, and no spread of one


def test_weighted_areas_are_those_of_repeated_images() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores = np.round(np.array([R, C]).T, 1)  # many ties
    labels = np.where(POSITIVE, 0, 1)
    weights = np.random.default_rng(0).integers(0, 4, (5, len(R))).astype(np.float64)
    found = Areas(np.concatenate([scores, scores], axis=1), labels, np.array([0, 1])).of(weights)
    for row, w in zip(found, weights.astype(int), strict=True):
        for k in (0, 1):
            expected = metrics.roc_auc_score(np.repeat(labels == k, w), np.repeat(scores[:, k], w))
            assert row[k] == pytest.approx(expected, abs=1e-12)


def test_intervals_over_patients_are_wider_than_over_images_that_are_copies() -> None:
    labels, logits = noisy(60, 1)
    worse = logits + np.random.default_rng(2).normal(0, 1.0, logits.shape).astype(np.float32)
    labels, logits, worse = np.repeat(labels, 4), np.repeat(logits, 4, axis=0), np.repeat(worse, 4, axis=0)
    models = outcome_of(logits), outcome_of(worse)
    plain = compare_areas(labels, None, models, NAMES, alpha=0.05, resamples=1000, seed=0)
    patients = compare_areas(labels, np.repeat(np.arange(60), 4), models, NAMES, alpha=0.05, resamples=1000, seed=0)
    assert [row.name for row in plain] == [*NAMES, "macro"]
    assert {row.method for row in plain} == {"DeLong"}
    assert {row.method for row in patients} == {"patient bootstrap"}
    for one, other in zip(plain, patients, strict=True):
        assert one.reference == pytest.approx(other.reference, abs=1e-12)
        assert one.difference_interval is not None
        assert other.difference_interval is not None
        assert np.ptp(other.difference_interval) > 1.5 * np.ptp(one.difference_interval)
        assert other.difference_interval[0] <= other.difference <= other.difference_interval[1]
    macro = plain[-1]
    assert macro.reference == pytest.approx(np.mean([row.reference for row in plain[:-1]]))


def test_the_mean_of_two_classes_has_delongs_variance() -> None:
    """With two classes both areas are one number, and what the images add to their mean is DeLong's sum."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 2
    models = tuple(
        outcome_of((rng.normal(size=(300, 1, 2)) + 1.2 * np.eye(2)[labels][:, None]).astype(np.float32)) for _ in range(2)
    )
    first, _, macro = compare_areas(labels, None, models, NAMES[:2], alpha=0.05, resamples=1000, seed=0)
    assert macro.difference == pytest.approx(first.difference, abs=1e-12)
    for limits, whole in (
        (first.difference_interval, macro.difference_interval), (first.reference_interval, macro.reference_interval),
    ):  # fmt: skip
        assert limits is not None
        assert whole == pytest.approx(limits, rel=0.02)


def test_complete_separation_has_no_interval_and_says_so() -> None:
    labels = np.arange(40) % 4
    perfect = outcome_of(10 * np.eye(4, dtype=np.float32)[labels][:, None])
    for clusters in (None, np.arange(40) // 2):
        rows = compare_areas(labels, clusters, (perfect, perfect), NAMES, alpha=0.05, resamples=1000, seed=0)
        assert {(row.reference, row.reference_interval, row.reason) for row in rows} == {(1.0, None, "degenerate")}


@pytest.mark.parametrize(
    ("labels", "reasons"), [([0] * 20, ["single_class"] * 5), ([0, 1] * 10, [None, None, "empty_class", "empty_class", None])]
)
def test_c06_classes_without_images(labels: list[int], reasons: list[str | None]) -> None:
    _, logits = noisy(20, 3, 0.0)
    one = outcome_of(logits)
    rows = compare_areas(np.array(labels), np.arange(20) // 2, (one, one), NAMES, alpha=0.05, resamples=1000, seed=0)
    assert [None if row.reason == "degenerate" else row.reason for row in rows] == reasons


def test_one_patient_has_areas_and_no_interval() -> None:
    labels, logits = noisy(30, 4)
    one = outcome_of(logits)
    rows = compare_areas(labels, np.zeros(30, np.int64), (one, one), NAMES, alpha=0.05, resamples=1000, seed=0)
    assert {(row.reason, row.difference_interval) for row in rows} == {("one_cluster", None)}
    assert all(row.reference is not None for row in rows)


def test_check_values_of_the_temperature() -> None:
    logits = np.array(HEATED, np.float64)
    value = fit(logits, TRUE)
    assert value == pytest.approx(1.965275, abs=1e-6)
    assert [nll_at(logits[:, None], TRUE, t) for t in (1.0, value)] == pytest.approx([0.875366, 0.693881], abs=1e-6)
    before, after = softmax(logits), softmax(logits / value)
    assert [p.max(axis=1).mean() for p in (before, after)] == pytest.approx([0.889745, 0.748886], abs=1e-6)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()
    assert float((after.argmax(axis=1) == TRUE).mean()) == 0.75


def test_a_temperature_undoes_a_scale_and_is_the_same_from_any_scale() -> None:
    labels, logits = noisy(400, 5)
    first = fit_temperature(logits, labels.tolist())
    heated = fit_temperature(3 * logits, labels.tolist())
    assert first.reason is None
    assert heated.value == pytest.approx(3 * first.value, rel=1e-5)
    assert heated.after == pytest.approx(first.after, abs=1e-9)
    assert heated.before > heated.after


def test_no_temperature_is_fitted_where_it_would_mean_nothing() -> None:
    labels, logits = noisy(400, 6)
    few = fit_temperature(logits[:99], labels[:99].tolist())
    right = fit_temperature(8 * np.eye(4, dtype=np.float32)[labels][:, None], labels.tolist())
    unknowing = fit_temperature(noisy(400, 7, -2.0)[1], labels.tolist())
    broken = fit_temperature(np.where(np.arange(400)[:, None, None] == 3, np.nan, logits), labels.tolist())
    assert [one.value for one in (few, right, unknowing, broken)] == [1.0] * 4
    assert [one.reason for one in (few, right, broken)] == ["too_few_images", "no_errors", "not_finite"]
    assert unknowing.reason == "at_bound"
    assert math.isfinite(HIGHEST)
