"""`octc compare A B` on prediction tables: the numbers of `octc verify`, forms of tables, faults, laws, published values."""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octc.bench.parity.claim import Context, SetInfo, compare
from octc.bench.parity.inference import Records
from octc.bench.parity.tables import room
from octc.bench.parity.tables.compare import compare_files
from octc.bench.parity.tables.read import open_table
from octc.bench.report.table_report import junit_of, markdown_of, sections_of, write_tables_report
from octc.cli._app.main import main
from octc.cli.json_schema import schema_of
from octc.core.errors import OctcError
from octc.schemas.comparing import TableOptions
from octc.stats.auc import compare_areas
from octc.stats.cluster_bootstrap import POOLS, difference_bootstrap, pooled
from octc.stats.outcome import outcome_of
from octc.stats.proportions import mcnemar_exact
from octc.stats.tables import compare_tables
from octc.stats.test_plan import ParityOptions
from tests.house.tree import ROOT
from tests.schema_checks import validate

CLASSES = ("CNV", "DME", "NORMAL")
GATE = ParityOptions(margin=3, class_margin=6, bootstrap=1000)
Rows = list[dict[str, Any]]


def scores(labels: np.ndarray, wrong: Sequence[int], seed: int) -> np.ndarray:
    """Probabilities [n, 3] that are wrong on some rows."""
    rng = np.random.default_rng(seed)
    told = labels.copy()
    told[list(wrong)] = (told[list(wrong)] + 1) % 3
    values = rng.uniform(0.01, 0.1, (len(labels), 3))
    values[np.arange(len(labels)), told] = 0.9
    return np.round(values / values.sum(axis=1, keepdims=True), 6)


N = 600
LABELS = np.arange(N) % 3
BEFORE, AFTER = scores(LABELS, range(0, 30, 5), 1), scores(LABELS, range(0, 36, 4), 2)


def rows_of(values: np.ndarray, order: Sequence[int] | None = None, **more: Callable[[int], Any]) -> Rows:
    """A row for each image: id, truth, patient, a probability for each class."""
    return [
        {
            "id": f"i{i:03d}", "truth": CLASSES[LABELS[i]], "patient": f"p{i // 3}",
            **{f"p_{name}": float(values[i, k]) for k, name in enumerate(CLASSES)},
            **{name: make(i) for name, make in more.items()},
        }
        for i in (range(N) if order is None else order)
    ]  # fmt: skip


def write(path: Path, rows: Rows) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    return path


def two(folder: Path, before: Rows, after: Rows, ending: str = ".csv") -> tuple[Path, Path]:
    return write(folder / f"a{ending}", before), write(folder / f"b{ending}", after)


def numbers(found: dict[str, Any]) -> dict[str, Any]:
    """What a comparison says, without the names of its files."""
    names = ("plan", "counts", "accuracy", "tiers", "classes", "macro", "confusion", "auc", "calibration", "agreement")
    return {name: found[name] for name in (*names, "verdict", "set")}


# the same as octc verify, and as octc.compare


def test_the_numbers_are_those_that_verify_writes_of_the_same_predictions(tmp_path: Path) -> None:
    found = compare_files(*two(tmp_path, rows_of(BEFORE), rows_of(AFTER)), gate=GATE).to_json()
    ids, people = tuple(f"i{i:03d}" for i in range(N)), tuple(f"p{i // 3}" for i in range(N))
    both = [
        Records(ids, tuple(LABELS.tolist()), people, np.log(values).astype(np.float32)[:, None], ("identity",), name, {})
        for name, values in (("a", BEFORE), ("b", AFTER))
    ]
    verified = compare(both[0], both[1], CLASSES, GATE, Context(info=SetInfo("test"))).to_json()
    for name in ("plan", "counts", "accuracy", "tiers", "classes", "macro", "confusion", "auc", "calibration", "agreement"):
        nearly = {"near_tie_flips": None, "near_tie_limit": None} if name == "agreement" else {}  # of artifacts alone
        assert found[name] == ({**verified[name], **nearly} if nearly else verified[name]), name
    assert {key: found["verdict"][key] for key in ("word", "reasons", "exit_code", "parts")} == {
        key: verified["verdict"][key] for key in ("word", "reasons", "exit_code", "parts")
    }


def test_the_twin_takes_arrays_and_says_the_same(tmp_path: Path) -> None:
    found = compare_files(*two(tmp_path, rows_of(BEFORE), rows_of(AFTER)), gate=GATE)
    ids, people = [f"i{i:03d}" for i in range(N)], [f"p{i // 3}" for i in range(N)]
    twin = compare_tables(LABELS.tolist(), BEFORE, AFTER, patients=people, ids=ids, classes=CLASSES, gate=GATE)
    assert (twin.verdict.word, twin.lost, twin.gained) == (
        found.word,
        *(found.to_json()["counts"][k] for k in ("lost", "gained")),
    )
    assert [100 * limit for limit in twin.interval or ()] == found.to_json()["accuracy"]["deciding"]
    assert twin.verdict.parts == tuple(part for part in found.report.verdict.parts if part.name != "finite")


