"""The numbers of a comparison: check values and edge cases of docs/parity.md, sections 10, 14.8, 15."""

from __future__ import annotations

import numpy as np
import pytest

from octc.core.errors import OctcError
from octc.stats.comparison import Comparison, Known, compare_logits, nonfinite
from octc.stats.outcome import outcome_of
from octc.stats.planned_power import make_plan
from octc.stats.test_plan import ParityOptions
from tests.octc.parity_cases import CLASSES, answers, counted, labels_of, says

QUICK = ParityOptions(bootstrap=1000)
R = [[2.0, 0.5, -1.0, 0.1], [0.2, 1.5, 1.4, -0.7], [-1.0, 0.0, 3.0, 0.5]]
C = [[1.8, 0.6, -0.9, 0.1], [0.3, 1.4, 1.5, -0.8], [-1.0, 0.1, 2.9, 0.5]]


def three(near: float | None = None) -> Comparison:
    reference, candidate = (np.array(rows, np.float32)[:, None] for rows in (R, C))
    return compare_logits(["a", "b", "c"], [0, 1, 2], [None] * 3, reference, candidate, CLASSES, QUICK, Known(near=near))


def test_check_values_of_the_logits() -> None:
    found = three()
    assert found.agreement["kl_mean"] == pytest.approx(0.004714, abs=6e-7)
    assert found.agreement["dlogit_max"] == pytest.approx(0.2, abs=1e-6)
    assert found.agreement["dlogit_centred_max"] == pytest.approx(0.2, abs=1e-6)
    assert found.agreement["s"] == pytest.approx(3.066667, abs=1e-6)
    assert (found.agreement["count"], found.n) == (2, 3)
    assert (found.pair.lost, found.pair.gained) == (1, 0)
    before, after = found.calibration["reference"], found.calibration["candidate"]
    assert (before["brier"], after["brier"]) == (pytest.approx(0.213069, abs=6e-7), pytest.approx(0.262123, abs=6e-7))
    assert (before["nll"], after["nll"]) == (pytest.approx(0.440028, abs=6e-7), pytest.approx(0.511036, abs=6e-7))


def test_flips_are_listed_with_both_answers_and_margins_and_near_ties_are_counted() -> None:
    (flip,) = three().agreement["flips"]
    assert (flip["id"], flip["label"], flip["reference"], flip["candidate"]) == ("b", "DME", "DME", "DRUSEN")
    assert flip["margin_reference"] == pytest.approx(0.1, abs=1e-6)
    assert flip["margin_candidate"] == pytest.approx(0.1, abs=1e-6)
    assert three().agreement["near_tie_flips"] is None
    assert three(near=0.1 / 2 / 3.0).agreement["near_tie_flips"] == 1
    assert three(near=0.1 / 2 / 3.2).agreement["near_tie_flips"] == 0


def test_counts_and_ties_of_a_comparison() -> None:
    found = counted(100, 3, 2, both_wrong=4)
    assert (found.both_right, found.pair.lost, found.pair.gained, found.both_wrong) == (91, 3, 2, 4)
    assert (found.hits("reference"), found.hits("candidate")) == (94, 93)
    assert found.pair.difference == pytest.approx(-0.01)
    assert found.ties == {"reference": 0, "candidate": 0}


def test_two_models_that_are_wrong_in_different_ways_are_not_discordant_but_disagree() -> None:
    labels = labels_of(100)
    other = [(label + 2) % 4 if i == 0 else label for i, label in enumerate(labels)]
    ids = [str(i) for i in range(100)]
    found = compare_logits(ids, labels, [None] * 100, says(answers(labels, [0])), says(other), CLASSES, QUICK)
    assert (found.pair.lost, found.pair.gained, found.both_wrong) == (0, 0, 1)
    assert found.agreement["count"] == 99


def test_c06_ties_take_the_lowest_index_for_both_models_and_are_counted() -> None:
    labels = labels_of(100)
    tied = says(labels)
    tied[7] = 1.0  # label 3, all four equal: said is 0
    found = compare_logits([str(i) for i in range(100)], labels, [None] * 100, tied, tied.copy(), CLASSES, QUICK)
    assert found.ties == {"reference": 1, "candidate": 1}
    assert found.hits("reference") == found.hits("candidate") == 99
    assert outcome_of(tied).predictions[7] == 0


def test_views_are_combined_by_the_mean_of_their_probabilities() -> None:
    first, second = (np.log(row) for row in ((0.90, 0.04, 0.03, 0.03), (0.02, 0.50, 0.46, 0.02)))
    outcome = outcome_of(np.stack([first, second])[None].astype(np.float32))
    assert outcome.probabilities[0] == pytest.approx([0.46, 0.27, 0.245, 0.025], abs=1e-6)
    assert outcome.predictions.tolist() == [0]
    assert np.stack([first, second]).mean(axis=0).argmax() == 1  # what the mean of logits would have said


def test_c06_a_class_without_images_has_no_numbers() -> None:
    labels = labels_of(90, 3)
    ids = [str(i) for i in range(90)]
    found = compare_logits(ids, labels, [None] * 90, says(labels), says(answers(labels, [0], 3)), CLASSES, QUICK)
    empty = found.per_class[3]
    assert (empty.name, empty.n, empty.pair, empty.p, empty.guard, empty.guard_reason) == (
        "NORMAL", 0, None, None, False, "empty_class",
    )  # fmt: skip
    assert found.figures["candidate"].macro_sensitivity == pytest.approx((29 / 30 + 2) / 3)
    assert "NORMAL" not in found.facts()["classes"]


