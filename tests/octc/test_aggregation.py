"""How B-scans become an eye: numbers written down here, and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from octc.core.errors import OctcError
from octc.stats.aggregation import METHODS, Aggregation, aggregate

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
    found = aggregate(scans, Aggregation(method), exclusive=exclusive)
    assert np.allclose(found, aggregate(scans[::-1], Aggregation(method), exclusive=exclusive))
    assert ((found >= 0) & (found <= 1)).all()
    assert not exclusive or np.isclose(found.sum(), 1)


def test_what_is_stored_is_read_strictly() -> None:
    how = Aggregation("top", 5, "validation set")
    assert Aggregation.from_json(how.to_json()) == how
    for wrong in ({}, {"method": "median", "top": 1, "chosen_on": ""}, {"method": "top", "top": 0, "chosen_on": ""}, None):
        with pytest.raises(OctcError) as caught:
            Aggregation.from_json(wrong)
        assert caught.value.code == "OCT-E502"