# forms of tables


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_every_format_says_the_same(tmp_path: Path, ending: str) -> None:
    plain = compare_files(*two(tmp_path, rows_of(BEFORE), rows_of(AFTER)), gate=GATE)
    other = compare_files(*two(tmp_path, rows_of(BEFORE), rows_of(AFTER), ending), gate=GATE)
    assert numbers(plain.to_json()) == numbers(other.to_json())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_line_that_states_the_separator_is_no_header(tmp_path: Path, encoding: str) -> None:
    plain = compare_files(*two(tmp_path, rows_of(BEFORE), rows_of(AFTER)), gate=GATE)
    for name in ("a.csv", "b.csv"):
        text = (tmp_path / name).read_text().replace(",", ";")
        (tmp_path / name).write_bytes(("sep=;\r\n" + text).encode(encoding))
    other = compare_files(tmp_path / "a.csv", tmp_path / "b.csv", gate=GATE)
    assert numbers(plain.to_json()) == numbers(other.to_json())
    lines = (tmp_path / "b.csv").read_text(encoding).splitlines()
    (tmp_path / "b.csv").write_text("\n".join([*lines[:3], "torn", *lines[3:]]), encoding)
    with pytest.raises(OctcError) as caught:
        compare_files(tmp_path / "a.csv", tmp_path / "b.csv", gate=GATE)
    assert (caught.value.code, str(caught.value.place)) == ("OCT-E209", f"{tmp_path / 'b.csv'}:4")


def test_patients_are_found_under_any_usual_name(tmp_path: Path) -> None:
    named = [
        [{"Patient ID" if k == "patient" else k: v for k, v in row.items()} for row in rows_of(t)] for t in (BEFORE, AFTER)
    ]
    assert compare_files(*two(tmp_path, named[0], named[1]), gate=GATE).cluster == "Patient ID"
    both = [[{**row, "patient": "x"} for row in rows] for rows in named]
    assert compare_files(*two(tmp_path, both[0], both[1]), gate=GATE).cluster == "patient"
    twice = [[{**row, "PatientID": "x"} for row in rows] for rows in named]
    with pytest.raises(OctcError, match="doubled: patient"):
        compare_files(*two(tmp_path, twice[0], twice[1]), gate=GATE)


def test_what_would_settle_it_is_said_of_rows(tmp_path: Path) -> None:
    one = [rows_of(t, patient=lambda _: "p") for t in (BEFORE, AFTER)]
    with pytest.raises(OctcError) as caught:
        compare_files(*two(tmp_path, one[0], one[1]), gate=GATE).raise_if_failed()
    assert caught.value.hint == "rows of several patients: an interval over one patient does not exist"


def test_the_truth_as_a_table_of_its_own_that_knows_the_patients(tmp_path: Path) -> None:
    plain = compare_files(*two(tmp_path, rows_of(BEFORE), rows_of(AFTER)), gate=GATE)
    bare = [[{k: v for k, v in row.items() if k not in ("truth", "patient")} for row in rows_of(t)] for t in (BEFORE, AFTER)]
    truth = write(tmp_path / "t.csv", [{"id": f"i{i:03d}", "who": f"p{i // 3}", "label": CLASSES[LABELS[i]]} for i in range(N)])
    (tmp_path / "bare").mkdir()
    options = TableOptions(labels=str(truth), cluster="who")
    found = compare_files(*two(tmp_path / "bare", bare[0], bare[1]), gate=GATE, options=options)
    assert numbers(found.to_json()) == numbers(plain.to_json())
    assert found.cluster == "who"


def test_answers_without_scores_have_no_calibration_and_no_areas(tmp_path: Path) -> None:
    def bare(values: np.ndarray) -> Rows:
        told = values.argmax(1)
        return [{"id": i, "truth": CLASSES[LABELS[i]], "prediction": CLASSES[told[i]]} for i in range(N)]

    found = compare_files(*two(tmp_path, bare(BEFORE), bare(AFTER)), gate=GATE)
    document = found.to_json()
    assert found.form == "answers"
    assert (document["auc"], document["calibration"], document["agreement"]["kl_mean"]) == (None, None, None)
    assert document["set"]["patients"] is None
    assert "ECE" not in {part.name for part in found.report.verdict.parts}
    scored = compare_files(*two(tmp_path, rows_of(BEFORE), rows_of(AFTER)), gate=GATE, options=TableOptions(cluster="none"))
    assert document["accuracy"] == scored.to_json()["accuracy"]
    assert "calibration" not in found.to_text()


def lm_eval(values: np.ndarray, **more: Any) -> Rows:
    """As lm-evaluation-harness logs samples: nested documents, a doc_id, an accuracy a row; several filters a document."""
    told = values.argmax(1)
    return [
        {"doc_id": i, "doc": {"question": "?"}, "target": "A", "filter": name, "acc": float(told[i] == LABELS[i]), **more}
        for i in range(N)
        for name in ("none", "strict")
    ]


def test_right_and_wrong_alone_as_lm_evaluation_harness_logs_them(tmp_path: Path) -> None:
    options = TableOptions(key="doc_id,filter", cluster="doc_id")
    found = compare_files(*two(tmp_path, lm_eval(BEFORE), lm_eval(AFTER), ".jsonl"), gate=GATE, options=options)
    document = found.to_json()
    assert (found.form, document["set"]["n"], document["set"]["patients"]) == ("right", 2 * N, N)
    lost = ((BEFORE.argmax(1) == LABELS) & (AFTER.argmax(1) != LABELS)).sum()
    assert document["counts"]["lost"] == 2 * lost
    assert {part.name for part in found.report.verdict.parts} == {
        "finite", "tier 99 %", "not worse than the margin", "non-inferiority", "plan",
    }  # fmt: skip
    twice = lm_eval(BEFORE, exact_match=1.0), lm_eval(AFTER, exact_match=0.0)
    with pytest.raises(OctcError, match="several columns") as error:
        compare_files(*two(tmp_path, *twice, ".jsonl"), gate=GATE, options=options)
    assert error.value.code == "OCT-E209"


def chance(values: np.ndarray) -> Rows:
    return [{"id": i, "y_true": int(LABELS[i] > 0), "score": round(1 - float(values[i, 0]), 6)} for i in range(N)]


