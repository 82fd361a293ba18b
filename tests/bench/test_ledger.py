"""What is planned stays, what is exploratory says so, and every reading of the test images is counted, in every paper."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octc.bench.parity.plan_lock import PLAN
from octc.bench.report.checklists import ANSWERED, HINT, OPEN, counted, filled, is_filler, state
from octc.bench.report.collect.accuracy import verdict_section
from octc.bench.report.collect.run_summary import read_run_summary
from octc.bench.report.collect.speed import summary_section
from octc.bench.report.model_card import facts
from octc.bench.report.page import Table
from octc.bench.timing.verdicts import stored_verdict
from octc.cli._app.main import main
from octc.cli.explain import entry_of
from octc.core.files import sha256_file
from octc.datasets.split import read_split
from octc.runtimes.graph_input import GraphInput, read_graph_input
from octc.schemas.logs import Reading
from octc.store.find import find_artifacts
from octc.store.runs import Run
from octc.store.test_set_log import LOG, log_reading, read_log
from octc.store.verdicts import read_verdict
from tests.bench.verify_world import FORGIVING

Said = Callable[..., "tuple[int, Any, str]"]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """`octc WORDS --json` in this process: exit code, document, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, Any, str]:
        code = main([*words, "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out), err

    return call


def stored(run: Run) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run.artifacts / "onnx-int8" / "verify.json").read_text())
    return value


def tables(run: Run) -> list[Table]:
    summary = read_run_summary(find_artifacts(run.id, run.path.parent, {})[0], run.path.parent)
    made = [summary_section(summary), verdict_section(summary)]
    return [block for section in made for block in section.blocks if isinstance(block, Table)]


def test_without_options_the_locked_plan_is_judged_and_never_overwritten(run: Run, said: Said) -> None:
    assert said("verify", *FORGIVING)[0] == 0
    planned = stored(run)["test"]
    assert (planned["verdict"]["exploratory"], planned["plan"]["margin_pp"]) == (False, 10)
    code, again, _ = said("verify")  # the margins of the command line are forgotten, those of the plan are not
    (one,) = again["data"]["artifacts"]
    assert code == 0
    assert (one["plan"]["margin_pp"], one["plan"]["class_margin_pp"], one["plan"]["ece_slack"]) == (10, 30, 0.03)
    assert (one["verdict"]["exploratory"], one["verdict"]["word"]) == (False, planned["verdict"]["word"])
    assert stored(run)["test"] == planned
    for key in ("verdict", "accuracy", "classes", "plan"):  # to the last bit: the resamples too
        assert stored(run)["repeated"][key] == planned[key]
    code, other, _ = said("verify", "--margin", "0.5")
    (one,) = other["data"]["artifacts"]
    assert (code, one["verdict"]["word"], one["verdict"]["exploratory"]) == (1, "inconclusive", True)
    assert "margin 10.0 -> 0.5" in one["verdict"]["exploratory_reason"]
    assert (one["plan"]["margin_pp"], one["plan"]["class_margin_pp"]) == (0.5, 30)  # the rest is the plan's
    assert "(exploratory)" in other["data"]["summary"][-1]["verdict"]
    assert "(exploratory)" in other["error"]["message"]
    assert "without margins" in other["error"]["help"]  # and not: more images
    assert "images" not in other["error"]["help"]
    assert stored(run)["test"] == planned
    assert [one["plan"]["margin_pp"] for one in stored(run)["exploratory"]] == [0.5]
    assert said("verify", "--margin", "0.5")[0] == 1
    assert said("verify", "--margin", "10")[1]["data"]["artifacts"][0]["verdict"]["exploratory"] is False  # stated, and equal
    assert said("verify", "--margin", "0.4")[0] == 1
    assert [one["plan"]["margin_pp"] for one in stored(run)["exploratory"]] == [0.5, 0.4]
    assert stored(run)["test"] == planned
    rows = read_log(run.path).readings
    assert [one.plan for one in rows] == [
        "planned", "planned", "exploratory", "exploratory", "planned", "exploratory"
    ]  # fmt: skip
    assert {(one.command, one.part, one.images) for one in rows} == {("verify", "test", planned["set"]["n"])}
    assert stored_verdict(find_artifacts(str(run.artifacts / "onnx-int8"), run.path.parent, {})[0][0]).shown == planned[
        "verdict"
    ]["word"].replace("_", " ")


