"""Metrics by eye against numbers by hand and scikit-learn, thresholds, intervals, decisions of two files, the gate."""

from __future__ import annotations

import numpy as np
import pytest

from octc.datasets.base import Sample
from octc.stats.average_precision import map_difference, map_interval
from octc.stats.multilabel import (
    by_eye,
    chance_map,
    figures,
    mean_ap,
    overall,
    sigmoid,
    target_matrix,
    thresholds_of,
    tuned_thresholds,
)
from octc.stats.multilabel_comparison import compare_decisions, gate_decisions
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import golden_part

NAMES = ("A", "B", "C")


def make(n: int = 120, seed: int = 0, noise: float = 1.0) -> tuple[list[Sample], np.ndarray]:
    """Images of two an eye, two eyes a patient, and logits that know something of their labels."""
    rng = np.random.default_rng(seed)
    samples, rows = [], []
    for i in range(n):
        eye = i // 2
        own = np.random.default_rng([seed, eye]).random(3) < (0.5, 0.3, 0.2)
        samples.append(Sample(f"{i}.png", 0, f"p{eye // 2}", None, f"{i:02x}", tuple(np.flatnonzero(own).tolist()), f"e{eye}"))
        rows.append(np.where(own, 1.5, -1.5) + rng.normal(0, noise, 3))
    return samples, np.array(rows, np.float32)