def test_one_probability_of_the_second_of_two_classes_and_its_threshold(tmp_path: Path) -> None:
    tables = two(tmp_path, chance(BEFORE), chance(AFTER))
    found = compare_files(*tables, gate=GATE)
    assert (found.classes, found.form) == (("0", "1"), "scores")
    assert found.to_json()["auc"]["macro"]["method"] == "DeLong"
    high = compare_files(*tables, gate=GATE, options=TableOptions(threshold="0.92"))
    assert high.form == "answers"
    right = [(np.round(1 - v[:, 0], 6) >= 0.92) == (LABELS > 0) for v in (BEFORE, AFTER)]
    assert high.to_json()["counts"]["lost"] == int((right[0] & ~right[1]).sum())


def test_columns_of_class_names_and_indices_as_labels(tmp_path: Path) -> None:
    plain = compare_files(*two(tmp_path, rows_of(BEFORE), rows_of(AFTER)), gate=GATE)

    def renamed(values: np.ndarray) -> Rows:
        return [
            {
                "id": r["id"],
                "patient": r["patient"],
                "y": CLASSES.index(r["truth"]),
                **{f"prob_{n}": r[f"p_{n}"] for n in CLASSES},
            }
            for r in rows_of(values)
        ]

    other = compare_files(*two(tmp_path, renamed(BEFORE), renamed(AFTER)), gate=GATE, options=TableOptions(labels="y"))
    assert numbers(plain.to_json()) == numbers(other.to_json())
    gaps = [[{**r, "y": f"{r['y']}.0"} for r in renamed(values)] for values in (BEFORE, AFTER)]  # as pandas writes gaps
    third = compare_files(*two(tmp_path, *gaps), gate=GATE, options=TableOptions(labels="y"))
    assert numbers(plain.to_json()) == numbers(third.to_json())
    turned = [dict(reversed(row.items())) for row in rows_of(AFTER)]
    again = compare_files(*two(tmp_path, rows_of(BEFORE), turned), gate=GATE)
    assert numbers(plain.to_json()) == numbers(again.to_json())


def findings(values: np.ndarray, *, one_cell: bool) -> Rows:
    """Two findings a row; the second also where the first is CNV and the number is even."""
    rows = []
    for i in range(N):
        own = [LABELS[i] == 0, LABELS[i] == 1 or (LABELS[i] == 0 and i % 2 == 0)]
        names = [name for name, has in zip("ab", own, strict=True) if has]
        truth = {"label": "|".join(names)} if one_cell else {f"label_{n}": int(h) for n, h in zip("ab", own, strict=True)}
        chances = {"p_a": float(values[i, 0]), "p_b": min(1.0, float(values[i, 1] + values[i, 0] * (i % 2 == 0)))}
        rows.append({"id": i, "patient": f"p{i // 4}", "eye": f"e{i // 2}", **truth, **chances})
    return rows


def test_several_findings_in_one_cell_or_in_columns(tmp_path: Path) -> None:
    found = [
        compare_files(
            *two(tmp_path, findings(BEFORE, one_cell=flag), findings(AFTER, one_cell=flag)),
            gate=GATE,
            options=TableOptions(eye="eye", key="id", threshold="0.5,0.4"),
        )
        for flag in (True, False)
    ]
    documents = [one.to_json() for one in found]
    assert documents[0]["decisions"] == documents[1]["decisions"]
    assert (documents[0]["task"], documents[0]["decisions"]["eyes"], documents[0]["decisions"]["patients"]) == (
        "multilabel",
        N // 2,
        N // 4,
    )
    assert documents[0]["decisions"]["thresholds"] == pytest.approx([0.5, 0.4])
    assert "mAP" in str(found[0])
    assert "Findings" in [section.title for section in sections_of(found[0])]


# faults


def refused(tmp_path: Path, before: Rows, after: Rows, **options: Any) -> OctcError:
    with pytest.raises(OctcError) as error:
        compare_files(*two(tmp_path, before, after), gate=GATE, options=TableOptions(**options))
    return error.value


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_finding_that_nobody_graded_is_no_absent_finding(tmp_path: Path, ending: str) -> None:
    """30 rows without a grade for CNV: refused by name, or left out of everything; as absent they would change every number."""
    rng = np.random.default_rng(5)
    truth = rng.random((N, 3)) < 0.35

    def table(seed: int, ungraded: Sequence[int]) -> Rows:
        noise = np.random.default_rng(seed).normal(0, 0.15, (N, 3))
        values = np.clip(0.15 + 0.7 * truth + noise, 0.01, 0.99).round(4)
        return [
            {
                "id": f"i{i:03d}", "patient": f"p{i // 3}",
                **{f"label_{name}": None if i in ungraded and k == 0 else int(truth[i, k]) for k, name in enumerate(CLASSES)},
                **{f"p_{name}": float(values[i, k]) for k, name in enumerate(CLASSES)},
            }
            for i in range(N)
        ]  # fmt: skip

    gone = range(0, N, 20)
    paths = two(tmp_path, table(1, gone), table(2, gone), ending)
    with pytest.raises(OctcError, match="30 without a label: i000") as caught:
        compare_files(*paths, gate=GATE)
    assert caught.value.code == "OCT-E706"
    found = compare_files(*paths, options=TableOptions(unmatched="leave-out"), gate=GATE).to_json()
    kept = [[row for i, row in enumerate(table(seed, ())) if i not in gone] for seed in (1, 2)]
    (tmp_path / "kept").mkdir()
    whole = compare_files(*two(tmp_path / "kept", *kept, ending), gate=GATE).to_json()
    assert found["decisions"] == whole["decisions"]
    assert found["decisions"]["n"] == N - 30
    assert found["verdict"]["exploratory"]


