"""octc.compare: two prediction tables from anywhere, judged by the rules of `octc verify`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octc.core.errors import OctcError
from octc.stats.comparison import compare_logits
from octc.stats.proportions import tango_interval
from octc.stats.tables import TableComparison, compare_tables
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import WORDS, judge

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")


def table(truth: npt.NDArray[np.int64], wrong: int, seed: int) -> npt.NDArray[np.float64]:
    """Probabilities [n, 4] of a classifier that errs on `wrong` images, clearly right or clearly wrong."""
    rng = np.random.default_rng(seed)
    said = truth.copy()
    where = rng.choice(len(truth), wrong, replace=False)
    said[where] = (said[where] + 1) % 4
    scores = rng.uniform(0.01, 0.02, (len(truth), 4))
    scores[np.arange(len(truth)), said] = 0.95
    return scores / scores.sum(axis=1, keepdims=True)


N = 800
TRUTH = np.arange(N) % 4
BEFORE, AFTER = table(TRUTH, 8, 1), table(TRUTH, 10, 2)
PATIENTS = [f"p{i // 4}" for i in range(len(TRUTH))]


def compared(*tables: Any, **words: Any) -> TableComparison:
    gate = {name: words.pop(name) for name in ("margin", "class_margin", "claim") if name in words}
    return compare_tables(*tables, **{"classes": CLASSES, "gate": ParityOptions(bootstrap=1000, **gate), **words})


def test_the_numbers_are_those_of_the_paired_table() -> None:
    found = compared(TRUTH, BEFORE, AFTER, margin=2, class_margin=5)
    right = [(scores.argmax(axis=1) == TRUTH) for scores in (BEFORE, AFTER)]
    lost, gained = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    assert (found.lost, found.gained) == (lost, gained)
    assert found.accuracy == {"before": 792 / 800, "after": 790 / 800}
    assert found.difference == pytest.approx((gained - lost) / N)
    assert found.interval == pytest.approx(tango_interval(N, lost, gained, 0.05))
    assert found.patients is None
    assert found.agreement == pytest.approx((BEFORE.argmax(1) == AFTER.argmax(1)).mean())
    assert [row.n for row in found.per_class] == [200] * 4
    assert sum(row.lost for row in found.per_class) == lost


def test_the_verdict_is_that_of_verify() -> None:
    options = ParityOptions(margin=2, class_margin=5, bootstrap=1000)
    logits = [np.log(scores).astype(np.float32)[:, None] for scores in (BEFORE, AFTER)]
    theirs = judge(compare_logits([str(i) for i in range(N)], TRUTH.tolist(), PATIENTS, *logits, CLASSES, options), options)
    ours = compared(TRUTH, BEFORE, AFTER, patients=PATIENTS, margin=2, class_margin=5)
    assert ours.verdict == theirs
    assert ours.patients == 200
    assert ours.to_json()["verdict"]["word"] == theirs.word


def test_answers_alone_are_judged_without_calibration() -> None:
    names = np.asarray(CLASSES)
    found = compared(
        names[TRUTH].tolist(),
        names[BEFORE.argmax(1)],
        names[AFTER.argmax(1)],
        patients=PATIENTS,
        margin=2,
        class_margin=5,
        classes=None,
    )
    scored = compared(TRUTH, BEFORE, AFTER, patients=PATIENTS, margin=2, class_margin=5)
    assert not found.scored
    assert found.classes == CLASSES
    assert "ECE" not in [part.name for part in found.verdict.parts]
    assert "ECE" in [part.name for part in scored.verdict.parts]
    for name in ("lost", "gained", "interval", "accuracy", "per_class", "mcnemar_midp"):
        assert getattr(found, name) == getattr(scored, name)


def test_patients_widen_the_interval_and_unknown_ones_are_not_claimed() -> None:
    after = BEFORE.copy()
    after[:12] = np.roll(BEFORE[:12], 1, axis=1)  # wrong on the images of one patient
    blocks = [f"p{i // 20}" for i in range(N)]
    alone, grouped = compared(TRUTH, BEFORE, after), compared(TRUTH, BEFORE, after, patients=blocks)
    assert alone.interval is not None
    assert grouped.interval is not None
    assert grouped.interval[0] < alone.interval[0]
    some = compared(TRUTH, BEFORE, AFTER, patients=[None, math.nan, "", *blocks[3:]])
    assert some.patients is None
    assert "patients unknown" in str(some)
    assert "40 patients" in str(grouped)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_images_changes_nothing(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(200)
    truth, before, after = TRUTH[:200], table(TRUTH[:200], 9, 3), table(TRUTH[:200], 12, 4)
    ids, patients = [f"i{k}" for k in range(200)], [f"p{k // 3}" for k in range(200)]
    one = compared(truth, before, after, ids=ids, patients=patients)
    names, people = [ids[k] for k in order], [patients[k] for k in order]
    moved = compared(truth[order], before[order], after[order], ids=names, patients=people)
    assert one == moved
    assert one.verdict.word in WORDS


@pytest.mark.parametrize(("change", "code"), [
    ({"labels": TRUTH[:-1]}, "OCT-E706"),
    ({"patients": PATIENTS[:-1]}, "OCT-E706"),
    ({"ids": ["same"] * N}, "OCT-E706"),
    ({"after": AFTER.argmax(1)}, "OCT-E706"),
    ({"after": AFTER[:, :3]}, "OCT-E706"),
    ({"labels": ["CNV", "HOLE"] * (N // 2)}, "OCT-E706"),
    ({"labels": ["CNV", "DME"] * (N // 2), "classes": None}, "OCT-E706"),
    ({"classes": ("CNV", "CNV", "DME", "NORMAL")}, "OCT-E706"),
    ({"after": np.where(np.arange(N)[:, None] == 7, np.nan, AFTER)}, "OCT-E701"),
    ({"after": 3 * AFTER}, "OCT-E701"),
    ({"after": np.log(AFTER)}, "OCT-E701"),
    ({"before": np.full((N, 4), 0.25)}, "OCT-E708"),
    ({"margin": 0}, "OCT-E104"),
    ({"claim": "superiority"}, "OCT-E104"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(change: dict[str, Any], code: str) -> None:
    whole: dict[str, Any] = {"labels": TRUTH, "before": BEFORE, "after": AFTER, "classes": CLASSES, **change}
    with pytest.raises(OctcError) as caught:
        compared(whole.pop("labels"), whole.pop("before"), whole.pop("after"), **whole)
    assert caught.value.code == code
    assert caught.value.hint


def test_a_margin_alone_is_that_of_the_gate() -> None:
    alone = compare_tables(TRUTH, BEFORE, AFTER, classes=CLASSES, margin=2, gate=ParityOptions(class_margin=5, bootstrap=1000))
    assert (alone.options.margin, alone.options.class_margin) == (2, 5)
    assert compare_tables(TRUTH, BEFORE, AFTER, classes=CLASSES).options == ParityOptions()


def test_no_image_is_refused() -> None:
    with pytest.raises(OctcError) as caught:
        compare_tables([], [], [])
    assert caught.value.code == "OCT-E708"


NAMES = [CLASSES[k] for k in TRUTH]


@pytest.mark.parametrize("nothing", [None, math.nan, "", "nan", "NaN", "<NA>", "#N/A"])
def test_a_cell_that_says_nothing_is_no_class_and_no_patient(nothing: Any) -> None:
    gap = [nothing, *NAMES[1:]]
    with pytest.raises(OctcError, match="rows 0") as truth:
        compared(gap, NAMES, NAMES)
    with pytest.raises(OctcError, match="'after' are not finite: 0") as answer:
        compared(NAMES, NAMES, gap, classes=None)
    assert (truth.value.code, answer.value.code) == ("OCT-E706", "OCT-E701")
    nobody = compared(NAMES, NAMES, NAMES, patients=[nothing] * N)  # else one patient, and no interval
    assert nobody.patients is None
    assert nobody.interval == compared(NAMES, NAMES, NAMES).interval


@pytest.mark.parametrize("other", ["cnv", " CNV", "C NV", "1.0"])
def test_a_class_in_two_spellings_is_no_wrong_answer(other: str) -> None:
    name = "1" if other == "1.0" else "CNV"
    truth = [name if k == "CNV" else k for k in NAMES]
    after = [other if k == name else k for k in truth]
    if other.strip() == name:
        assert compared(truth, truth, after, classes=None).lost == 0
        return
    with pytest.raises(OctcError, match=f"{name} = {other}|{other} = {name}") as caught:
        compared(truth, truth, after, classes=None)
    assert caught.value.code == "OCT-E706"


@pytest.mark.parametrize("kind", [int, float, np.int64, np.float32, str])
@pytest.mark.parametrize("first", [0, 1])
def test_numbers_are_one_class_whatever_wrote_them(first: int, kind: Any) -> None:
    truth = [int(k) + first for k in TRUTH]
    after = [kind(k) for k in truth]
    assert compared(truth, truth, after, classes=None).lost == 0
    named = compared(truth, truth, after, classes=("1", "2", "3", "4"))  # 0 to 3 are indices, 1 to 4 are names
    assert (named.lost, [row.n for row in named.per_class]) == (0, [200] * 4)


class Tensor:
    """Values of another library, which their `tolist` gives; one of them alone is no number of Python."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __iter__(self) -> Any:
        return iter(Tensor(one) for one in self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self.values, dtype)

    def tolist(self) -> Any:
        return self.values.tolist()


