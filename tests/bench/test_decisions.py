"""`octc threshold` and `octc abstain` from the validation set to the verdict: stored, obeyed, judged, refused."""

from __future__ import annotations

import csv
import io
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import octc
from octc.bench.parity.box import _decided
from octc.bench.parity.decisions import Answered, judge_decisions
from octc.bench.parity.inference import Records
from octc.bench.report.choose import choose
from octc.bench.report.collect.rules import rules_section
from octc.bench.report.collect.run_summary import read_run_summary
from octc.bench.report.page import Table
from octc.cli._app.main import main
from octc.core.errors import OctcError
from octc.core.files import read_json, write_json
from octc.export import decision
from octc.export.decision import read_costs
from octc.stats.deciding import stated_decision
from octc.stats.decision_rules import Decision
from octc.store.artifacts import MANIFEST, read_artifact
from octc.store.find import Found
from octc.store.oms import SIGNATURE as OMS
from octc.store.runs import Run
from octc.store.signature import SIGNATURE
from tests.bench.conftest import Said
from tests.bench.verify_world import FORGIVING
from tests.house.tree import ROOT


def pictures_of(run: Run) -> list[str]:
    place = Path(run.read()["data_root"])
    return [str(path) for name in ("bright", "dark") for path in sorted((place / name).iterdir())[:6]]


def test_a_point_and_sets_go_from_validation_to_the_verdict(run: Run, said: Said) -> None:
    before = (run.artifacts / "onnx-int8" / MANIFEST).read_bytes()
    code, document = said("threshold", "--class", "dark", "--sensitivity", "80")
    assert code == 0
    assert {one["artifact"] for one in document["data"]["stored"]} == {"onnx-fp32", "onnx-int8"}
    assert said("abstain", "--sets", "lac", "--coverage", "80", "--risk", "60")[0] == 0
    artifact = read_artifact(run.artifacts / "onnx-int8")
    rules = stated_decision(artifact.details, artifact.classes)
    assert rules is not None
    assert rules.sets is not None
    assert rules.refer is not None
    assert [one.name for one in rules.points] == ["dark"]
    assert rules.sets.patients_known
    assert (run.artifacts / "onnx-int8" / MANIFEST).read_bytes() != before

    code, document = said("predict", str(run.artifacts / "onnx-int8"), *pictures_of(run))
    assert code == 0
    for record in document["data"]["records"]:
        assert record["refer"] == bool(record["refer_because"])
        assert set(record["set"]) <= set(artifact.classes)
        reached = record["probabilities"]["dark"] >= rules.points[0].threshold
        assert (record["label"] == "dark") == reached
        assert record["flagged"] == (["dark"] if reached else [])

    code, document = said("verify", *FORGIVING)
    (one,) = document["data"]["artifacts"]
    (found,) = one["rules"]
    assert found["unit"] == "image"
    for side in ("reference", "candidate"):
        promises = {(row["what"], row["name"]): row for row in found[side]["promises"]}
        assert set(promises) == {("sensitivity", "dark"), ("risk", "all"), *(("coverage", name) for name in artifact.classes)}
        for row in promises.values():
            assert row["exact"][0] <= row["value"] <= row["exact"][1]
            assert row["clustered"][0] <= row["exact"][0]
        assert sum(found[side]["set_sizes"]) == one["set"]["n"]
    assert found["change"]["coverage"]["lost"] >= 0
    broken = [row for row in found["candidate"]["promises"] if row["word"] == "broken"]
    assert (code == 0) == (not broken and one["verdict"]["exit_code"] == 0)
    (chosen_on,) = said("verify", "--set", "select", *FORGIVING)[1]["data"]["artifacts"]
    assert chosen_on["rules"] == []  # a rule keeps its promise on the images that it was chosen on


