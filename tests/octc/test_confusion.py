"""The summaries of KD-OCT's twenty published fold matrices: means, deviations, pooled figures, what does not reproduce."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from octc.stats.folds import NAMES, spread_of, summarise_folds
from octc.stats.metrics import metrics_of
from tests.octc.test_metrics import PER_CLASS, published

SETS = ("teacher_neh", "student_neh", "teacher_ucsd", "student_ucsd")


@pytest.fixture(params=SETS)
def group(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = published()["sets"][request.param]
    return found


def test_means_and_both_deviations_reproduce(group: dict[str, Any]) -> None:
    tolerance = published()["tolerance"]
    found = summarise_folds([fold["matrix"] for fold in group["folds"]], group["normal_index"])
    assert set(group["summary"]) == set(NAMES)
    for name, expected in group["summary"].items():
        spread = asdict(found.spreads[name])
        percent = group["summary_percent"][name]
        for key in ("mean", "std_population", "std_sample"):
            assert spread[key] == pytest.approx(expected[key], abs=tolerance["absolute"]), (name, key)
            assert 100 * spread[key] == pytest.approx(percent[key], abs=tolerance["percent_blocks"]), (name, key)
        assert list(spread["per_fold"]) == pytest.approx(expected["per_fold"], abs=tolerance["absolute"])


def test_pooled_figures_and_classes_reproduce(group: dict[str, Any]) -> None:
    tolerance = published()["tolerance"]
    found = summarise_folds([fold["matrix"] for fold in group["folds"]], group["normal_index"])
    pooled = group["pooled"]
    assert np.sum([fold["matrix"] for fold in group["folds"]], axis=0).tolist() == pooled["matrix"]
    assert found.pooled == metrics_of(pooled["matrix"], group["normal_index"])
    assert found.pooled.n == pooled["n"]
    for name in NAMES:
        assert getattr(found.pooled, name) == pytest.approx(pooled[name], abs=tolerance["absolute"]), name
    for name in PER_CLASS:
        values = [getattr(one, name) for one in found.pooled.per_class]
        assert values == pytest.approx(pooled["per_class"][name], abs=tolerance["absolute"]), name
    for name, expected in group["per_class_mean_over_folds_percent"].items():
        means = [100 * float(spread.mean or 0) for spread in found.per_class[name]]
        assert means == pytest.approx(expected, abs=tolerance["percent_blocks"])


def test_a1_the_published_figures_that_do_not_follow_from_their_matrices() -> None:
    value = published()
    wrong = []
    for name in SETS:
        group = value["sets"][name]
        found = summarise_folds([fold["matrix"] for fold in group["folds"]], group["normal_index"])
        for metric, claim in group["published_cv_percent"].items():
            mean = 100 * float(found.spreads[metric].mean or 0)
            digits = len(str(claim["published_mean"]).split(".")[1])
            same = round(mean, digits) == claim["published_mean"]
            assert same == claim["reproduces"], (name, metric, mean)
            wrong += [] if same else [(name, metric)]
    assert wrong == [(row["set"], row["metric"]) for row in value["does_not_reproduce"]]


def test_the_student_loses_on_drusen_what_the_mean_hides() -> None:
    sets = published()["sets"]
    by_name = {
        name: summarise_folds([fold["matrix"] for fold in sets[name]["folds"]], sets[name]["normal_index"]) for name in SETS
    }
    for data, gap in (("neh", 4.4), ("ucsd", 2.9)):
        drusen = [label.lower() for label in sets[f"teacher_{data}"]["classes"]].index("drusen")
        teacher, student = (by_name[f"{role}_{data}"].pooled.per_class[drusen].sensitivity for role in ("teacher", "student"))
        assert teacher is not None
        assert student is not None
        assert 100 * (teacher - student) == pytest.approx(gap, abs=0.05)


def test_a_figure_that_a_fold_lacks_has_no_mean() -> None:
    assert spread_of([0.5, None]).mean is None
    assert spread_of([]).mean is None
    one = spread_of([0.5])
    assert (one.mean, one.std_population, one.std_sample) == (0.5, 0.0, None)
