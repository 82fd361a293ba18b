"""Words and gates: every rule of docs/parity.md, section 4, in its order, and its edge cases, section 15."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from octc.stats.comparison import compare_logits
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import Part, Verdict, gate, golden_part, judge, judge_nonfinite
from tests.octc.parity_cases import CLASSES, answers, counted, labels_of, says


def options(**more: Any) -> ParityOptions:
    """A plan that has the power it needs, so that the other rules can be seen."""
    return ParityOptions(**{"bootstrap": 1000, "plan_discordance": 1e-4, **more})


def word(n: int, lost: int, gained: int, chosen: ParityOptions | None = None, **more: Any) -> Verdict:
    chosen = chosen or options()
    return judge(counted(n, lost, gained, chosen, **more), chosen)


def pair_of(labels: list[int], reference: Any, candidate: Any, chosen: ParityOptions) -> Verdict:
    n = len(labels)
    found = compare_logits([f"{i:05d}" for i in range(n)], labels, [None] * n, reference, candidate, CLASSES, chosen)
    return judge(found, chosen)


def test_c06_no_discordant_pair_is_equivalent_where_there_are_enough_images() -> None:
    one = word(1000, 0, 0)
    assert (one.word, one.reasons, one.exit_code, one.better, one.loss_shown) == ("equivalent", (), 0, False, False)


@pytest.mark.parametrize(("n", "reasons"), [(380, ("interval_crosses_margin", "underpowered_plan")), (381, ())])
def test_c08_the_smallest_n_at_which_a_margin_can_be_shown(n: int, reasons: tuple[str, ...]) -> None:
    one = word(n, 0, 0, options(class_margin=20))
    assert one.reasons == reasons
    assert one.exit_code == (1 if reasons else 0)


def test_c08_a_lucky_draw_of_an_underpowered_plan_is_inconclusive() -> None:
    one = word(1000, 0, 0, ParityOptions(bootstrap=1000))  # 2 % assumed: power 0.561
    assert (one.word, one.reasons, one.exit_code) == ("inconclusive", ("underpowered_plan",), 1)
    assert "0.561" in next(part.detail for part in one.parts if part.name == "plan")


@pytest.mark.parametrize(("lost", "gained", "expected"), [
    (11, 11, "equivalent"), (12, 12, "inconclusive"), (3, 0, "equivalent"), (4, 0, "inconclusive"), (5, 3, "equivalent"),
])  # fmt: skip
def test_largest_counts_that_pass_at_one_point(lost: int, gained: int, expected: str) -> None:
    assert word(1000, lost, gained, options(class_margin=20)).word == expected


def test_non_inferior_and_better_but_not_equivalent() -> None:
    one = word(1000, 0, 5)
    assert (one.word, one.better, one.exit_code) == ("non_inferior", True, 0)
    strict = word(1000, 0, 5, options(claim="tost"))
    assert (strict.word, strict.exit_code, strict.reasons) == ("non_inferior", 1, ("upper_limit_crosses_margin",))
    assert word(1000, 5, 5, options(claim="tost")).exit_code == 0


def test_a_loss_that_was_shown_within_the_margin_is_said() -> None:
    one = word(3000, 8, 0, options(class_margin=5))
    assert (one.word, one.loss_shown) == ("equivalent", True)


def test_all_pairs_lost_is_worse_than_the_margin() -> None:
    labels = labels_of(40)
    found = counted(40, 40, 0)
    assert found.pair.tango[1] < -0.44
    one = judge(found, options())
    assert one.word == "fail"  # it is at chance and below the floor, too
    assert {"accuracy", "chance_level", "tier_99"} <= set(one.reasons)
    assert len(labels) == 40


def test_inferior_where_the_interval_lies_beyond_the_margin_although_the_floor_holds() -> None:
    one = word(6000, 55, 0, options(margin=0.25, class_margin=5, ece_slack=0.1))
    assert (one.word, one.reasons[0], one.exit_code) == ("inferior", "accuracy", 1)
    assert all(part.holds for part in one.parts if part.name == "tier 99 %")


def test_harm_in_a_class_makes_it_inferior_although_the_sum_is_even() -> None:
    labels = labels_of(2000)
    cnv, dme = ([i for i, label in enumerate(labels) if label == k] for k in (0, 1))
    one = pair_of(labels, says(answers(labels, dme[:12])), says(answers(labels, cnv[:12])), options(margin=3, class_margin=20))
    assert (one.word, one.reasons) == ("inferior", ("harm:CNV",))
    assert next(part.code for part in one.parts if part.name == "harm CNV") == "OCT-E704"


def test_the_floor_holds_where_non_inferiority_does_not() -> None:
    one = word(1000, 8, 0, options(class_margin=20, ece_slack=0.1), both_wrong=16)
    assert (one.word, one.reasons) == ("inconclusive", ("interval_crosses_margin",))
    floor = word(1000, 1, 0, options(tier="99.9", class_margin=20), both_wrong=16)
    assert (floor.word, floor.reasons) == ("fail", ("tier_99.9",))
    assert next(part.code for part in floor.parts if not part.holds) == "OCT-E703"


def test_a_constant_predictor_fails() -> None:
    labels = labels_of(400)
    one = pair_of(labels, says(labels), says([2] * 400), options())
    assert one.word == "fail"
    assert "chance_level" in one.reasons
    assert next(part.code for part in one.parts if part.reason == "chance_level") == "OCT-E702"


def test_worse_calibration_fails() -> None:
    labels = labels_of(1000)
    said = answers(labels, range(0, 1000, 10))
    one = pair_of(labels, says(said, sure=3.3), says(said, sure=20), options(class_margin=50))
    assert (one.word, one.reasons) == ("fail", ("ece",))
    assert next(part.code for part in one.parts if not part.holds) == "OCT-E707"
    assert pair_of(labels, says(said, sure=3.3), says(said, sure=20), options(class_margin=50, ece_slack=0.5)).exit_code == 0


def test_c06_a_class_without_images_and_a_single_class_are_at_best_inconclusive() -> None:
    labels = labels_of(1500, 3)
    one = pair_of(labels, says(labels), says(labels), options())
    assert (one.word, one.reasons) == ("inconclusive", ("class:NORMAL",))
    alone = pair_of([1] * 500, says([1] * 500), says([1] * 500), options())
    assert alone.word == "inconclusive"
    assert "single_class" in alone.reasons
    assert "chance_level" not in alone.reasons


def test_a_perfect_answer_on_a_single_class_is_not_called_chance() -> None:
    one = pair_of([1] * 500, says([0, *[1] * 499]), says([1] * 500), options())
    assert one.word == "inconclusive"


def test_one_patient_only_and_one_image_only_are_inconclusive() -> None:
    one = word(400, 0, 0, patients=["p"] * 400)
    assert one.word == "inconclusive"
    assert "one_cluster" in one.reasons
    single = pair_of([0], says([0]), says([0]), options())
    assert single.word == "inconclusive"


def test_a_perfect_reference_can_only_be_lost_to() -> None:
    found = counted(1000, 2, 0, options())
    assert (found.hits("reference"), found.pair.gained) == (1000, 0)
    assert judge(found, options()).word == "equivalent"


def test_nan_fails_at_once() -> None:
    one = judge_nonfinite(["a"], 10, golden_part(False, "far off"), exploratory=True)
    assert (one.word, one.reasons, one.exit_code, one.exploratory) == ("fail", ("not_finite",), 1, True)
    assert one.parts[0].code == "OCT-E701"


def test_the_worst_part_gives_the_word_and_its_reason_comes_first() -> None:
    found = counted(1000, 20, 0, options())
    one = judge(found, options(), golden_part(False, "far off"))
    assert one.word == "fail"
    assert one.reasons[0] == "golden"
    assert [part.name for part in one.parts][:1] == ["golden images"]


def test_clusters_widen_what_would_pass() -> None:
    """5 lost and 3 gained of 1,000: [-0.901, ...] by image, beyond -1 by patient."""
    labels = labels_of(1000)
    assert word(1000, 5, 3, options(class_margin=20)).word == "equivalent"
    people = [f"p{i // 2}" for i in range(1000)]
    one = word(1000, 5, 3, options(class_margin=20), patients=people)
    assert (one.word, one.reasons) == ("inconclusive", ("interval_crosses_margin",))
    assert len(labels) == len(people)


GATE = options(margin=1, class_margin=3)


def gated(n: int, lost: int, gained: int, extra: Sequence[Part] = ()) -> Any:
    labels = labels_of(n)
    reference, candidate = answers(labels, range(lost, lost + gained)), answers(labels, range(lost))
    ids = [f"{i:05d}" for i in range(n)]
    return gate(ids, labels, [None] * n, says(reference)[:, 0], says(candidate)[:, 0], CLASSES, GATE, extra)


def test_gate_accepts_what_is_non_inferior_on_select() -> None:
    one = gated(1000, 1, 1)
    assert (one.accepted, one.word, one.reasons) == (True, "non-inferior on select", ())
    assert one.to_json()["facts"]["lost"] == 1
    assert one.to_json()["set"] == "select"


def test_gate_accepts_a_small_set_with_a_warning_and_the_number_that_would_settle_it() -> None:
    one = gated(172, 0, 1)
    assert (one.accepted, one.word) == (True, "parity not shown yet")
    assert one.needed is not None
    assert one.needed > 172


@pytest.mark.parametrize(("n", "lost", "reason"), [(172, 3, "point_difference"), (400, 60, "accuracy")])
def test_gate_rejects_a_loss(n: int, lost: int, reason: str) -> None:
    one = gated(n, lost, 0)
    assert (one.accepted, one.word) == (False, "rejected")
    assert reason in one.reasons


def test_gate_rejects_golden_images_that_differ_and_logits_that_are_not_finite() -> None:
    assert gated(1000, 0, 0, golden_part(False, "0.3")).reasons == ("golden",)
    labels = labels_of(8)
    spoilt = says(labels)[:, 0]
    spoilt[3, 1] = np.nan
    one = gate([str(i) for i in range(8)], labels, [None] * 8, says(labels)[:, 0], spoilt, CLASSES)
    assert (one.accepted, one.reasons, one.comparison) == (False, ("not_finite",), None)
    assert one.to_json()["accepted"] is False