def test_f49_one_class_by_hand() -> None:
    scores = np.array([[0.9], [0.6], [0.4], [0.2], [0.7]])
    truth = np.array([[True], [True], [True], [False], [False]])
    eyes = by_eye(scores, truth, list("abcde"), list("abcde"))
    row = figures(eyes, ["A"], [0.5])[0]
    assert (row["sensitivity"], row["specificity"], row["accuracy"]) == (pytest.approx(2 / 3), 0.5, pytest.approx(0.6))
    assert row["f1_ss"] == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    assert row["f1"] == pytest.approx(4 / 6)  # not the same number: A18
    assert row["auc"] == pytest.approx(4 / 6)
    assert row["ap"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_f49_auc_and_ap_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    scores, truth = np.round(rng.random((80, 3)), 2), rng.random((80, 3)) < 0.3
    eyes = by_eye(scores, truth, [str(i) for i in range(80)], [None] * 80)
    rows = figures(eyes, NAMES, [0.5] * 3)
    order = [int(name) for name in eyes.names]
    for k, row in enumerate(rows):
        assert row["auc"] == pytest.approx(metrics.roc_auc_score(truth[order, k], scores[order, k]))
        assert row["ap"] == pytest.approx(metrics.average_precision_score(truth[order, k], scores[order, k]))
        assert row["f1"] == pytest.approx(metrics.f1_score(truth[order, k], scores[order, k] >= 0.5))
    assert mean_ap(eyes.scores, eyes.truth) == pytest.approx(np.mean([row["ap"] for row in rows]))


def test_f49_an_eye_takes_its_largest_score_and_all_its_labels() -> None:
    scores = np.array([[0.1, 0.8], [0.7, 0.2], [0.5, 0.5]])
    truth = np.array([[True, False], [False, True], [False, False]])
    found = by_eye(scores, truth, ["x", "x", "y"], ["p", "p", "q"])
    assert found.names == ("x", "y")
    np.testing.assert_array_equal(found.scores[0], [0.7, 0.8])
    np.testing.assert_array_equal(found.truth[0], [True, True])
    np.testing.assert_array_equal(
        by_eye(scores, truth, ["x", "x", "y"], ["p", "p", "q"], label="first").truth[0], [True, False]
    )
    np.testing.assert_allclose(by_eye(scores, truth, ["x", "x", "y"], ["p", "p", "q"], pool="mean").scores[0], [0.4, 0.5])


def test_a_class_without_a_positive_is_left_out_of_the_means_and_named() -> None:
    truth = target_matrix([[0], [0, 1], [1]], 3)
    eyes = by_eye(np.array([[0.9, 0.1, 0.3], [0.8, 0.7, 0.2], [0.2, 0.6, 0.1]]), truth, list("abc"), list("abc"))
    rows = figures(eyes, NAMES, [0.5] * 3)
    assert rows[2]["ap"] is None
    assert rows[2]["auc"] is None
    assert rows[2]["sensitivity"] is None
    assert overall(rows)["without_positives"] == ["C"]
    assert overall(rows)["classes"]["ap"] == 2
    assert chance_map(truth) == pytest.approx(2 / 3)


def test_thresholds_split_the_sides_they_were_tuned_on() -> None:
    samples, logits = make(noise=0.2)
    truth = target_matrix([s.targets or () for s in samples], 3)
    eyes = by_eye(sigmoid(logits - 3), truth, [str(s.eye) for s in samples], [s.patient for s in samples])
    cuts = tuned_thresholds(eyes)
    assert all(0 < cut < 0.5 for cut in cuts)  # the scores were shifted far below one half
    assert all(row["f1_ss"] == 1.0 for row in figures(eyes, NAMES, cuts))
    assert all(row["sensitivity"] == 0.0 for row in figures(eyes, NAMES, [0.5] * 3))
    assert thresholds_of({"thresholds": list(cuts)}, 3) == cuts
    assert thresholds_of({}, 2) == (0.5, 0.5)
    with pytest.raises(ValueError, match="thresholds"):
        thresholds_of({"thresholds": [0.5, 2.0]}, 2)


def test_map_intervals_follow_the_patients() -> None:
    samples, logits = make()
    truth = target_matrix([s.targets or () for s in samples], 3)
    names, people = [str(s.eye) for s in samples], [s.patient for s in samples]
    eyes = by_eye(sigmoid(logits), truth, names, people)
    low, high = map_interval(eyes, resamples=300) or (0, 0)
    value = mean_ap(eyes.scores, eyes.truth) or 0
    assert low < value < high
    alone = by_eye(sigmoid(logits), truth, names, ["one"] * len(names))
    assert map_interval(alone, resamples=300) is None
    noise = np.random.default_rng(1).normal(0, 2.5, logits.shape)
    worse = by_eye(sigmoid(logits + noise), truth, names, people)
    difference, interval = map_difference(eyes, worse, resamples=300)
    assert difference is not None
    assert difference < 0
    assert interval is not None
    assert interval[1] < 0
    assert map_difference(eyes, eyes, resamples=300) == (0.0, (0.0, 0.0))


def test_decisions_that_flip_are_counted_by_class_and_direction() -> None:
    samples, logits = make()
    other = logits.copy()
    other[0, 1] = -other[0, 1]
    other[3, 2] = -other[3, 2]
    found = compare_decisions(samples, logits[:, None], other[:, None], NAMES, (0.5,) * 3)
    assert [row["flips"] for row in found.per_class] == [0, 1, 1]
    assert found.agreement == pytest.approx(1 - 2 / 360)
    for row in found.per_class:
        assert row["to_positive"] + row["to_negative"] == row["flips"] == row["lost"] + row["gained"]


def test_the_gate_takes_the_same_file_and_rejects_a_worse_or_broken_one() -> None:
    samples, logits = make()
    options = ParityOptions(margin=1.0)
    same = gate_decisions(samples, logits, logits, NAMES, (0.5,) * 3, options, extra=golden_part(True))
    assert same.accepted
    assert same.word == "non-inferior on select"
    assert same.to_json()["agreement"] == 1.0
    noise = np.random.default_rng(1).normal(0, 2.5, logits.shape).astype(np.float32)
    worse = gate_decisions(samples, logits, logits + noise, NAMES, (0.5,) * 3, options)
    assert not worse.accepted
    assert "point_difference" in worse.reasons
    broken = logits.copy()
    broken[5, 0] = np.nan
    assert gate_decisions(samples, logits, broken, NAMES, (0.5,) * 3, options).reasons == ("not_finite",)
    assert not gate_decisions(samples, logits, logits, NAMES, (0.5,) * 3, options, extra=golden_part(False)).accepted