def test_keys_that_stand_twice(tmp_path: Path) -> None:
    found = refused(tmp_path, rows_of(BEFORE), [*rows_of(AFTER), rows_of(AFTER)[7]])
    assert (found.code, "i007" in found.message, "b.csv" in found.message) == ("OCT-E706", True, True)


def test_every_unmatched_row_is_named(tmp_path: Path) -> None:
    before, after = rows_of(BEFORE, range(3, N)), rows_of(AFTER, range(N - 2))
    found = refused(tmp_path, before, after)
    assert found.code == "OCT-E706"
    assert all(name in found.message for name in ("i000", "i001", "i002", "i598", "i599"))
    left = compare_files(*two(tmp_path, before, after), gate=GATE, options=TableOptions(unmatched="leave-out"))
    assert left.report.n == N - 5
    assert left.report.set.exploratory is not None
    folder = write_tables_report(left, tmp_path / "reports", "now")
    with (folder / "unmatched.csv").open(newline="") as stream:
        assert {(row["row"], row["where"]) for row in csv.DictReader(stream)} == {
            *((f"i00{i}", "only in b.csv") for i in range(3)), ("i598", "only in a.csv"), ("i599", "only in a.csv"),
        }  # fmt: skip


def test_rows_without_a_label_are_unmatched_too(tmp_path: Path) -> None:
    before, after = rows_of(BEFORE), rows_of(AFTER)
    before[4]["truth"] = after[4]["truth"] = ""
    assert "i004" in refused(tmp_path, before, after).message


def test_scores_that_are_not_finite_end_as_in_verify(tmp_path: Path) -> None:
    bad = rows_of(AFTER)
    bad[5]["p_CNV"] = math.nan
    bad[6]["p_DME"] = ""
    found = compare_files(*two(tmp_path, rows_of(BEFORE), bad), gate=GATE)
    assert (found.word, found.report.not_finite) == ("fail", ("i005", "i006"))
    with pytest.raises(OctcError) as error:
        found.raise_if_failed()
    assert error.value.code == "OCT-E701"
    assert refused(tmp_path, bad, rows_of(AFTER)).code == "OCT-E708"
    lines = two(tmp_path, rows_of(BEFORE), [row for row in bad if row["p_DME"] != ""], ".jsonl")
    assert "NaN" in lines[1].read_text()
    assert compare_files(*lines, gate=GATE, options=TableOptions(unmatched="leave-out")).word == "fail"


def test_a_class_without_rows_leaves_the_verdict_open(tmp_path: Path) -> None:
    kept = [i for i in range(N) if LABELS[i] != 1]
    found = compare_files(*two(tmp_path, rows_of(BEFORE, kept), rows_of(AFTER, kept)), gate=GATE)
    assert found.word == "inconclusive"
    assert "class:DME" in found.report.verdict.reasons


def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    bad = rows_of(AFTER)
    bad[9]["p_CNV"] = "high"
    found = refused(tmp_path, rows_of(BEFORE), bad)
    assert (found.code, (found.place or "").endswith("b.csv:11")) == ("OCT-E209", True)
    torn = tmp_path / "torn.csv"
    torn.write_text("id,truth,prediction\na,CNV,CNV\nb,CNV\n")
    with pytest.raises(OctcError, match="2 cells") as error:
        compare_files(torn, torn, gate=GATE)
    assert (error.value.place or "").endswith("torn.csv:3")
    twice = tmp_path / "twice.jsonl"
    twice.write_text('{"id": 1, "id": 2, "acc": 1}\n')
    with pytest.raises(OctcError, match="stands twice"):
        compare_files(twice, twice, gate=GATE)


def test_what_a_spreadsheet_writes_is_refused_with_what_to_write(tmp_path: Path) -> None:
    """Decimals with a comma, percent signs, keys as numbers, UTF-16 without its mark, the file of the spreadsheet itself."""
    after = rows_of(AFTER)
    for cell, hint in (("0,25", "point"), ("25 %", "percent"), ("25%", "percent"), ("0.2.5", "a number")):
        after[9]["p_CNV"] = cell
        found = refused(tmp_path, rows_of(BEFORE), after)
        assert (found.code, hint in found.hint, (found.place or "")[-8:]) == ("OCT-E209", True, "b.csv:11"), cell
    numbered = [[{**row, "id": f"{i}{end}"} for i, row in enumerate(rows_of(BEFORE))] for end in ("", ".0")]
    found = refused(tmp_path, *numbered)
    assert (found.code, "1.0" in found.hint) == ("OCT-E706", True)
    first, second = two(tmp_path, rows_of(BEFORE), rows_of(AFTER))
    second.write_bytes(second.read_bytes().decode().encode("utf-16-le"))
    with pytest.raises(OctcError, match="UTF-16") as error:
        compare_files(first, second, gate=GATE)
    assert error.value.place == str(second)
    renamed = [{key.upper(): value for key, value in row.items()} for row in rows_of(AFTER)]
    assert "b.csv has ID, TRUTH" in str(refused(tmp_path, rows_of(BEFORE), renamed).why)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    told = [{"id": f"i{i:03d}", "truth": CLASSES[LABELS[i]], "prediction": "CNV"} for i in range(N)]
    assert refused(tmp_path, rows_of(BEFORE), told).code == "OCT-E706"  # scores beside answers
    other = rows_of(AFTER)
    other[3]["truth"] = "DME"
    assert "another truth for 1 rows: i003" in refused(tmp_path, rows_of(BEFORE), other).message
    assert refused(tmp_path, rows_of(BEFORE), rows_of(AFTER), key="image").code == "OCT-E209"
    assert refused(tmp_path, rows_of(BEFORE), rows_of(AFTER), threshold="0.3").code == "OCT-E104"
    half = [{**row, "p_CNV": 3 * row["p_CNV"]} for row in rows_of(AFTER)]
    assert refused(tmp_path, rows_of(BEFORE), half).code == "OCT-E701"
    assert refused(tmp_path, rows_of(BEFORE), rows_of(AFTER), classes="CNV,DME,DRUSEN").code == "OCT-E706"
    named = [{("p_X" if key == "p_CNV" else key): value for key, value in row.items()} for row in rows_of(AFTER)]
    assert refused(tmp_path, rows_of(BEFORE), named).code == "OCT-E309"


