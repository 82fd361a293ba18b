"""Metrics against the twenty published matrices, the check values of docs/parity.md, and identities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octc.stats.metrics import (
    brier_scores,
    combine_views,
    confidence_order,
    confusion_matrix,
    ece_mass,
    ece_width,
    find_normal,
    kl_scores,
    log_softmax,
    logit_distances,
    metrics_of,
    nll_scores,
    softmax,
    top_two_margin,
)

SPEC = Path(__file__).resolve().parents[3] / "shared" / "spec" / "kd-oct-confusion.json"
MACRO = ("accuracy", "macro_sensitivity", "macro_specificity", "macro_precision", "macro_f1")
DISEASE = ("disease_vs_normal_sensitivity", "disease_vs_normal_specificity")
PER_CLASS = ("support", "predicted", "tp", "fp", "fn", "tn", "sensitivity", "specificity", "precision", "f1")

LOGITS_R = np.array([[2.0, 0.5, -1.0, 0.1], [0.2, 1.5, 1.4, -0.7], [-1.0, 0.0, 3.0, 0.5]])
LOGITS_C = np.array([[1.8, 0.6, -0.9, 0.1], [0.3, 1.4, 1.5, -0.8], [-1.0, 0.1, 2.9, 0.5]])
LABELS = np.array([0, 1, 2])
CONFIDENCE = [0.55, 0.62, 0.68, 0.71, 0.81, 0.84, 0.91, 0.93, 0.97, 0.99]
CORRECT = [1, 0, 1, 1, 0, 1, 1, 0, 1, 1]


def published() -> dict[str, Any]:
    if not SPEC.is_file():
        pytest.skip("the published matrices (shared/spec/kd-oct-confusion.json) are not beside this repository")
    value: dict[str, Any] = json.loads(SPEC.read_text())
    return value


def test_the_twenty_published_matrices_reproduce() -> None:
    value = published()
    tolerance = value["tolerance"]["absolute"]
    seen = 0
    for group in value["sets"].values():
        for fold in group["folds"]:
            figures = metrics_of(fold["matrix"], group["normal_index"])
            assert figures.n == fold["n"]
            for name in (*MACRO, *DISEASE):
                assert getattr(figures, name) == pytest.approx(fold[name], abs=tolerance), (group["model"], fold["fold"], name)
            for name in PER_CLASS:
                found = [getattr(one, name) for one in figures.per_class]
                assert found == pytest.approx(fold["per_class"][name], abs=tolerance)
            seen += 1
    assert seen == 20


def test_neh_row_sums_are_those_of_the_filtered_set() -> None:
    sets = published()["sets"]
    for name in ("teacher_neh", "student_neh"):
        total = sum(np.array(fold["matrix"]).sum(axis=1) for fold in sets[name]["folds"])
        order = [sets[name]["classes"].index(label) for label in ("normal", "drusen", "cnv")]
        assert [int(total[k]) for k in order] == [5667, 3742, 3240]


@pytest.mark.parametrize("classes", [2, 3, 4, 7])
def test_identities_hold_with_equal_class_counts(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = np.repeat(np.arange(classes), 50)
    said = np.where(rng.random(len(labels)) < 0.8, labels, rng.integers(0, classes, len(labels)))
    figures = metrics_of(confusion_matrix(labels, said, classes))
    assert figures.accuracy is not None
    assert figures.accuracy == pytest.approx((labels == said).mean())
    assert figures.macro_sensitivity == pytest.approx(figures.accuracy)
    assert figures.macro_specificity == pytest.approx(1 - (1 - figures.accuracy) / (classes - 1))


def test_matrix_rows_are_truth() -> None:
    assert confusion_matrix([0, 0, 1], [0, 1, 1], 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_c06_a_class_without_images_has_no_numbers_and_is_left_out_of_macro() -> None:
    figures = metrics_of([[8, 1, 1], [0, 0, 0], [2, 0, 8]])
    empty = figures.per_class[1]
    assert (empty.sensitivity, empty.specificity, empty.precision, empty.f1) == (None, None, None, None)
    assert figures.macro_sensitivity == pytest.approx((0.8 + 0.8) / 2)


def test_c06_a_single_class_has_no_specificity_and_no_macro() -> None:
    figures = metrics_of([[9, 1], [0, 0]], normal=0)
    assert figures.accuracy == pytest.approx(0.9)
    assert figures.per_class[0].sensitivity == pytest.approx(0.9)
    assert figures.per_class[0].specificity is None
    assert figures.macro_sensitivity is None
    assert figures.disease_vs_normal_sensitivity is None


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    figures = metrics_of([[10, 0], [4, 0]])
    assert figures.per_class[1].precision is None
    assert figures.macro_precision is None
    assert figures.per_class[1].f1 == 0


def test_normal_is_found_by_name() -> None:
    assert find_normal(("CNV", "DME", "DRUSEN", "NORMAL")) == 3
    assert find_normal(("a", "b")) is None


def test_ece_check_values() -> None:
    assert ece_mass(CONFIDENCE, CORRECT, 5) == pytest.approx(0.231)
    assert ece_mass(CONFIDENCE, CORRECT, 3) == pytest.approx(0.189)
    assert [ece_width(CONFIDENCE, CORRECT, bins) for bins in (5, 10, 15)] == pytest.approx([0.191, 0.249, 0.321])


def test_confidence_ties_are_ordered_by_id() -> None:
    order = confidence_order([0.9, 0.5, 0.9, 0.9], ["c", "z", "a", "b"])
    assert order.tolist() == [1, 2, 3, 0]


def test_logit_check_values() -> None:
    r, c = log_softmax(LOGITS_R), log_softmax(LOGITS_C)
    assert kl_scores(r, c) == pytest.approx([0.007961, 0.004978, 0.001204], abs=6e-7)
    assert kl_scores(r, c).mean() == pytest.approx(0.004714, abs=6e-7)
    assert kl_scores(c, r).mean() == pytest.approx(0.004824, abs=6e-7)
    distances = logit_distances(LOGITS_R[:, None], LOGITS_C[:, None])
    assert distances["dlogit_max"] == pytest.approx(0.2)
    assert distances["dlogit_centred_max"] == pytest.approx(0.2)
    assert distances["s"] == pytest.approx(3.066667, abs=6e-7)
    assert top_two_margin(LOGITS_R)[1] == pytest.approx(0.1)
    assert brier_scores(np.exp(r), LABELS).mean() == pytest.approx(0.213069, abs=6e-7)
    assert brier_scores(np.exp(c), LABELS).mean() == pytest.approx(0.262123, abs=6e-7)
    assert nll_scores(r, LABELS).mean() == pytest.approx(0.440028, abs=6e-7)
    assert nll_scores(c, LABELS).mean() == pytest.approx(0.511036, abs=6e-7)


def test_views_are_combined_by_the_mean_of_probabilities() -> None:
    views = np.log([[[0.90, 0.04, 0.03, 0.03], [0.02, 0.50, 0.46, 0.02]]])
    probabilities, logs = combine_views(views)
    assert probabilities[0] == pytest.approx([0.46, 0.27, 0.245, 0.025])
    assert np.exp(logs) == pytest.approx(probabilities)
    assert int(probabilities[0].argmax()) == 0
    assert int(views.mean(axis=1)[0].argmax()) == 1  # what the mean of logarithms would have said


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([[[1e4, -1e4, 0.0]], [[-1e30, 0.0, 1e30]]])
    probabilities, logs = combine_views(logits)
    assert np.isfinite(probabilities).all()
    assert np.isfinite(logs).all()
    assert softmax(logits).sum(axis=-1) == pytest.approx(1.0)