def test_card_and_report_count_every_reading_and_mark_what_was_not_planned(run: Run, said: Said, tmp_path: Path) -> None:
    for when in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"):
        log_reading(run.path, Reading(when, "eval", "test", 168, "d", {"weights": "1"}, {"tta": "none"}))
    assert said("verify", *FORGIVING)[1]["data"]["uses_of_test"] == 2
    assert said("verify", "--margin", "0.5")[1]["data"]["test_set_log"]["readings"] == 4
    assert said("report", run.id, "-o", str(tmp_path / "r"))[0] == 0
    card = (tmp_path / "r" / "model-card.md").read_text()
    assert "by verify alone" not in card
    for word in ("read 4 times", "octc eval 2", "octc verify 2", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "exploratory"):
        assert word in card
    for name in ("model-card.md", "report.md", "report.html", "report.json"):
        assert "(exploratory)" in (tmp_path / "r" / name).read_text(), name
    verdicts = tables(run)[1]
    at = {column: k for k, column in enumerate(verdicts.columns)}
    shown = [(row[at["margin, class margin, pp"]], row[at["claim"]], row[at["verdict"]]) for row in verdicts.rows]
    assert [margins for margins, _, _ in shown] == ["10, 30", "0.5, 30"]
    assert {claim for _, claim, _ in shown} == {"non-inferior"}
    assert ["(exploratory)" in word for _, _, word in shown] == [False, True]


def test_a_reference_that_was_measured_has_its_accuracy(run: Run, said: Said) -> None:
    said("verify", *FORGIVING)
    summary = tables(run)[0]
    row = next(row for row in summary.rows if row[0] == "onnx-fp32")
    assert row[2].startswith(f"{stored(run)['test']['accuracy']['reference']:.2f} [")
    assert row[4] == "reference"
    found = find_artifacts(str(run.artifacts / "onnx-fp32"), run.path.parent, {})[0][0]
    assert stored_verdict(found).word == "reference"


def test_a_call_that_is_killed_between_plan_and_verdict_leaves_the_plan(run: Run, said: Said, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from octc.bench.parity import verify; from octc.cli._app.main import main\n"
        "verify.measure_everyone = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main(sys.argv[1:])"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, "verify", *FORGIVING], cwd=tmp_path, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert (run.path / PLAN).is_file()
    assert not (run.artifacts / "onnx-int8" / "verify.json").exists()
    code, document, _ = said("verify")
    (one,) = document["data"]["artifacts"]
    assert (code, one["verdict"]["exploratory"], one["plan"]["margin_pp"]) == (0, False, 10)
    assert (document["data"]["uses_of_test"], document["data"]["test_set_log"]["readings"]) == (1, 2)


def test_what_an_older_octc_wrote_over_the_plan_is_read_as_exploratory(run: Run, said: Said) -> None:
    said("verify", *FORGIVING)
    value = stored(run)
    value["test"]["verdict"]["exploratory"] = True
    for key in ("repeated", "exploratory"):
        del value[key]
    place = run.artifacts / "onnx-int8"
    (place / "verify.json").write_text(json.dumps(value))
    found = read_verdict(place, sha256_file(place / "artifact.json"))
    assert found is not None
    assert (found["test"], len(found["exploratory"]), found["repeated"]) == (None, 1, None)
    assert stored_verdict(find_artifacts(str(place), run.path.parent, {})[0][0]).shown.endswith("(exploratory)")
    said("verify")
    assert stored(run)["test"]["verdict"]["exploratory"] is False


def test_an_artifact_without_its_run_says_that_later_readings_are_not_known(run: Run, said: Said, tmp_path: Path) -> None:
    said("verify", *FORGIVING)
    shutil.copytree(run.artifacts / "onnx-int8", tmp_path / "box" / "onnx-int8")
    shutil.move(run.path, tmp_path / "away")
    summary = read_run_summary(find_artifacts(str(tmp_path / "box" / "onnx-int8"), tmp_path / "none", {})[0], tmp_path / "none")
    text = facts(summary)["test images"]
    assert "read 1 time" in text
    assert "not known" in text
    assert "selection" not in facts(summary)  # what chose the epoch stands in the run