def told_as(names: Sequence[str], **more: Callable[[int], Any]) -> Rows:
    """Rows with one answer each instead of scores."""
    return [
        {"id": f"i{i:03d}", "truth": CLASSES[LABELS[i]], "patient": f"p{i // 3}", "prediction": names[LABELS[i]],
         **{name: make(i) for name, make in more.items()}}
        for i in range(N)
    ]  # fmt: skip


@pytest.mark.parametrize("nothing", ["nan", "NaN", "NA", "N/A", "<NA>", "null", ""])
@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_cell_that_says_nothing_is_no_class_no_score_and_no_patient(nothing: str, ending: str, tmp_path: Path) -> None:
    before, after = told_as(CLASSES), told_as(CLASSES)
    after[5]["prediction"] = nothing
    found = compare_files(*two(tmp_path, before, after, ending), gate=GATE)
    assert (found.classes, found.word, found.report.not_finite) == (CLASSES, "fail", ("i005",))
    scored = rows_of(AFTER)
    scored[6]["p_DME"] = nothing
    assert compare_files(*two(tmp_path, rows_of(BEFORE), scored, ending), gate=GATE).report.not_finite == ("i006",)
    bare = told_as(CLASSES)
    bare[4]["truth"] = nothing
    assert "1 without a label: i004" in refused(tmp_path, bare, bare).message
    nobody = told_as(CLASSES, patient=lambda _: nothing)
    assert compare_files(*two(tmp_path, nobody, nobody, ending), gate=GATE).to_json()["set"]["patients"] is None


@pytest.mark.parametrize(("name", "other"), [("CNV", "cnv"), ("CNV", "C NV"), ("1", "1.0")])
def test_a_class_in_two_spellings_is_refused_and_no_wrong_answer(name: str, other: str, tmp_path: Path) -> None:
    before, after = (told_as((one, *CLASSES[1:]), truth=lambda i: (name, *CLASSES[1:])[LABELS[i]]) for one in (name, other))
    found = refused(tmp_path, before, after)
    assert (found.code, " = ".join(sorted((name, other))) in found.message) == ("OCT-E706", True)


def test_numbers_are_indices_of_classes_unless_all_are_names(tmp_path: Path) -> None:
    def numbered(first: int) -> Rows:
        return told_as([str(k + first) for k in range(3)], truth=lambda i: str(LABELS[i] + first))

    for first in (0, 1):
        rows = numbered(first)
        found = compare_files(*two(tmp_path, rows, rows), gate=GATE, options=TableOptions(classes="1,2,3"))
        assert found.report.comparison is not None
        assert (found.report.comparison.both_right, found.report.n) == (N, N)


def test_patients_that_only_the_candidate_names_count(tmp_path: Path) -> None:
    named, bare = rows_of(AFTER), [{k: v for k, v in row.items() if k != "patient"} for row in rows_of(BEFORE)]
    found = compare_files(*two(tmp_path, bare, named), gate=GATE)
    assert (found.cluster, found.to_json()["set"]["patients"]) == ("patient", N // 3)


def test_tables_that_put_rows_together_in_another_way_are_refused(tmp_path: Path) -> None:
    before = rows_of(BEFORE)
    renamed = rows_of(AFTER, patient=lambda i: f"hash-{i // 3}")  # other names, the same patients
    assert compare_files(*two(tmp_path, before, renamed), gate=GATE).to_json()["set"]["patients"] == N // 3
    for moved in (lambda i: f"p{i // 6}", lambda i: f"p{i // 2}"):
        found = refused(tmp_path, before, rows_of(AFTER, patient=moved))
        assert (found.code, "one patient's in" in found.message) == ("OCT-E706", True)
    truth = write(tmp_path / "truth.csv", [{k: row[k] for k in ("id", "truth", "patient")} for row in before])
    settled = compare_files(
        *two(tmp_path, before, rows_of(AFTER, patient=lambda i: f"p{i // 6}")),
        gate=GATE,
        options=TableOptions(labels=str(truth)),
    )
    assert settled.to_json()["set"]["patients"] == N // 3


def test_a_table_without_rows_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,truth,patient,p_CNV,p_DME,p_NORMAL\n")
    with pytest.raises(OctcError, match="no row") as caught:
        compare_files(path, write(tmp_path / "b.csv", rows_of(AFTER)), gate=GATE)
    assert caught.value.code == "OCT-E209"


def test_a_table_against_itself_shows_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows_of(BEFORE))
    assert compare_files(path, path, gate=GATE).report.verdict.reasons == ("self_comparison",)


