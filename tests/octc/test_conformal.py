"""Prediction sets: their promise for new patients, their laws, MAPIE's numbers; and betting on means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octc.stats.betting import capital, e_value, mean_interval
from octc.stats.conformal import (
    aps_scores,
    fit_sets,
    lac_scores,
    p_kept,
    patient_quantile,
    patients_needed,
    sets_of,
)
from octc.stats.metrics import softmax
from octc.stats.operating import choose_risk
from octc.stats.proportion_intervals import clopper_pearson, images_needed, proportion

CLASSES = ("a", "b", "c")


def clustered(rng: np.random.Generator, patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities [n, 3], labels and patients: 1 to 12 images of each, alike among themselves, classes by the patient."""
    sizes = rng.geometric(0.35, patients).clip(1, 12)
    who = np.repeat(np.arange(patients), sizes)
    labels = np.where(rng.random(len(who)) < 0.8, rng.integers(0, 3, patients)[who], rng.integers(0, 3, len(who)))
    logits = rng.normal(0, 1.2, (patients, 3))[who] + rng.normal(0, 0.6, (len(who), 3)) + 1.8 * np.eye(3)[labels]
    return softmax(logits), labels, who


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_sets_of_each_class_keep_their_promise_on_200_clustered_data_sets(method: str) -> None:
    """Mean over data sets of the share of new patients' images that are covered, each patient once: at least the promise, and
    above it by no more than the granularity of the calibration, within Monte Carlo error."""
    rng = np.random.default_rng(7)
    found = np.zeros((200, 3))
    for one in range(200):
        values, labels, who = clustered(rng, 400)
        fit = who < 200
        rule = fit_sets(values[fit], labels[fit], who[fit], CLASSES, (method, 0.9, True))  # type: ignore[arg-type]
        inside = sets_of(values[~fit], rule)[np.arange((~fit).sum()), labels[~fit]]
        for k in range(3):
            mine = labels[~fit] == k
            found[one, k] = proportion(inside[mine], who[~fit][mine]).by_patient or 0
    errors = found.std(axis=0, ddof=1) / np.sqrt(200)
    assert errors.max() < 0.005
    assert (found.mean(axis=0) > 0.9 - 3 * errors).all()
    assert (found.mean(axis=0) < 0.9 + 1 / 80 + 3 * errors).all()  # about 110 patients of a class


def test_as_if_images_were_exchangeable_the_promise_would_be_broken() -> None:
    """Patients with many images are the hard ones here: a limit of images covers the patients that have one too rarely."""
    rng = np.random.default_rng(1)
    plain, own = [], []
    for _ in range(60):
        sizes = np.where(rng.random(200) < 0.5, 1, 12)
        who = np.repeat(np.arange(200), sizes)
        scores = rng.beta(1, 1 + 3 * (sizes[who] > 1))  # those with one image score higher
        new = rng.beta(1, np.where(rng.random(4000) < 0.5, 1, 4))
        plain.append((new <= np.quantile(scores, 0.9)).mean())
        own.append((new <= patient_quantile(scores, who, 0.9)).mean())
    assert np.mean(plain) < 0.87
    assert np.mean(own) == pytest.approx(0.9, abs=0.01)


def test_one_image_a_patient_is_the_textbook_quantile() -> None:
    rng = np.random.default_rng(0)
    for n, level in ((19, 0.9), (100, 0.95), (37, 0.8)):
        scores = rng.random(n)
        rank = int(np.ceil((n + 1) * level))
        assert patient_quantile(scores, np.arange(n), level) == np.sort(scores)[rank - 1]
    assert patient_quantile(rng.random(18), np.arange(18), 0.95) == 1.0  # 18 patients cannot promise 95 %
    assert patients_needed(0.95) == 19
    assert patient_quantile(rng.random(19), np.arange(19), 0.95) < 1.0


def test_too_few_patients_are_named_and_their_class_is_always_in_the_set() -> None:
    rng = np.random.default_rng(3)
    values, labels, who = clustered(rng, 60)
    rare = (labels != 2) | (who < 8)
    rule = fit_sets(values[rare], labels[rare], who[rare], CLASSES, ("lac", 0.95, True))
    assert rule.short == ["c"]
    assert sets_of(values, rule)[:, 2].all()