def test_whoever_reads_is_in_the_log(run: Run, said: Said, tmp_path: Path) -> None:
    parts, root = read_split(run.split).parts, Path(run.read()["data_root"])
    mine = [str(root / sample.path) for sample in (*parts["test"][:3], parts["train"][0])]
    copied = shutil.copy(root / parts["test"][3].path, tmp_path)
    assert said("predict", str(run.artifacts / "onnx-int8"), *mine, str(copied))[0] == 0
    assert said("predict", str(run.artifacts / "onnx-int8"), mine[-1])[0] == 0  # a training image is no reading
    assert said("compare", *(str(run.artifacts / name) for name in ("onnx-fp32", "onnx-int8")))[0] == 0
    assert said("compare", *(str(run.artifacts / name) for name in ("onnx-fp32", "onnx-int8")), "--split", "select")[0] == 0
    said("verify", *FORGIVING)
    assert said("report", run.id, "--photos", "-o", str(tmp_path / "photos"))[0] == 0
    assert said("report", run.id, "--photos", "-o", str(tmp_path / "photos"))[0] == 2  # it is there: nothing is shown
    rows = read_log(run.path).readings
    assert [one.command for one in rows] == ["predict", "compare", "compare", "verify", "report --photos"]
    assert [one.images for one in rows] == [4, *[len(parts["test"])] * 4]
    card = (tmp_path / "photos" / "model-card.md").read_text()
    for word in ("read 5 times", "octc predict 1", "octc compare 2", "octc verify 1", "octc report --photos 1"):
        assert word in card


def test_the_select_set_is_no_reading(run: Run, said: Said) -> None:
    said("verify", "--set", "select", *FORGIVING)
    assert read_log(run.path).readings == ()
    assert (run.path / LOG).is_file()


def test_the_card_says_what_to_feed_as_the_file_says_it(run: Run, said: Said, tmp_path: Path) -> None:
    place = run.artifacts / "onnx-int8"
    found = find_artifacts(str(place), run.path.parent, {})[0][0]
    assert read_graph_input(place, found.artifact) == GraphInput("image", "uint8", ("batch", "1", "32", "32"))
    assert said("report", run.id, "-o", str(tmp_path / "r"))[0] == 0
    card = (tmp_path / "r" / "model-card.md").read_text()
    for word in ("image: uint8", "not normalised", "antialiased", "32 x 32 px", "Pillow"):
        assert word in card, word
    assert "| onnx-fp32 | image | uint8 |" in card


def test_filler_is_no_answer(run: Run, said: Said) -> None:
    said("verify", *FORGIVING)
    summary = read_run_summary(find_artifacts(run.id, run.path.parent, {})[0], run.path.parent)
    known = facts(summary)
    for name, total in (("claim", 44), ("tripod-ai", 52)):
        counts = counted(name, known)
        assert sum(counts.values()) == total
        rows = filled(name, known)[1]
        assert sum(not text.startswith("for the author") for _, _, text in rows) == counts[ANSWERED] < total / 2
        assert counts[HINT] > 0
    assert not [text for text in known.values() if "None" in text or "null" in text]
    assert state({"labels": "labels as the data set gives them"}, "labels") == HINT
    assert state({}, "labels") == state({"labels": " "}, "labels") == OPEN
    for text in ("not stated", "to be filled in by the maker", "None", "unknown", "n/a", "-"):
        assert is_filler(text), text
        assert state({"model": text}, "model") == HINT
    assert not is_filler("classes None, Mild, Severe")


def test_words_that_a_verdict_is_made_of_are_explained(run: Run, said: Said) -> None:
    words: set[str] = set()
    for more in (FORGIVING, ("--margin", "0.5", "--robustness"), ("--margin", "0.5", "--class-margin", "0.5")):
        (one,) = said("verify", *more)[1]["data"]["artifacts"]
        words |= {one["verdict"]["word"], *one["verdict"]["reasons"], *(part["name"] for part in one["verdict"]["parts"])}
        words |= {str(one["accuracy"]["decided_by"]), str(one["golden"]["tolerance_id"])}
        words |= {row["guard_reason"] for row in one["classes"]} | {row["pair_id"] for row in one["backends"]}
        words |= {one["auc"]["macro"]["reason"], one["accuracy"]["bootstrap_reason"]}
        words |= {one["calibration"][side]["temperature_fit"]["reason"] for side in ("reference", "candidate")}
    named = ("class ", "harm ")  # of a class that has its own name
    for word in sorted(word.removesuffix(" on select") for word in words - {None}):
        assert entry_of(next((head.strip() for head in named if word.startswith(head)), word))["why"], word