# laws


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_laws(tmp_path: Path, data: st.DataObject) -> None:
    """Swapping mirrors the difference; neither the order of rows nor the names of patients and rows' files matter."""
    few = data.draw(st.integers(60, 90), "rows")
    wrong = [data.draw(st.sets(st.integers(0, few - 1), max_size=8), name) for name in ("before", "after")]
    values = [scores(LABELS, sorted(own), 3 + k) for k, own in enumerate(wrong)]
    gate = ParityOptions(margin=10, class_margin=30, bootstrap=1000)
    rows = [rows_of(one, range(few)) for one in values]
    plain = compare_files(*two(tmp_path, *rows), gate=gate).to_json()
    swapped = compare_files(*two(tmp_path, *rows[::-1]), gate=gate).to_json()
    assert swapped["accuracy"]["difference_pp"] == pytest.approx(-plain["accuracy"]["difference_pp"])
    assert swapped["accuracy"]["tango_scaled"] == pytest.approx([-x for x in plain["accuracy"]["tango_scaled"][::-1]])
    assert [swapped["counts"][k] for k in ("lost", "gained")] == [plain["counts"][k] for k in ("gained", "lost")]
    assert swapped["agreement"]["count"] == plain["agreement"]["count"]
    orders = [data.draw(st.permutations(range(few)), name) for name in ("first", "second")]
    mixed = [
        rows_of(one, order, patient=lambda i: f"q{7 * (i // 3) % 1009}") for one, order in zip(values, orders, strict=True)
    ]
    again = compare_files(*two(tmp_path, *mixed), gate=gate).to_json()
    assert numbers(again) == numbers(plain)


# published values and oracles


def pairs(both: int, lost: int, gained: int, neither: int) -> tuple[Rows, Rows]:
    """Right-or-wrong tables with these counts."""
    cells = [(1, 1)] * both + [(1, 0)] * lost + [(0, 1)] * gained + [(0, 0)] * neither
    return tuple([{"id": i, "correct": cell[k]} for i, cell in enumerate(cells)] for k in (0, 1))  # type: ignore[return-value]


def test_a_small_published_paired_table_has_the_published_numbers(tmp_path: Path) -> None:
    """Airway hyper-responsiveness before and after (Bentur et al. 2009), 21 patients, 1 and 7 discordant, as Fagerland,
    Lydersen and Laake (2014, Statistics in Medicine 33:2850) and R's contingencytables have it: difference -0.286, Tango's
    interval [-0.517, -0.026], McNemar exact 0.070 and mid-p 0.039."""
    before = [1] * 13 + [0] * 8  # right: 12 stay, 1 regresses; of 8 wrong ones 7 improve
    after = [1] * 12 + [0] + [1] * 7 + [0]
    sides = [[{"id": i, "correct": value} for i, value in enumerate(one)] for one in (after, before)]
    found = compare_files(*two(tmp_path, *sides), options=TableOptions(cluster="none"), gate=GATE).to_json()
    assert (found["counts"]["lost"], found["counts"]["gained"]) == (7, 1)
    assert round(found["accuracy"]["difference_pp"], 1) == -28.6
    assert [round(limit, 1) for limit in found["accuracy"]["tango"]] == [-51.7, -2.6]
    assert round(found["accuracy"]["mcnemar_exact"], 3) == 0.070
    assert round(found["accuracy"]["mcnemar_midp"], 3) == 0.039


def test_mcnemar_and_the_difference_of_agrestis_approval_ratings(tmp_path: Path) -> None:
    """The example of R's `mcnemar.test`: 794, 150, 86, 570 (Agresti); statsmodels gives the exact p."""
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    found = compare_files(*two(tmp_path, *pairs(794, 150, 86, 570)), gate=GATE).to_json()
    expected = contingency.mcnemar([[794, 150], [86, 570]], exact=True).pvalue
    assert found["accuracy"]["mcnemar_exact"] == pytest.approx(expected, rel=1e-9)
    corrected = contingency.mcnemar([[794, 150], [86, 570]], exact=False, correction=False)
    assert corrected.statistic == pytest.approx(17.36, abs=0.005)  # as published: z is -4.17
    assert found["accuracy"]["difference_pp"] == pytest.approx(-4.0)
    assert found["accuracy"]["tango"] == pytest.approx([-5.87, -2.13], abs=0.1)  # his Wald interval


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 1), (12, 4), (30, 25)])
def test_exact_mcnemar_is_that_of_statsmodels(lost: int, gained: int) -> None:
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    assert mcnemar_exact(lost, gained) == pytest.approx(contingency.mcnemar([[50, lost], [gained, 50]], exact=True).pvalue)


def test_the_spread_by_patient_is_the_cluster_robust_one_of_statsmodels(tmp_path: Path) -> None:
    """The observed design effect times the variance of independent rows is the sandwich of a mean with clusters."""
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(0)
    whose = rng.integers(0, 60, N)
    hard = rng.normal(size=60)[whose]
    told = [((hard + rng.normal(size=N)) < cut).astype(int) for cut in (1.0, 0.9)]
    tables = [[{"id": i, "patient": f"p{whose[i]}", "correct": int(own[i])} for i in range(N)] for own in told]
    found = compare_files(*two(tmp_path, tables[0], tables[1]), gate=GATE, options=TableOptions(key="id")).to_json()
    change = told[1] - told[0]
    fit = api.OLS(change, np.ones(N)).fit(cov_type="cluster", cov_kwds={"groups": whose})
    counts = found["counts"]
    independent = (counts["lost"] + counts["gained"] - (counts["gained"] - counts["lost"]) ** 2 / N) / N**2
    assert found["accuracy"]["deff_obs"] * independent == pytest.approx(float(fit.bse[0]) ** 2, rel=1e-9)