@given(st.integers(0, 2**31), st.sampled_from(["lac", "aps"]), st.floats(0.5, 0.99), st.booleans())
@settings(max_examples=60, deadline=None)
def test_laws_of_sets(seed: int, method: str, coverage: float, each: bool) -> None:
    """More coverage, larger sets; the images that limits were fitted on are covered; no order of images matters."""
    rng = np.random.default_rng(seed)
    values, labels, who = clustered(rng, int(rng.integers(3, 60)))
    low = fit_sets(values, labels, who, CLASSES, (method, coverage, each))  # type: ignore[arg-type]
    high = fit_sets(values, labels, who, CLASSES, (method, min(0.995, coverage + 0.05), each))  # type: ignore[arg-type]
    assert (sets_of(values, low) <= sets_of(values, high)).all()
    order = rng.permutation(len(labels))
    again = fit_sets(values[order], labels[order], who[order], CLASSES, (method, coverage, each))  # type: ignore[arg-type]
    assert again == low
    inside = sets_of(values, low)[np.arange(len(labels)), labels]
    for mine in [labels == k for k in range(3)] if each else [labels >= 0]:
        if mine.any():
            assert (proportion(inside[mine], who[mine]).by_patient or 0) >= coverage - 1e-9
    if method == "aps":
        assert sets_of(values, low).any(axis=1).all()  # the likeliest class is always in


@pytest.mark.slow
def test_mapie_gives_the_same_limits_and_sets() -> None:
    pytest.importorskip("mapie")
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Stored(ClassifierMixin, BaseEstimator):
        """Answers with its input."""

        def __init__(self) -> None:
            self.classes_ = np.arange(3)
            self.fitted_ = True

        def fit(self, _x: np.ndarray, _y: np.ndarray) -> Stored:
            return self

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            return x

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x.argmax(axis=1)

    rng = np.random.default_rng(2)
    values, labels, _ = clustered(rng, 300)
    half = len(labels) // 2
    other = SplitConformalClassifier(Stored(), confidence_level=0.9, conformity_score="lac", prefit=True)
    other.conformalize(values[:half], labels[:half])
    rule = fit_sets(values[:half], labels[:half], None, CLASSES, ("lac", 0.9, False))
    _, theirs = other.predict_set(values[half:])
    assert np.array_equal(np.asarray(theirs)[:, :, 0], sets_of(values[half:], rule))
    draws = np.random.RandomState(5).uniform(size=half).reshape(-1, 1)  # MAPIE's u is the share that is left out
    adaptive = SplitConformalClassifier(Stored(), confidence_level=0.9, conformity_score="aps", prefit=True, random_state=5)
    adaptive.conformalize(values[:half], labels[:half])
    ours = aps_scores(values[:half], 1 - draws)[np.arange(half), labels[:half]]
    assert np.allclose(np.ravel(adaptive._mapie_classifier.conformity_scores_), ours)


def test_scores_of_published_definition() -> None:
    values = np.array([[0.5, 0.3, 0.2]])
    assert lac_scores(values).round(9).tolist() == [[0.5, 0.7, 0.8]]
    assert aps_scores(values).round(9).tolist() == [[0.0, 0.5, 0.8]]
    assert aps_scores(values, 1.0).round(9).tolist() == [[0.5, 0.8, 1.0]]


def test_p_of_a_coverage_follows_the_beta_binomial() -> None:
    betabinom = pytest.importorskip("scipy.stats").betabinom
    for covered, tested, fitted in ((80, 100, 99), (20, 30, 19), (95, 100, 500)):
        out = int((fitted + 1) * 0.1 + 1e-9)
        assert p_kept(covered, tested, fitted, 0.9) == pytest.approx(betabinom.cdf(covered, tested, fitted + 1 - out, out))
    assert p_kept(0, 50, 5, 0.9) == 1.0  # five patients promise nothing but the whole set


def test_exact_limits_are_those_of_the_tables() -> None:
    assert clopper_pearson(45, 45)[0] == pytest.approx(0.92130, abs=1e-5)
    assert clopper_pearson(0, 10)[1] == pytest.approx(0.30850, abs=1e-5)
    low, high = clopper_pearson(81, 263)  # Newcombe 1998, example (a)
    assert (round(low, 4), round(high, 4)) == (0.2527, 0.3676)
    assert images_needed(0.98) == 183
    assert clopper_pearson(183, 183)[0] >= 0.98 > clopper_pearson(182, 182)[0]


