"""ROC and average precision against scikit-learn, with ties, and where they are not defined."""

from __future__ import annotations

import numpy as np
import pytest

from octc.stats.roc import average_precision, roc

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn (octc[baselines]) is the reference here")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("digits", [1, 6])
def test_areas_are_scikit_learns(seed: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(200) < 0.3
    scores = np.round(rng.random(200) + 0.4 * truth, digits)  # one digit: many ties
    curve = roc(scores, truth)
    assert curve is not None
    assert curve.area == pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-12)
    assert average_precision(scores, truth) == pytest.approx(metrics.average_precision_score(truth, scores), abs=1e-12)
    x, y, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    assert curve.false_positive.tolist() == pytest.approx(x.tolist())
    assert curve.true_positive.tolist() == pytest.approx(y.tolist())


def test_ends_and_thresholds() -> None:
    curve = roc([0.9, 0.4, 0.4, 0.1], [1, 0, 1, 0])
    assert curve is not None
    assert curve.threshold.tolist() == [np.inf, 0.9, 0.4, 0.1]
    assert curve.false_positive.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert curve.true_positive.tolist() == [0.0, 0.5, 1.0, 1.0]
    assert curve.area == 0.875


def test_one_side_alone_has_no_curve() -> None:
    assert roc([0.1, 0.2], [0, 0]) is None
    assert roc([0.1, 0.2], [1, 1]) is None
    assert average_precision([0.1, 0.2], [0, 0]) is None
    assert average_precision([0.1, 0.2], [1, 1]) == 1.0