@pytest.mark.slow
def test_a_loss_at_the_margin_is_rarely_called_non_inferior(tmp_path: Path) -> None:
    """300 sets of 300 patients whose rows change together, with a true loss of exactly the margin: 2.5 % + noise may pass."""
    rng, passed, sets = np.random.default_rng(5), 0, 300
    gate = ParityOptions(margin=3, bootstrap=1000, tier="99")
    for _ in range(sets):
        size = rng.integers(1, 5, 300)
        whose = np.repeat(np.arange(300), size)
        changed = rng.random(300) < 0.08  # of a patient, all rows change alike: the strongest correlation
        sign = np.where(rng.random(300) < (1 - 0.03 / 0.08) / 2, 1, -1)
        step = np.where(changed, sign, 0)[whose]
        before = np.where(step == 0, 1, step < 0).astype(int)
        after = np.where(step == 0, 1, step > 0).astype(int)
        rows = [[{"id": i, "patient": f"p{w}", "correct": int(own[i])} for i, w in enumerate(whose)] for own in (before, after)]
        found = compare_files(*two(tmp_path, rows[0], rows[1]), gate=gate, options=TableOptions(key="id"))
        limits = found.to_json()["accuracy"]["deciding"]
        passed += limits[0] > -3
    assert passed <= sets * 0.025 + 3 * math.sqrt(sets * 0.025 * 0.975)


# very many rows


def test_patients_by_number_are_drawn_as_patients_by_name() -> None:
    """Above 20,000 patients equal ones are drawn by their number: the spread is that of the plain bootstrap."""
    rng = np.random.default_rng(1)
    whose = rng.integers(0, 23_000, 60_000)
    lost, gained = rng.random(60_000) < 0.02, rng.random(60_000) < 0.01
    _, dense = np.unique(whose, return_inverse=True)
    drawn = difference_bootstrap(lost, gained & ~lost, dense, 1000, 0)
    x = np.bincount(dense, weights=(gained & ~lost).astype(float) - lost)
    n = np.bincount(dense)
    expected = math.sqrt(((x - x.sum() / n.sum() * n) ** 2).sum()) / n.sum()
    assert drawn.std() == pytest.approx(expected, rel=0.1)
    groups = pooled(dense.astype(np.int64), 0)
    assert len(np.unique(groups)) == POOLS
    assert all(len(np.unique(groups[dense == k])) == 1 for k in range(50))  # a patient is never torn


def test_areas_of_large_sets_have_the_spread_of_the_bootstrap() -> None:
    rng = np.random.default_rng(2)
    patients, each = 1300, 4
    clusters = np.repeat(np.arange(patients), each)
    labels = np.repeat(rng.integers(0, 2, patients), each)
    own = rng.normal(0, 1, patients)[clusters]
    logits = np.stack([np.zeros(len(labels)), 1.5 * labels + own + rng.normal(0, 0.5, len(labels))], axis=1)
    other = logits + rng.normal(0, 0.4, logits.shape)
    models = outcome_of(logits[:, None]), outcome_of(other[:, None])
    rows = compare_areas(labels, clusters, models, ("a", "b"), alpha=0.05, resamples=1000, seed=0)
    assert {row.method for row in rows} == {"Obuchowski"}
    half = slice(0, 4800)  # below the limit: the patient bootstrap
    small = [outcome_of(one[half][:, None]) for one in (logits, other)]
    drawn = compare_areas(labels[half], clusters[half], (small[0], small[1]), ("a", "b"), alpha=0.05, resamples=1000, seed=0)
    assert drawn[1].method == "patient bootstrap"
    widths = [np.ptp(row.difference_interval) for row in (rows[1], drawn[1]) if row.difference_interval is not None]
    assert widths[0] == pytest.approx(widths[1] * math.sqrt(4800 / 5200), rel=0.15)
    plain = compare_areas(labels, None, models, ("a", "b"), alpha=0.05, resamples=1000, seed=0)
    assert np.ptp(rows[1].reference_interval or ()) > 1.4 * np.ptp(plain[1].reference_interval or ())  # copies tell less


# the command


