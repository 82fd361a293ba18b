"""How B-scans become an eye: numbers written down here, and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from octc.core.errors import OctcError
from octc.stats.aggregation import METHODS, Aggregation, EyeScores, aggregate, choose_aggregation, learn, places_of

SCANS = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("mean", np.prod(SCANS, axis=0) ** (1 / 3)), ("largest", [0.7, 0.8, 0.1]), ("top", [0.65, 0.55, 0.1]),
        ("noisy-or", [1 - 0.3 * 0.9 * 0.4, 1 - 0.8 * 0.2 * 0.7, 1 - 0.9**3]),
    ],
)  # fmt: skip
def test_each_method_has_its_value(method: str, expected: list[float]) -> None:
    values = np.asarray(expected, float)
    assert np.allclose(aggregate(SCANS, Aggregation(method, top=2)), values / values.sum())
    if method != "mean":
        assert np.allclose(aggregate(SCANS, Aggregation(method, top=2), exclusive=False), values)


def test_findings_are_averaged_as_logits_each_for_itself() -> None:
    logits = np.log(SCANS / (1 - SCANS)).mean(axis=0)
    assert np.allclose(aggregate(SCANS, Aggregation(), exclusive=False), 1 / (1 + np.exp(-logits)))


@given(arrays(np.float64, (4, 3), elements=st.floats(0, 1)), st.sampled_from(METHODS), st.booleans())
def test_the_order_of_b_scans_does_not_matter_and_the_result_is_a_probability(
    scans: np.ndarray, method: str, exclusive: bool
) -> None:  # type: ignore[type-arg]
    how = Aggregation(method, weights=(0.5, 0.2, 0.1) if method == "learned" else ())
    found = aggregate(scans, how, exclusive=exclusive)
    assert np.allclose(found, aggregate(scans[::-1], how, exclusive=exclusive))
    assert ((found >= 0) & (found <= 1)).all()
    assert not exclusive or np.isclose(found.sum(), 1)


def test_what_is_stored_is_read_strictly() -> None:
    how = Aggregation("top", 5, "validation set")
    assert Aggregation.from_json(how.to_json()) == how
    for other in (Aggregation("learned", weights=(0.5, 0.25), chosen_on="x"), Aggregation("mean", position=0.25)):
        assert Aggregation.from_json(other.to_json()) == other
    base = {"top": 1, "chosen_on": ""}
    for wrong in (
        {}, None, [], {**base, "method": "median"}, {"method": "top", "top": 0, "chosen_on": ""},
        {**base, "method": "learned"}, {**base, "method": "learned", "weights": [0.5, -0.1]},
        {**base, "method": "learned", "weights": [0.5, float("nan")]}, {**base, "method": "learned", "weights": "ab"},
        {**base, "method": "mean", "weights": [1.0, 1.0]}, {**base, "method": "top", "position": 0.25},
        {**base, "method": "mean", "position": -1.0},
    ):  # fmt: skip
        with pytest.raises(OctcError) as caught:
            Aggregation.from_json(wrong)
        assert caught.value.code == "OCT-E502"


def test_b_scans_in_the_middle_count_more_where_places_are_weighted() -> None:
    scans = np.array([[0.1, 0.9], [0.9, 0.1], [0.1, 0.9]])
    even, bell = Aggregation("mean"), Aggregation("mean", position=0.25)
    assert places_of(3) == [1 / 6, 0.5, 5 / 6]
    assert aggregate(scans, bell, places=places_of(3))[0] > aggregate(scans, even)[0]
    assert np.allclose(aggregate(scans, bell), aggregate(scans, even)), "without places all count alike"
    weights = np.exp(-0.5 * ((np.array(places_of(3)) - 0.5) / 0.25) ** 2)
    logits = weights / weights.sum() @ np.log(scans)
    assert np.allclose(aggregate(scans, bell, places=places_of(3)), np.exp(logits) / np.exp(logits).sum())


def test_learned_weights_are_applied_to_sorted_scores() -> None:
    scans = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    logs = np.log(scans)
    score = 2.0 * logs.max(axis=0) + 0.5 * np.median(logs, axis=0) + 0.1 * logs.min(axis=0)
    expected = np.exp(score) / np.exp(score).sum()
    assert np.allclose(aggregate(scans, Aggregation("learned", weights=(2.0, 0.5, 0.1))), expected)


def eyes(count: int, kind: str, seed: int = 0) -> list[EyeScores]:
    """Eyes of two classes: each B-scan tells the class ("even"), or one of eleven does and the others say nothing ("one")."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        label = number % 2
        sure = rng.normal(0.0, 0.4, 11)
        if kind == "even":
            sure += 1.0 if label else -1.0
        elif label:
            sure[rng.integers(11)] += 5.0
            sure -= 2.5
        else:
            sure -= 2.5
        share = 1 / (1 + np.exp(-sure))
        found.append(EyeScores(np.stack([1 - share, share], axis=1), label, f"P{number // 2}", places_of(11)))
    return found


def test_the_way_is_chosen_by_what_the_eyes_say() -> None:
    even = choose_aggregation(eyes(60, "even"))
    assert even.how.method in ("mean", "learned")
    assert (even.eyes, even.patients, even.how.chosen_on) == (60, 30, "validation set")
    one = choose_aggregation(eyes(60, "one"))
    assert one.how.method not in ("mean",)
    nlls = {row.how.words: row.nll for row in one.tried}
    assert nlls[one.how.words] < nlls["mean of the logits"]
    assert len(one.tried) == 7
    assert choose_aggregation(eyes(60, "one")) == one


def test_learned_weights_lean_on_the_scores_that_tell() -> None:
    weights = learn(eyes(80, "one")).weights
    assert weights[0] > max(weights[2:]), "the largest score tells here"
    assert min(weights) >= 0
    assert np.isclose(sum(weights), 1, atol=1e-5)


def test_few_eyes_or_patients_choose_nothing_and_say_so() -> None:
    few = choose_aggregation(eyes(8, "one"))
    assert (few.how, few.tried) == (Aggregation(), ())
    assert "8 eyes of 4 patients" in few.reason
    same = [EyeScores(one.probabilities, one.label, "P") for one in eyes(20, "one")]
    assert choose_aggregation(same).reason
    unknown = [EyeScores(one.probabilities, one.label, None) for one in eyes(20, "one")]
    assert choose_aggregation(unknown).patients == 20


def test_a_single_b_scan_is_its_own_answer_whatever_the_way() -> None:
    scan = np.array([[0.7, 0.2, 0.1]])
    for method in ("mean", "top", "largest", "noisy-or"):
        assert np.allclose(aggregate(scan, Aggregation(method)), scan[0])