def test_c06_a_single_class_has_accuracy_but_no_specificity_and_no_macro() -> None:
    found = compare_logits([str(i) for i in range(50)], [1] * 50, [None] * 50, says([1] * 50), says([1] * 50), CLASSES, QUICK)
    assert found.figures["candidate"].accuracy == 1
    assert found.figures["candidate"].per_class[1].specificity is None
    assert found.figures["candidate"].macro_sensitivity is None
    assert found.intervals["candidate"]["macro_sensitivity"] is None


def test_one_patient_has_no_deciding_interval() -> None:
    found = counted(40, 1, 0, patients=["p"] * 40)
    assert found.pair.deciding is None
    assert found.pair.decided_by == "one_cluster"
    assert {one.guard_reason for one in found.per_class} == {"one_cluster"}
    assert found.intervals["agreement"]["rate"] is None


def test_no_image_is_refused() -> None:
    with pytest.raises(OctcError) as caught:
        compare_logits([], [], [], says([]), says([]), CLASSES, QUICK)
    assert caught.value.code == "OCT-E708"


@pytest.mark.parametrize("said", ["constant", "chance", "never right"])
def test_a_reference_at_chance_is_refused(said: str) -> None:
    labels = labels_of(80)
    wrong = {"constant": [0] * 80, "chance": answers(labels, range(0, 80, 1))[:55] + labels[55:]}
    rows = wrong.get(said) or answers(labels, range(80))
    with pytest.raises(OctcError) as caught:
        compare_logits([str(i) for i in range(80)], labels, [None] * 80, says(rows), says(labels), CLASSES, QUICK)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E708", 3)


def test_a_reference_that_knows_nothing_of_a_single_class_is_refused() -> None:
    with pytest.raises(OctcError) as caught:
        compare_logits(["a", "b"], [1, 1], [None] * 2, says([0, 2]), says([1, 1]), CLASSES, QUICK)
    assert caught.value.code == "OCT-E708"


def test_nonfinite_names_the_images() -> None:
    logits = says(labels_of(4))
    logits[1, 0, 2], logits[3, 0, 0] = np.nan, np.inf
    assert nonfinite(["a", "b", "c", "d"], logits) == ["b", "d"]


def test_confidence_ties_at_a_bin_edge_are_ordered_by_id_whatever_the_order_of_the_images() -> None:
    labels = labels_of(64)
    ids = [f"{i:03d}" for i in range(64)]
    first = compare_logits(ids, labels, [None] * 64, says(labels), says(answers(labels, range(9))), CLASSES, QUICK)
    order = np.random.default_rng(3).permutation(64)
    mixed = compare_logits(
        [ids[i] for i in order], [labels[i] for i in order], [None] * 64, says(labels)[order],
        says(answers(labels, range(9)))[order], CLASSES, QUICK,
    )  # fmt: skip
    assert first.calibration == mixed.calibration


def test_the_guard_says_how_many_images_would_settle_a_class() -> None:
    few = counted(400, 0, 0, ParityOptions(bootstrap=1000)).per_class[0]
    assert (few.n, few.guard, few.guard_reason) == (100, False, "too_few_images")
    assert few.needed is not None
    assert few.needed >= 125
    assert few.needed % 100 == 0
    crossing = counted(600, 12, 0, ParityOptions(bootstrap=1000)).per_class[0]
    assert (crossing.n, crossing.guard_reason) == (150, "interval_crosses_margin")
    assert counted(600, 0, 0, ParityOptions(bootstrap=1000)).per_class[0].needed is None


def test_the_plan_takes_discordance_and_correlation_from_the_select_set() -> None:
    facts = {"n": 3000, "lost": 7, "gained": 5, "discordant_patients": 12, "mean_size": 1.5, "deff_obs": 1.4}
    plan = make_plan(1000, 1000 / 633, ParityOptions(), facts)
    assert plan.discordance == pytest.approx(0.005094, abs=6e-7)
    assert plan.discordance_source == "validation set, 12 discordant of 3000"
    assert (plan.icc, plan.icc_source) == (0.5, "assumed")  # twelve patients say too little
    assert (plan.n_eff, plan.power) == (775, pytest.approx(0.818, abs=6e-4))
    many = make_plan(1000, 2.0, ParityOptions(), {**facts, "discordant_patients": 20})
    assert (many.icc, many.icc_source) == (pytest.approx(0.8), "validation set")


def test_the_plan_without_a_select_set_is_assumed_and_options_stand_above_both() -> None:
    plan = make_plan(826, 3.193705, ParityOptions(margin=2), None)
    assert (plan.discordance, plan.discordance_source, plan.n_eff) == (0.02, "assumed", 393)
    assert plan.power == pytest.approx(0.668, abs=6e-4)
    chosen = make_plan(826, 3.193705, ParityOptions(plan_discordance=0.01, plan_icc=0.0), {"n": 100, "lost": 9, "gained": 9})
    assert (chosen.discordance, chosen.discordance_source, chosen.icc_source, chosen.n_eff) == (0.01, "option", "option", 826)


@pytest.mark.parametrize("values", [
    {"margin": 0}, {"margin": -1}, {"margin": float("nan")}, {"class_margin": 0}, {"alpha": 0}, {"alpha": 0.5}, {"claim": "x"},
    {"tier": "98"}, {"ece_slack": -0.1}, {"bootstrap": 10}, {"seed": -1}, {"plan_discordance": 0.0}, {"plan_icc": 2.0},
    {"margin": "1"}, {"margin": True}, {"margin": None}, {"alpha": "x"}, {"bootstrap": 1e4}, {"seed": 1.5}, {"seed": 1 << 63},
])  # fmt: skip
def test_settings_out_of_range_are_refused(values: dict[str, float | str]) -> None:
    with pytest.raises(OctcError) as caught:
        ParityOptions(**values)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E104", 2)
    assert "--" in caught.value.hint