def test_patients_widen_an_interval_and_count_once_in_the_mean() -> None:
    hit = np.r_[np.zeros(10, bool), np.ones(40, bool)]
    who = np.r_[np.zeros(10, int), np.arange(1, 41)]
    found = proportion(hit, who)
    assert found.value == 0.8
    assert found.by_patient == pytest.approx(40 / 41)
    assert found.deff > 2
    assert found.clustered[0] < found.exact[0] < found.exact[1] < found.clustered[1]


def test_a_bettor_is_seldom_rich_however_often_one_looks() -> None:
    """At a true mean of 0.3, in 2000 series of 500 values, the largest capital reaches 20 in at most 5 % of them."""
    rng = np.random.default_rng(4)
    series = (rng.random((2000, 500)) < 0.3).astype(float)
    rich = [max(capital(one, 0.3, above=side).max() for side in (True, False)) >= np.log(40) for one in series]
    assert np.mean(rich) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert e_value(rng.random(400) < 0.5, 0.3, above=True) > 1000
    assert e_value(rng.random(400) < 0.5, 0.3, above=False) < 20


def test_a_limit_of_a_mean_lies_outwards_of_where_a_bettor_is_just_rich() -> None:
    """100 values of 1: the capital against m is the mean over stakes s of (1 + s (1 / m - 1))^100, and is 40 at the limit."""
    brentq = pytest.importorskip("scipy.optimize").brentq
    stakes = np.array([0.1, 0.25, 0.5, 0.75, 0.95])
    exact = brentq(lambda m: ((1 + stakes * (1 / m - 1)) ** 100).mean() - 40, 0.5, 0.999)
    assert mean_interval(np.ones(100))[0] <= exact < mean_interval(np.ones(100))[0] + 1 / 4096
    assert mean_interval(np.ones(100))[1] == 1.0
    assert mean_interval(np.zeros(100)) == pytest.approx((0.0, 1 - mean_interval(np.ones(100))[0]))


def test_a_sample_that_is_looked_at_once_has_no_order() -> None:
    """Sorted by class, the first class alone would make a bettor rich, and the mean of all lie outside of the interval."""
    values = np.r_[np.ones(300), np.zeros(100)]
    mixed = np.random.default_rng(6).permutation(values)
    assert mean_interval(values, once=True) == mean_interval(mixed, once=True)
    low, high = mean_interval(values, once=True)
    assert low < 0.75 < high
    assert not mean_interval(values)[0] < 0.75  # as values that came in this order the first 300 speak for themselves
    assert e_value(values, 0.7, above=True) == pytest.approx(e_value(mixed, 0.7, above=True))


def test_a_risk_is_shown_of_all_classes_whatever_the_order_of_the_images() -> None:
    """400 patients without a wrong answer, then 100 with 30 %: 6 % of all are wrong, and 4 % are not shown."""
    labels = np.r_[np.zeros(470, int), np.ones(30, int)]
    probabilities = np.tile([0.9995, 0.0005], (500, 1))
    who = np.arange(500)
    found = choose_risk(probabilities, labels, who, 0.04)
    assert (found.shown, found.value) == (False, 0.06)
    order = np.random.default_rng(0).permutation(500)
    assert choose_risk(probabilities[order], labels[order], who[order], 0.04) == found
    assert choose_risk(probabilities, labels, who, 0.12).shown


def test_a_risk_is_that_of_the_answers_that_are_given() -> None:
    """An operating point that answers the second class from 0.3 on makes wrong answers of likeliest ones that were right."""
    probabilities = np.tile([0.6, 0.4], (300, 1))
    labels, who = np.zeros(300, int), np.arange(300)
    assert choose_risk(probabilities, labels, who, 0.05).value == 0.0
    found = choose_risk(probabilities, labels, who, 0.05, answers=np.ones(300, int))
    assert (found.shown, found.kept) == (False, 0.0)


def test_an_interval_of_a_mean_holds_at_every_look_and_narrows() -> None:
    rng = np.random.default_rng(5)
    outside = 0
    for _ in range(20):
        values = rng.beta(8, 2, 300)
        looks = [mean_interval(values[:n]) for n in (10, 50, 150, 300)]
        outside += not all(low <= 0.8 <= high for low, high in looks)
        assert looks[3][1] - looks[3][0] < looks[0][1] - looks[0][0]
    assert outside <= 4
    assert mean_interval([]) == (0.0, 1.0)