def test_the_command_writes_reports_and_ends_as_the_verdict_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    two(tmp_path, rows_of(BEFORE), rows_of(AFTER))
    words = ["compare", "a.csv", "b.csv", "--cluster", "patient", "--class-margin", "8", "--bootstrap", "1000", "--json"]
    files = ["--junit", "j.xml", "--markdown", "m.md"]
    assert main([*words, "--margin", "4", *files]) == 0
    document = json.loads(capsys.readouterr().out)
    validate(document, schema_of("compare"))
    folder = Path(document["data"]["folder"])
    assert {one.name for one in folder.iterdir()} == {"compare.html", "compare.json", "compare.md"}
    suite = ElementTree.parse("j.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("tests")) == ("0", str(len(document["data"]["verdict"]["parts"]) + 1))
    assert main([*words, "--margin", "0.5", *files]) == 1
    again = json.loads(capsys.readouterr().out)
    suite = ElementTree.parse("j.xml").getroot()[0]
    assert int(suite.get("failures") or 0) >= 2
    assert [case.get("name") for case in suite if case.find("failure") is not None][-1] == "verdict"
    assert again["error"]["code"] == "OCT-E705"
    assert "would settle it" in again["error"]["help"]
    assert "INCONCLUSIVE" in Path("m.md").read_text()


def test_tables_and_runs_are_not_mixed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    two(tmp_path, rows_of(BEFORE), rows_of(AFTER))
    assert main(["compare", "a.csv", "r-0001"]) == 2
    assert main(["compare", "a.csv", "b.csv", "--tta", "hflip"]) == 2
    assert main(["compare", "r-0001", "r-0002", "--margin", "2"]) == 2
    assert capsys.readouterr().err.count("OCT-E102") == 3
    Path("b.csv.gz").write_bytes(gzip.compress(Path("b.csv").read_bytes()))
    assert main(["compare", "a.csv", "b.csv.gz", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], "b.csv.gz is gzip" in error["help"]) == ("OCT-E102", True)


def test_names_in_tables_are_text_in_every_report(tmp_path: Path) -> None:
    rows = [[{**row, "id": f"<b>&|{row['id']}"} for row in rows_of(one)] for one in (BEFORE, AFTER)]
    found = compare_files(*two(tmp_path, rows[0], rows[1]), gate=GATE)
    folder = write_tables_report(found, tmp_path / "reports", "now")
    assert "<b>" not in (folder / "compare.html").read_text()
    ElementTree.fromstring(junit_of(found).encode())
    assert "|<b>" not in markdown_of(found)


def test_the_worked_example_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    page = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8").partition("<!-- test -->")[2]
    python, command = (page.split(fence, 1)[1].split("```", 1)[0] for fence in ("```python\n", "```sh\n"))
    monkeypatch.chdir(tmp_path)
    exec(compile(python, "compare.md", "exec"), {})
    assert main([*command.split()[1:], "--bootstrap", "1000"]) in (0, 1)
    assert "285 rows" in capsys.readouterr().out
    assert main(["compare", "large.csv", "small.csv", "--bootstrap", "1000", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["data"]["verdict"]["word"] in ("inconclusive", "fail")


def test_the_action_gives_octc_what_it_knows() -> None:
    yaml = pytest.importorskip("yaml")
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    step = action["runs"]["steps"][-1]
    used = set(re.findall(r"inputs\.(\w+)", json.dumps(action["runs"])))
    assert used == set(action["inputs"])
    known = (ROOT / "tests" / "house" / "options.json").read_text().partition('"compare"')[2]
    assert all(f'"{word}"' in known for word in re.findall(r"--[a-z]+", step["run"]) if word != "--json")


@pytest.mark.parametrize(
    ("margin", "spoil", "code", "word"),
    [("4", False, 0, "equivalent"), ("0.5", False, 1, "inconclusive"), ("4", True, 3, "error")],
)
def test_the_step_of_the_action_ends_as_the_comparison_does(
    margin: str, spoil: bool, code: int, word: str, tmp_path: Path
) -> None:
    """The very lines of action.yml in a shell: exit code, outputs, summary and JUnit file, and nothing of an earlier run."""
    yaml = pytest.importorskip("yaml")
    step = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"][-1]
    two(tmp_path, rows_of(BEFORE), rows_of(AFTER)[: 590 if spoil else None])
    for name in ("octc-compare.md", "j.xml"):
        (tmp_path / name).write_text("EQUIVALENT, of yesterday")
    inputs = {
        "REFERENCE": "a.csv", "CANDIDATE": "b.csv", "LABELS": "", "KEY": "id", "CLUSTER": "patient", "MARGIN": margin,
        "ARGUMENTS": "--class-margin 8 --bootstrap 1000", "JUNIT": "j.xml",
    }  # fmt: skip
    assert set(step["env"]) == set(inputs)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "octc").write_text(f'#!/bin/sh\nexec {sys.executable} -m octc.cli._app.main "$@"\n')
    (tmp_path / "bin" / "octc").chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    where = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "GITHUB_OUTPUT": str(tmp_path / "output")}
    path = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    line = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]  # as GitHub starts it
    done = subprocess.run(line, env={**path, **inputs, **where}, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "output").read_text() == f"verdict={word}\n"
    summary, suite = (tmp_path / "summary").read_text(), ElementTree.parse(tmp_path / "j.xml").getroot()[0]
    assert "of yesterday" not in summary
    assert (suite.get("errors"), suite.get("failures") == "0") == ("1" if code == 3 else "0", code != 1)
    assert ("OCT-E706" in summary) == ("OCT-E706" in str(ElementTree.tostring(suite))) == (code == 3)


def test_the_action_installs_its_own_version_and_no_package_of_that_name() -> None:
    yaml = pytest.importorskip("yaml")
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert action["inputs"]["package"]["default"] == ""
    line = action["runs"]["steps"][0]["run"].replace("python -m pip install --quiet", "echo")
    for wanted, installed in (("", "/a b/octc[stats,archive]"), ("octc[all]==0.9", "octc[all]==0.9")):
        done = subprocess.run(["bash", "-c", line], env={"PACKAGE": wanted, "GITHUB_ACTION_PATH": "/a b/octc"},
                              capture_output=True, text=True, check=True)  # fmt: skip
        assert done.stdout.strip() == installed


def test_tables_that_memory_has_no_room_for_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten million rows by their number of lines; the hint names how many fit, and fewer scores need less."""
    before, after = tmp_path / "a.csv", tmp_path / "b.csv"
    rows = "id,truth,p_0,p_1\n" + "".join(f"{i},{i % 2},0.{i % 9}1,0.{8 - i % 9}9\n" for i in range(400))
    before.write_text(rows)
    after.write_text(rows)
    assert open_table(before).lines == 401
    monkeypatch.setattr(room, "free_mib", lambda: room.FIXED + 0.07)
    with pytest.raises(OctcError) as error:
        compare_files(before, after)
    assert (error.value.code, error.value.exit_code) == ("OCT-E904", 4)
    fits = int(re.sub(r".*about ([0-9,]+) rows.*", r"\1", error.value.hint or "").replace(",", ""))
    assert 0 < fits < 400
    assert room.needed_mib(fits, 2) <= room.FIXED + 0.07 < room.needed_mib(401, 2)
    assert 2_146 <= room.needed_mib(10_000_000, 4) < 3_072  # measured (docs/experiments.md), and what it may be at most
    assert room.needed_mib(1_000, 4, several=True) > room.needed_mib(1_000, 4)