def test_tensors_and_columns_are_their_values() -> None:
    whose = np.arange(N) // 4
    plain = compare_tables(TRUTH.tolist(), BEFORE, AFTER, patients=whose.tolist(), classes=CLASSES)
    found = compare_tables(
        Tensor(TRUTH),
        Tensor(BEFORE),
        Tensor(AFTER),
        patients=Tensor(whose),
        ids=Tensor(range(N)),
        classes=CLASSES,  # type: ignore[arg-type]
    )
    assert (found.interval, found.patients, found.accuracy) == (plain.interval, 200, plain.accuracy)


def test_an_index_that_would_make_classes_without_end_is_refused() -> None:
    """A row that holds an id or a date in the place of a class: nothing of its size is made."""
    with pytest.raises(OctcError) as caught:
        compare_tables([*TRUTH[:-1].tolist(), 20261201], TRUTH, TRUTH)
    assert (caught.value.code, "20,261,201" in caught.value.message) == ("OCT-E706", True)


def test_a_single_class_and_a_single_image_have_a_verdict() -> None:
    for count in (1, 60):
        found = compared(["CNV"] * count, ["CNV"] * count, ["CNV"] * count, classes=None)
        assert (found.verdict.word, found.accuracy["after"], found.agreement) == ("inconclusive", 1.0, 1.0)


def test_what_is_no_probability_is_named_with_its_row() -> None:
    bad = AFTER.copy()
    bad[7] = (0.5, 0.25, 0.5, 0.0)
    with pytest.raises(OctcError, match="1 of 800 rows of 'after' are not probabilities: i7 has CNV"):
        compared(TRUTH, BEFORE, bad, ids=[f"i{k}" for k in range(N)])


@pytest.mark.parametrize("bad", [AFTER.astype(complex), [["high"] * 4] * N, [*AFTER[1:].tolist(), [1.0]]])
def test_what_is_no_table_is_refused(bad: Any) -> None:
    with pytest.raises(OctcError, match="'after'") as caught:
        compared(TRUTH, BEFORE, bad)
    assert caught.value.code == "OCT-E706"
