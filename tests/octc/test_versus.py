"""Two classifiers beside each other: the paired counts, the tests, what is refused, KD-OCT's comparison columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from octc.core.errors import OctcError
from octc.stats.two_models import CSV_COLUMNS, Side, aligned, csv_row, versus, versus_json

CLASSES = ("CNV", "DRUSEN", "NORMAL")


def side(name: str, wrong: set[int], n: int = 60, role: str = "student", **fields: object) -> Side:
    """Image i is of class i mod 3 and patient i // 2; the answers are right but for `wrong`."""
    labels = np.arange(n) % 3
    said = np.where(np.isin(np.arange(n), list(wrong)), (labels + 1) % 3, labels)
    probabilities = np.full((n, 3), 0.1)
    probabilities[np.arange(n), said] = 0.8
    size = {"parameters": 200e6, "macs": 100e9, "file_mib": 800.0} if role == "teacher" else {
        "parameters": 8e6, "macs": 2e9, "file_mib": 32.0}  # fmt: skip
    made = Side(
        name, role, "net", CLASSES, tuple((f"{i:064x}", f"{i}.png") for i in range(n)), tuple(labels.tolist()),
        tuple(f"p{i // 2}" for i in range(n)), probabilities, np.log(probabilities), size,
    )  # fmt: skip
    return replace(made, **fields)  # type: ignore[arg-type]


def test_counts_and_tests_are_those_of_the_pairs() -> None:
    found = versus(side("a", {0, 1}, role="teacher"), side("b", {1, 4, 7, 10, 13}))
    assert (found.pair.lost, found.pair.gained, found.n, found.patients) == (4, 1, 60, 30)
    assert found.gap == pytest.approx(3 / 60)
    assert found.mcnemar_exact == pytest.approx(binomtest(1, 5).pvalue)
    assert found.agreement == pytest.approx(1 - 5 / 60)
    drusen = found.per_class[1]
    assert (drusen.name, drusen.n, drusen.reference, drusen.candidate) == ("DRUSEN", 20, 19 / 20, 15 / 20)
    assert drusen.pair is not None
    assert (drusen.pair.lost, drusen.pair.gained) == (4, 0)
    assert found.pair.deciding is not None
    assert found.pair.deciding[0] < found.pair.difference < found.pair.deciding[1]


def test_a7_the_columns_of_kd_octs_comparison_are_computed() -> None:
    found = versus(side("a", {0}, role="teacher", ensemble=0.98), side("b", {0, 3}, ensemble=0.97))
    row = dict(zip(CSV_COLUMNS, csv_row(found), strict=True))
    assert (row["teacher_params_M"], row["student_params_M"], row["compression_ratio"]) == (200.0, 8.0, 25.0)
    assert row["param_reduction_pct"] == pytest.approx(96.0)
    assert row["accuracy_gap_mean_pct"] == pytest.approx(100 / 60)
    assert row["accuracy_gap_ensemble_pct"] == pytest.approx(1.0)
    assert row["gap_low_95_pct"] < row["accuracy_gap_mean_pct"] < row["gap_high_95_pct"]
    assert versus_json(found)["times_smaller"]["macs"] == pytest.approx(50.0)


def test_the_order_of_the_images_does_not_matter() -> None:
    one, other = side("a", {0, 5}), side("b", {5, 6})
    order = np.random.default_rng(0).permutation(60)
    moved = replace(
        other, ids=tuple(other.ids[i] for i in order), labels=tuple(other.labels[i] for i in order),
        patients=tuple(other.patients[i] for i in order), probabilities=other.probabilities[order], logs=other.logs[order],
    )  # fmt: skip
    assert versus(one, moved).pair == versus(one, other).pair


def test_other_images_labels_or_classes_are_refused() -> None:
    one = side("a", set())
    with pytest.raises(OctcError, match=r"only a: 58.png, 59.png; only b: none") as caught:
        aligned(one, side("b", set(), n=58))
    assert caught.value.code == "OCT-E706"
    with pytest.raises(OctcError, match="different labels") as caught:
        aligned(one, replace(one, labels=one.labels[::-1]))
    assert caught.value.code == "OCT-E706"
    with pytest.raises(OctcError) as caught:
        aligned(one, replace(one, classes=CLASSES[::-1]))
    assert caught.value.code == "OCT-E309"


def test_sizes_that_are_not_known_stay_unknown() -> None:
    nothing: dict[str, float | None] = {"parameters": None, "macs": None, "file_mib": None}
    found = versus(side("a", {0}, size=nothing), side("b", {1}))
    row = dict(zip(CSV_COLUMNS, csv_row(found), strict=True))
    assert row["compression_ratio"] is None
    assert row["param_reduction_pct"] is None