def test_a_broken_promise_ends_a_verification_with_1(run: Run, said: Said) -> None:
    """Limits that promise more than they hold: the coverage of the test set shows it."""
    assert said("abstain", "--sets", "lac", "--coverage", "80", "--together")[0] == 0
    path = run.artifacts / "onnx-int8" / MANIFEST
    value = read_json(path)
    value["details"]["decision"]["image"]["sets"]["limits"] = [0.1] * 4
    write_json(path, value)
    code, document = said("verify", *FORGIVING)
    assert code == 1
    errors = document["error"].get("all", [document["error"]])
    assert "OCT-E710" in {one["code"] for one in errors}
    (found,) = document["data"]["artifacts"][0]["rules"]
    assert any(row["word"] == "broken" for row in found["candidate"]["promises"])
    assert all(row["word"] != "broken" for row in found["reference"]["promises"])
    assert found["change"]["sets"] > 0
    artifact = read_artifact(run.artifacts / "onnx-int8")
    section = rules_section(read_run_summary([Found(run.artifacts / "onnx-int8", artifact)], run.path.parent))
    assert section is not None
    (table,) = [block for block in section.blocks if isinstance(block, Table) and len(block.columns) == 8]
    (row,) = table.rows
    assert (row[0], row[3], row[-1]) == ("onnx-int8", "80", "broken")
    assert row[5].startswith(f"{100 * found['candidate']['promises'][0]['value']:.2f} [")
    choice = choose([Found(run.artifacts / "onnx-int8", artifact)])
    assert choice.chosen is None  # a file whose promise is broken is not deployed, whatever its accuracy is
    assert "coverage 80 % is promised" in choice.candidates[0].why


