"""Patient bootstrap of a cross-validation's figures: laws of the intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octc.stats.folds import NAMES, bootstrap_figures

CLASSES = ("CNV", "DME", "NORMAL")
pairs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=6, max_size=60)


@settings(max_examples=30, deadline=None)
@given(pairs, st.integers(2, 8), st.integers(0, 5))
def test_intervals_are_ordered_shares_and_the_same_again(answers: list[tuple[int, int]], patients: int, seed: int) -> None:
    labels, predictions = np.array(answers).T
    clusters = np.arange(len(labels)) % patients
    found = bootstrap_figures(labels, predictions, clusters, CLASSES, 200, seed)
    assert list(found) == [*NAMES, *(f"sensitivity {name}" for name in CLASSES)]
    for interval in found.values():
        assert interval is None or 0 <= interval[0] <= interval[1] <= 1
    assert bootstrap_figures(labels, predictions, clusters, CLASSES, 200, seed) == found
    assert (
        bootstrap_figures(labels, predictions, clusters * 7 + 3, CLASSES, 200, seed) == found
    )  # names of patients say nothing


def test_all_right_is_one_and_all_wrong_is_nought() -> None:
    labels = np.arange(30) % 3
    right = bootstrap_figures(labels, labels, np.arange(30) // 3, CLASSES, 200, 0)
    assert all(interval == pytest.approx((1.0, 1.0)) for interval in right.values())
    wrong = bootstrap_figures(labels, (labels + 1) % 3, np.arange(30) // 3, CLASSES, 200, 0)
    assert wrong["accuracy"] == (0.0, 0.0)


def test_one_patient_has_no_interval() -> None:
    labels = np.arange(6) % 3
    assert set(bootstrap_figures(labels, labels, np.zeros(6, np.int64), CLASSES, 200, 0).values()) == {None}


def test_a_class_that_most_draws_lack_has_none() -> None:
    """Its sensitivity is undefined in every draw without its one patient."""
    labels = np.array([0] * 10 + [1])
    found = bootstrap_figures(labels, labels, np.arange(11), CLASSES, 400, 0)
    assert found["sensitivity DME"] is None
    assert found["sensitivity CNV"] == (1.0, 1.0)
    assert found["accuracy"] == (1.0, 1.0)
