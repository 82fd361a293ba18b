"""Records -> report: joining, refusals, document and wording rules of docs/parity.md, sections 16 and 17."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octc.bench.parity.claim import Context, ParityReport, SetInfo, Side, compare, withhold
from octc.bench.parity.inference import Records
from octc.core.errors import OctcError
from octc.stats.test_plan import ParityOptions
from tests.octc.parity_cases import CLASSES, answers, labels_of, says

QUICK = ParityOptions(bootstrap=1000, plan_discordance=1e-4)
GOLDEN = {"images": 8, "delta_over_s": 0.01, "tolerance": 0.05, "ok": True}


def records(labels: list[int], wrong: Any = (), name: str = "r", patients: list[str | None] | None = None) -> Records:
    ids = tuple(f"{i:064x}" for i in range(len(labels)))
    people = tuple(patients or [f"p{i}" for i in range(len(labels))])
    return Records(ids, tuple(labels), people, says(answers(labels, wrong)), ("identity",), name, {"size": 64})


def sides(precision: str = "int8") -> tuple[Side, Side]:
    return Side("onnx-fp32", "r", "fp32"), Side("onnx-int8", "c", precision, runtime="onnxruntime", facts=(("threads", 2),))


def report(n: int = 1000, lost: int = 1, gained: int = 1, options: ParityOptions = QUICK, **more: Any) -> ParityReport:
    labels = labels_of(n)
    reference, candidate = records(labels, range(lost, lost + gained)), records(labels, range(lost), "c")
    return compare(reference, candidate, CLASSES, options, Context(**{"sides": sides(), "golden": GOLDEN, **more}))


def test_c07_records_are_joined_by_image_whatever_their_order() -> None:
    labels = labels_of(400)
    reference, candidate = records(labels, [5, 9]), records(labels, [7], "c")
    order = np.random.default_rng(1).permutation(400).tolist()
    mixed = candidate.in_order([candidate.ids[i] for i in order])
    assert mixed.ids != candidate.ids
    first, second = (compare(reference, one, CLASSES, QUICK).to_json() for one in (candidate, mixed))
    assert first == second
    assert (first["counts"]["lost"], first["counts"]["gained"]) == (1, 2)


def test_c07_different_images_are_refused_with_ids_of_both_sides() -> None:
    labels = labels_of(40)
    other = records(labels, name="c")
    moved = replace(other, ids=(*other.ids[:-1], "f" * 64))
    with pytest.raises(OctcError) as caught:
        compare(records(labels), moved, CLASSES, QUICK)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E706", 3)
    assert "f" * 64 in caught.value.message
    assert f"{39:064x}" in caught.value.message


@pytest.mark.parametrize("what", ["twice", "labels", "views", "preprocess"])
def test_records_that_do_not_fit_are_refused(what: str) -> None:
    labels = labels_of(40)
    other = records(labels, name="c")
    changed = {
        "twice": replace(other, ids=(other.ids[1], *other.ids[1:])), "labels": replace(other, labels=(1, *other.labels[1:])),
        "views": replace(other, views=("hflip",)), "preprocess": replace(other, preprocess={"size": 96}),
    }[what]  # fmt: skip
    with pytest.raises(OctcError) as caught:
        compare(records(labels), changed, CLASSES, QUICK)
    assert caught.value.code == "OCT-E706"
    if what == "preprocess":  # a teacher has its own
        assert compare(records(labels), changed, CLASSES, QUICK, Context(against="teacher")).verdict.word


def test_other_classes_and_a_reference_that_is_not_finite_are_refused() -> None:
    labels = labels_of(40)
    with pytest.raises(OctcError) as caught:
        compare(records(labels), records(labels, name="c"), CLASSES[:3], QUICK)
    assert caught.value.code == "OCT-E309"
    spoilt = records(labels)
    spoilt.logits[3, 0, 0] = np.nan
    with pytest.raises(OctcError) as caught:
        compare(spoilt, records(labels, name="c"), CLASSES, QUICK)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E708", 3)


def test_nan_in_the_candidate_fails_with_its_ids_and_no_number() -> None:
    labels = labels_of(40)
    spoilt = records(labels, name="c")
    spoilt.logits[3, 0, 0] = np.inf
    one = compare(records(labels), spoilt, CLASSES, QUICK, Context(golden=GOLDEN))
    document = one.to_json()
    assert (one.word, one.exit_code, document["not_finite"]) == ("fail", 1, [spoilt.ids[3]])
    assert document["accuracy"] is None
    assert document["counts"] is None
    assert document["plan"]["margin_pp"] == 1.0
    assert one.to_text().startswith("FAIL: ")
    assert spoilt.ids[3][:12] in one.to_text()
    json.dumps(document, allow_nan=False)


@pytest.mark.parametrize("same", ["manifest", "model"])
def test_an_artifact_against_itself_shows_nothing(same: str) -> None:
    labels = labels_of(1000)
    r, c = sides("fp32")
    if same == "model":
        one = compare(
            records(labels), records(labels, name="c"), CLASSES, QUICK,
            Context(sides=(replace(r, model_sha256="m"), replace(c, model_sha256="m"))),
        )  # fmt: skip
    else:
        one = compare(records(labels), records(labels), CLASSES, QUICK, Context(sides=(r, c)))
    assert (one.word, one.verdict.reasons, one.exit_code) == ("inconclusive", ("self_comparison",), 1)
    assert any("identical artifacts" in warning for warning in one.warnings)


def test_patients_that_are_partly_missing_are_counted() -> None:
    labels = labels_of(400)
    people: list[str | None] = [None if i < 7 else f"p{i // 2}" for i in range(400)]
    one = compare(records(labels, patients=people), records(labels, name="c", patients=people), CLASSES, QUICK)
    assert any("7 images have no patient id" in warning for warning in one.warnings)
    assert one.patients == one.comparison.pair.patients if one.comparison else None
    none = compare(records(labels, patients=[None] * 400), records(labels, name="c"), CLASSES, QUICK)
    assert none.patients is None
    assert "no patient ids" in none.to_text()


def test_the_document_has_the_blocks_of_the_contract_and_only_finite_numbers() -> None:
    document = report().to_json()
    for block in ("reference", "candidate", "set", "plan", "counts", "accuracy", "tiers", "classes", "auc", "calibration",
                  "agreement", "backends", "golden", "verdict", "warnings", "schema_version", "command"):  # fmt: skip
        assert block in document, block
    assert {"name", "artifact_sha256", "runtime", "version", "precision", "device", "cpu_isa", "threads", "temperature"} <= set(
        document["candidate"]
    )
    assert document["candidate"]["threads"] == 2
    assert {
        "alpha",
        "margin_pp",
        "class_margin_pp",
        "claim",
        "d_plan",
        "icc",
        "deff_plan",
        "n_eff",
        "power",
        "locked_at",
    } <= set(document["plan"])
    assert {"difference_pp", "tango", "tango_scaled", "bootstrap", "deciding", "deff", "p_ni", "mcnemar_midp"} <= set(
        document["accuracy"]
    )
    assert document["golden"]["max_delta_over_s"] == 0.01
    assert [row["name"] for row in document["auc"]["classes"]] == list(CLASSES)
    assert document["auc"]["macro"]["method"] == "patient bootstrap"
    text = json.dumps(document, allow_nan=False)
    assert all(math.isfinite(value) for value in numbers(json.loads(text)))


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [float(value)] if isinstance(value, (int, float)) else []


def test_the_verdict_stands_first_with_all_its_conditions() -> None:
    first = report().to_text().splitlines()[0]
    assert first.startswith("EQUIVALENT: onnx-int8 against its FP32 reference onnx-fp32 · ")
    for part in ("margin 1 pp", "class margin 3 pp", "alpha 0.05", "test set", "n=1000 images", "1000 patients"):
        assert part in first


@pytest.mark.parametrize("lost", [4, 60])
def test_words_of_a_positive_verdict_are_used_only_with_one(lost: int) -> None:
    one = report(lost=lost, gained=0)
    assert one.word in ("inconclusive", "fail", "inferior")
    text = one.to_text().lower()
    for forbidden in ("parity", "non-inferior", "equivalent", "no significant"):
        assert forbidden not in text
    assert "would settle" in report(lost=4, gained=0).to_text()


def test_an_exploratory_verdict_and_one_on_the_validation_set_say_so_in_their_first_words() -> None:
    info = SetInfo("test", uses_of_test=3, locked_at="2026-01-01T00:00:00Z", exploratory="margin 1 -> 2; test set used 3 times")
    one = report(info=info)
    assert one.to_text().startswith("EQUIVALENT (exploratory): ")
    assert "margin 1 -> 2" in one.to_text().splitlines()[1]
    assert one.to_json()["verdict"]["exploratory"] is True
    assert one.to_json()["set"]["uses_of_test"] == 3
    assert report(info=SetInfo("select")).to_text().startswith("EQUIVALENT on the validation set: ")


def test_a_level_that_is_not_the_usual_one_is_explained() -> None:
    text = report(options=replace(QUICK, alpha=0.1)).to_text()
    assert "alpha 0.1 (90 % interval, one-sided 0.05)" in text


def test_a_withheld_claim_has_numbers_but_no_verdict_and_ends_with_1() -> None:
    one = withhold(report(), "the claim before it is inconclusive")
    assert (one.word, one.exit_code) == ("not_tested", 1)
    assert one.to_text().startswith("NOT TESTED: ")
    assert "equivalent" not in one.to_text().lower()
    assert one.to_json()["verdict"]["word"] == "not_tested"


@pytest.mark.parametrize(("precision", "target", "row"), [
    ("int8", "onnx", "K10"), ("fp16", "openvino", "K4"), ("fp32", "torch", "K1"), ("fp32", "openvino", "K2"),
])  # fmt: skip
def test_the_row_of_the_backend_is_information(precision: str, target: str, row: str) -> None:
    r, c = sides(precision)
    one = report(sides=(r, replace(c, target=target)), lost=1, gained=0)
    (backend,) = one.to_json()["backends"]
    assert backend["pair_id"] == row
    assert backend["ok"] is False  # a flip of a sure answer is no tie
    assert one.exit_code == 0
    assert report(against="teacher").to_json()["backends"] == []


def test_near_ties_are_excused_only_where_the_row_says_so() -> None:
    labels = labels_of(1000)
    close = says(labels)
    close[0, 0, 1] = 4 - 1e-4  # label 0: all but a tie with 1
    flipped = close.copy()
    flipped[0, 0, 1] = 4 + 1e-4
    people = [f"p{i}" for i in range(1000)]
    ids = tuple(f"{i:064x}" for i in range(1000))
    both = [
        Records(ids, tuple(labels), tuple(people), z, ("identity",), name, {}) for z, name in ((close, "r"), (flipped, "c"))
    ]
    rows = {}
    for precision in ("fp32", "int8"):
        r, c = sides(precision)
        rows[precision] = compare(*both, CLASSES, QUICK, Context(sides=(r, c))).to_json()
    assert [rows[p]["agreement"]["near_tie_flips"] for p in rows] == [1, 1]
    assert rows["fp32"]["backends"][0]["ok"] is True  # 100 % except near ties
    assert rows["int8"]["backends"][0]["agreement"] == 0.999


def test_golden_images_that_differ_fail_whatever_the_statistics_say() -> None:
    one = report(golden={**GOLDEN, "ok": False, "delta_over_s": 0.4})
    assert (one.word, one.verdict.reasons[0], one.exit_code) == ("fail", "golden", 1)
    assert "DIFFERENT" in one.to_text()


UCSD = ("CNV", "DME", "DRUSEN", "NORMAL")


@pytest.mark.parametrize(("key", "n_eff", "open_classes"), [
    ("patient_group", 393, {"CNV", "DME", "DRUSEN"}), ("patient", 426, {"DME", "DRUSEN"}),
])  # fmt: skip
def test_the_patients_of_the_real_test_set(ucsd: Path, key: str, n_eff: int, open_classes: set[str]) -> None:
    """826 images cannot decide the default margins, whatever the model; they can 2 and 5 pp (docs/parity.md, section 11)."""
    with (ucsd / "manifest.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    labels = [UCSD.index(row["label"]) for row in rows]
    people: list[str | None] = [row[key] for row in rows]
    single = [i for i, row in enumerate(rows) if Counter(people)[row[key]] == 1]
    wrong, lost, gained = single[20:36], single[:2], single[2:3]
    both = [
        records(labels, [*wrong, *more], name, people) for name, more in (("r", gained), ("c", lost))
    ]  # fmt: skip
    options = ParityOptions(bootstrap=1000)
    default = compare(*both, UCSD, options)
    assert default.comparison is not None
    assert default.comparison.plan.n_eff == n_eff
    assert default.word == "inconclusive"
    assert {"underpowered_plan", "interval_crosses_margin"} <= set(default.verdict.reasons)
    assert open_classes <= {reason.removeprefix("class:") for reason in default.verdict.reasons}
    stated = compare(*both, UCSD, replace(options, margin=2, class_margin=5))
    assert (stated.word, stated.exit_code) == ("equivalent", 0)
    worse = records(labels, [*wrong, *single[40:60]], "c", people)
    assert compare(both[0], worse, UCSD, replace(options, margin=2, class_margin=5, ece_slack=0.1)).exit_code == 1