def test_rules_that_another_process_stores_meanwhile_are_not_lost(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`octc threshold` ends while `octc abstain` looks at the validation set of the same artifact."""
    artifact, place = run.artifacts / "onnx-int8", {"run_dir": run.path.parent}
    measure, others = decision.measured, [octc.PointOptions(class_name="bright", sensitivity=0.99)]

    def overtaken(*words: Any) -> Any:
        found = measure(*words)
        if others:
            octc.fit_rules(artifact, others.pop(), **place)
        return found

    monkeypatch.setattr(decision, "measured", overtaken)
    sets = octc.SetOptions(sets="aps", coverage=0.9)
    with pytest.raises(OctcError) as caught:
        octc.fit_rules(artifact, sets, **place)
    assert caught.value.code == "OCT-E108"
    rules = read_artifact(artifact).details["decision"]["image"]
    assert [point["name"] for point in rules["points"]] == ["bright"]
    assert not rules.get("sets")
    octc.fit_rules(artifact, sets, **place)
    rules = read_artifact(artifact).details["decision"]["image"]
    assert ([point["name"] for point in rules["points"]], rules["sets"]["method"]) == (["bright"], "aps")


def test_python_and_rows_have_the_same_rules(run: Run, said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    octc.fit_rules(run.artifacts / "onnx-int8", octc.SetOptions(sets="aps", coverage=0.9), run_dir=run.path.parent)
    files = pictures_of(run)
    with octc.load(run.artifacts / "onnx-int8") as model:
        answers = model.predict([*files, "absent.png"])
        views = model.predict(files[:1], views="hflip")
    assert all(one.set for one in answers[:-1])  # aps: the likeliest class is always in
    assert [one.refer for one in answers[:-1]] == [len(one.set or ()) != 1 for one in answers[:-1]]
    assert answers[-1].refer is None
    assert views[0].set is None
    assert "OCT-W810" in {code for code, _ in views[0].notes}
    main(["predict", str(run.artifacts / "onnx-int8"), *files, "absent.png", "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["set"].split("|") for row in rows[:-1]] == [list(one.set or ()) for one in answers[:-1]]
    assert [row["refer"] for row in rows] == [*(str(one.refer).lower() for one in answers[:-1]), ""]
    assert {row["flagged"] for row in rows} == {""}
    assert {one.flagged for one in answers} == {None}


def test_an_image_that_reaches_two_operating_points_is_flagged_for_both_in_every_form(
    run: Run, said: Said, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The stated sensitivity is that of the flags: the label names one class of them alone."""
    parquet, artifact = pytest.importorskip("pyarrow.parquet"), run.artifacts / "onnx-int8"
    for name in ("bright", "dark"):
        octc.fit_rules(artifact, octc.PointOptions(class_name=name, sensitivity=0.99), run_dir=run.path.parent)
    files = pictures_of(run)
    with octc.load(artifact) as model:
        answers = model.predict(files)
    assert any(len(one.flagged or ()) == 2 for one in answers)
    assert all(one.label in (one.flagged or (one.label,)) for one in answers)
    main(["predict", str(artifact), *files, "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["flagged"] for row in rows] == ["|".join(one.flagged or ()) for one in answers]
    octc.predict_archive(artifact, files, tmp_path / "rows")
    paths = (tmp_path / "rows").rglob("scans*/**/*.parquet")
    kept = {row["file"]: row["flagged"] for path in paths for row in parquet.read_table(path).to_pylist()}
    assert kept == {one.file: list(one.flagged or ()) for one in answers}
    document = said("predict", str(artifact), *files)[1]["data"]
    assert [record["flagged"] for record in document["records"]] == [list(one.flagged or ()) for one in answers]
    assert document["summary"]["referred"] == sum(record["refer"] for record in document["records"])


def test_archive_rows_have_sets_and_referrals(run: Run, said: Said, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    octc.fit_rules(run.artifacts / "onnx-int8", octc.SetOptions(sets="lac", coverage=0.8), run_dir=run.path.parent)
    files = pictures_of(run)
    octc.predict_archive(run.artifacts / "onnx-int8", files, tmp_path / "rows")
    found = [
        row for path in sorted((tmp_path / "rows").rglob("scans*/**/*.parquet")) for row in parquet.read_table(path).to_pylist()
    ]
    with octc.load(run.artifacts / "onnx-int8") as model:
        answers = {one.file: one for one in model.predict(files)}
    assert len(found) == len(files)
    for row in found:
        assert row["set"] == list(answers[row["file"]].set or ())
        assert row["refer"] == answers[row["file"]].refer


@pytest.mark.slow
def test_what_was_stored_can_be_forgotten(run: Run, said: Said) -> None:
    said("threshold", "--refer", "20")
    said("abstain", "--sets", "lac")
    artifact = read_artifact(run.artifacts / "onnx-fp32")
    assert said("threshold", "--remove")[0] == 0
    kept = stated_decision(read_artifact(run.artifacts / "onnx-fp32").details, artifact.classes)
    assert kept is not None
    assert kept.refer is None
    assert kept.sets is not None
    assert said("abstain", "--remove")[0] == 0
    assert "decision" not in read_artifact(run.artifacts / "onnx-fp32").details
    assert read_artifact(run.artifacts / "onnx-fp32").files == artifact.files


@pytest.mark.parametrize("text", ["{0}", "sep=;\r\n{1}", "{1}"])
def test_costs_are_read_as_every_table_is(text: str, tmp_path: Path) -> None:
    lines = ["x,a,b,refer", "a,0,7,2", "b,3,0,2"]
    (tmp_path / "costs.csv").write_text(text.format("\n".join(lines), "\n".join(lines).replace(",", ";")), "utf-16")
    assert read_costs(tmp_path / "costs.csv", ("a", "b")) == [[0, 7, 2], [3, 0, 2]]


@pytest.mark.slow
def test_costs_come_from_a_table(run: Run, said: Said, tmp_path: Path) -> None:
    names = ["bright", "dark", "lying", "upright"]
    rows = [[name, *[0 if name == other else 10 for other in names], 2] for name in names]
    table = tmp_path / "costs.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([["", *names, "refer"], *rows])
    assert said("threshold", "--costs", str(table))[0] == 0
    artifact = read_artifact(run.artifacts / "onnx-int8")
    rules = stated_decision(artifact.details, artifact.classes)
    assert rules is not None
    assert rules.costs is not None
    assert rules.costs.mean <= rules.costs.plain
    document = said("predict", str(run.artifacts / "onnx-int8"), *pictures_of(run))[1]
    for record in document["data"]["records"]:
        assert record["refer"] == (1 - record["confidence"] > 0.2)
    code, document = said("threshold", "--class", "dark", "--sensitivity", "80")
    assert (code, document["error"]["code"]) == (2, "OCT-E102")
    table.write_text("a,b\n1,2\n")
    said("threshold", "--remove")
    assert said("threshold", "--costs", str(table))[1]["error"]["code"] == "OCT-E209"


@pytest.mark.parametrize(
    ("command", "words", "code"),
    [
        ("threshold", (), "OCT-E102"),
        ("threshold", ("--class", "dark"), "OCT-E102"),
        ("threshold", ("--class", "drusen", "--sensitivity", "90"), "OCT-E104"),
        ("threshold", ("--class", "dark", "--sensitivity", "100"), "OCT-E104"),
        ("abstain", ("--sets", "raps"), "OCT-E104"),
        ("abstain", (), "OCT-E102"),
    ],
)
def test_requests_that_cannot_be_are_refused(run: Run, said: Said, command: str, words: tuple[str, ...], code: str) -> None:
    before = (run.artifacts / "onnx-int8" / MANIFEST).read_bytes()
    exit_code, document = said(command, *words)
    assert (exit_code, document["error"]["code"]) == (2, code)
    assert (run.artifacts / "onnx-int8" / MANIFEST).read_bytes() == before


@pytest.mark.parametrize("name", [SIGNATURE, OMS])
def test_a_signed_artifact_keeps_its_rules_unless_forced(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    signature = run.artifacts / "onnx-int8" / name
    signature.write_text("{}")
    monkeypatch.setattr("octc.store.artifacts.check_signature", lambda *_: None)
    before = (run.artifacts / "onnx-int8" / MANIFEST).read_bytes()
    code, document = said("threshold", str(run.artifacts / "onnx-int8"), "--refer", "10")
    assert (code, document["error"]["code"]) == (2, "OCT-E106")
    assert (run.artifacts / "onnx-int8" / MANIFEST).read_bytes() == before
    assert said("threshold", str(run.artifacts / "onnx-int8"), "--refer", "10", "--force")[0] == 0
    assert not signature.exists()


def test_a_sample_that_is_too_small_warns(run: Run, said: Said) -> None:
    _, document = said("threshold", "--class", "dark", "--sensitivity", "99")
    assert "OCT-W703" in {one["code"] for one in document["warnings"]}
    (point,) = document["data"]["stored"][0]["rules"]["image"]["points"]
    assert not point["shown"]
    assert "cannot show" in point["words"]


def test_sets_that_hold_every_class_for_want_of_patients_warn(run: Run, said: Said) -> None:
    """A few patients of each class cannot promise 99 %: each set would hold all classes, and refer every image."""
    code, document = said("abstain", "--sets", "lac", "--coverage", "99")
    assert code == 0
    told = [one["message"] for one in document["warnings"] if one["code"] == "OCT-W703"]
    assert told
    assert all("99 are needed" in one and "every image will be referred" in one for one in told)
    files = pictures_of(run)
    document = said("predict", str(run.artifacts / "onnx-int8"), *files)[1]["data"]
    assert document["summary"]["referred"] == len(files)


def test_machines_that_cross_a_threshold_alone_differ_in_a_fleet() -> None:
    """The likeliest class is the same on both; one of them reaches the operating point, or a confidence, and the other not."""
    rules = Decision(chosen_on="v", split_digest="d", time_utc="t", sets=stated_sets())
    logits = np.log(np.array([[0.6, 0.4], [0.4, 0.6], [0.501, 0.499]], np.float32))[:, None]
    other = np.log(np.array([[0.6, 0.4], [0.4, 0.6], [0.499, 0.501]], np.float32))[:, None]
    records = Records(("a", "b", "c"), (0, 1, 0), (None,) * 3, logits, ("identity",), "x", {})
    assert _decided(records, rules, ("a", "b")) == [0, 1, 0]
    assert _decided(replace(records, logits=other), rules, ("a", "b")) == [0, 1, 1]
    strict = msgspec.structs.replace(rules, sets=msgspec.structs.replace(rules.sets, limits=[0.45, 0.45]))
    assert _decided(records, strict, ("a", "b")) == [0, 1, 2]  # empty set: the class is the same, and it is referred


def test_int8_with_other_answers_is_what_the_change_counts() -> None:
    """Reference and candidate differ in one image of four: counted as lost coverage and as another set."""
    rule = Decision(
        chosen_on="v", split_digest="d", time_utc="t",
        sets=stated_sets(),
    )  # fmt: skip
    one = np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.1, 0.9]])
    two = one.copy()
    two[0] = [0.1, 0.9]
    labels, who = np.array([0, 1, 0, 1]), ("p", "q", "r", "s")
    sides = Answered(one, labels, who, ("a", "b")), Answered(two, labels, who, ("a", "b"))
    found = judge_decisions("image", sides, (rule, rule))
    assert found is not None
    assert found.change is not None
    assert found.change.coverage is not None
    assert (found.change.coverage.lost, found.change.coverage.gained, found.change.sets, found.change.labels) == (1, 0, 1, 1)
    assert judge_decisions("image", sides, (None, None)) is None


def test_a_risk_is_chosen_anew_and_judged_where_other_rules_change_the_answers(run: Run) -> None:
    place = {"run_dir": run.path.parent}
    artifact = run.artifacts / "onnx-int8"
    (before,) = octc.fit_rules(artifact, octc.SetOptions(risk=0.2), **place)
    (after,) = octc.fit_rules(artifact, octc.PointOptions(class_name="dark", sensitivity=0.99), **place)
    rules = after.rules["image"]
    assert rules.refer is not None
    assert rules.refer != before.rules["image"].refer
    assert any(rules.refer.words in line for line in after.words)
    values = np.tile([0.6, 0.4], (40, 1))
    side = Answered(values, np.zeros(40, np.int64), tuple(f"p{k}" for k in range(40)), ("bright", "dark"))
    point = msgspec.structs.replace(rules.points[0], threshold=0.3)
    found = judge_decisions("image", (side, side), (None, msgspec.structs.replace(rules, points=[point])))
    assert found is not None
    assert found.candidate is not None
    risk = next(one for one in found.candidate.promises if one.what == "risk")
    assert (risk.found.value, found.candidate.accuracy) in ((1.0, 0.0), (None, 0.0))


def stated_sets() -> Any:
    head = {"chosen_on": "v", "split_digest": "d", "time_utc": "t"}
    sets = {
        "method": "lac", "coverage": 0.5, "by": "class", "limits": [0.5, 0.5], "images": [9, 9], "patients": [9, 9],
        "short": [], "patients_known": True,
    }  # fmt: skip
    found = stated_decision({"decision": {"image": {**head, "sets": sets}}}, ("a", "b"))
    assert found is not None
    return found.sets


def test_the_example_of_the_page_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """docs/abstention.md: its block, command after command."""
    page = (ROOT / "docs" / "abstention.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- test: rules -->\n```sh\n(.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").symlink_to(run.read()["data_root"])
    said = {}
    for line in block.strip().splitlines():
        words = shlex.split(line)[1:]
        assert main(words) in ((0, 1) if words[0] == "verify" else (0,)), line
        said[words[0] + words[1]] = capsys.readouterr()
    assert "cannot show a sensitivity of 98 %" in said["threshold--class"].err
    rows = list(csv.DictReader(io.StringIO(next(one.out for name, one in said.items() if name.startswith("predict")))))
    assert {row["refer"] for row in rows} <= {"true", "false"}
    assert all(row["set"] for row in rows)
    verdict = next(one.out for name, one in said.items() if name.startswith("verify"))
    assert "promised 80 %" in verdict
    assert "promised 98 %" in verdict
