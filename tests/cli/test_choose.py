"""`octc choose`: one file to deploy, from what lies beside the artifacts."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octc.bench.timing.result import keep_earlier
from octc.cli._app.main import main
from octc.cli.json_schema import schema_of
from octc.core.files import read_json, write_json
from octc.store.artifacts import MANIFEST, artifact_sha256, read_artifact
from octc.store.runs import Run
from octc.store.verdicts import write_verdict
from tests.bench.test_bench_schema import EXAMPLE
from tests.schema_checks import validate
from tests.tiny_artifacts import shared_run

Said = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


@pytest.fixture
def run(made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy without what was found of it before, and with three of its artifacts."""
    monkeypatch.chdir(tmp_path)
    copy = Run(Path(shutil.copytree(made.path, tmp_path / "runs" / made.id)))
    for folder in copy.artifacts.iterdir():
        if folder.name not in ("onnx-fp32", "onnx-int8", "openvino-int8"):
            shutil.rmtree(folder)
    return copy


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def call(*words: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = main(["choose", *words, "--json"])
        document = json.loads(capsys.readouterr().out)
        validate(document, schema_of("choose"))
        return code, document["data"]

    return call


def judge(run: Run, name: str, word: str, *, exploratory: bool = False) -> None:
    """What octc verify stores of a claim against the FP32 file, as far as it is read here."""
    folder, reference = run.artifacts / name, run.artifacts / "onnx-fp32"
    code = 0 if word in ("equivalent", "non_inferior") else 1
    document = {
        "against": "fp32", "reference": {"artifact_sha256": artifact_sha256(reference)}, "claims": [], "tta": [],
        "set": {"name": "test", "n": 120}, "plan": {"margin_pp": 2.0}, "time_utc": "2026-11-28T10:00:00Z",
        "verdict": {"word": word, "exit_code": code, "exploratory": exploratory},
    }  # fmt: skip
    write_verdict(folder, name, artifact_sha256(folder), "test", document, None)


def time(run: Run, name: str, p50: float, status: str = "VALID", profile: str = "standard") -> None:
    """What octc bench stores of one image at a time."""
    folder = run.artifacts / name
    document = copy.deepcopy(EXAMPLE)
    document["rows"] = document["rows"][:1]
    document["rows"][0].update(scope="host", status=status, reasons=[] if status == "VALID" else ["foreign_load"])
    document["rows"][0]["latency_ms"]["p50"] = {"value": p50, "ci95": None}
    document["artifacts"][0]["sha256"] = artifact_sha256(folder)
    document["settings"]["profile"] = profile
    document["machine"]["cpu_model"] = "a processor"
    write_json(folder / "bench-here.json", document)


def test_the_quickest_file_that_was_shown_to_be_as_good_is_named(run: Run, said: Said) -> None:
    for name, p50 in (("onnx-fp32", 4.0), ("onnx-int8", 7.0), ("openvino-int8", 2.0)):
        time(run, name, p50)
    judge(run, "onnx-int8", "equivalent")
    judge(run, "openvino-int8", "non_inferior")
    code, found = said(str(run.artifacts))
    assert (code, found["artifact"], found["provisional"], found["reasons"]) == (0, "openvino-int8", False, [])
    which, why, unknown = found["sentences"]
    assert "openvino-int8" in which
    assert "MiB" in which
    assert "margin 2 pp" in why
    assert "2 ms" in why
    assert "a processor" in unknown
    assert {one["name"]: one["state"] for one in found["candidates"]} == {
        "onnx-fp32": "reference", "onnx-int8": "shown", "openvino-int8": "shown",
    }  # fmt: skip
    time(run, "onnx-fp32", 1.0)  # a float file that is quicker than every INT8 file
    assert said(str(run.artifacts))[1]["artifact"] == "onnx-fp32"


def test_a_file_with_a_verdict_against_it_is_never_named(run: Run, said: Said) -> None:
    for name, p50 in (("onnx-fp32", 4.0), ("onnx-int8", 1.0), ("openvino-int8", 2.0)):
        time(run, name, p50)
    judge(run, "onnx-int8", "inferior")
    judge(run, "openvino-int8", "fail")
    assert said(str(run.artifacts))[1]["artifact"] == "onnx-fp32"
    code, found = said(str(run.artifacts / "onnx-int8"))
    assert (code, found["artifact"], found["candidates"][0]["state"]) == (1, None, "refused")
    assert "inferior" in found["sentences"][1]


def test_of_two_times_of_a_machine_the_later_one_counts_whatever_its_clock_said(run: Run, said: Said) -> None:
    time(run, "onnx-int8", 3.0)
    judge(run, "onnx-int8", "equivalent")
    place = run.artifacts / "onnx-int8" / "bench-here.json"
    keep_earlier(place)
    write_json(place, read_json(place) | {"run_id": "b-1970", "started_utc": "1970-01-01T00:01:00Z"})
    rows = read_json(place)["rows"]
    rows[0]["latency_ms"]["p50"]["value"] = 8.0
    write_json(place, read_json(place) | {"rows": rows})
    assert len(list(place.parent.glob("bench-here*.json"))) == 2
    known = {one["name"]: one["p50_ms"] for one in said(str(run.artifacts))[1]["candidates"]}
    assert known["onnx-int8"] == 8.0


@pytest.mark.parametrize(("change", "word"), [
    (lambda run: time(run, "openvino-int8", 2.0, "INVALID"), "foreign_load"),
    (lambda run: (run.artifacts / "openvino-int8" / "bench-here.json").unlink(), "not measured"),
    (lambda run: time(run, "openvino-int8", 2.0, profile="quick"), "quick profile"),
])  # fmt: skip
def test_a_choice_without_valid_timings_is_provisional(
    run: Run, said: Said, change: Callable[[Run], object], word: str
) -> None:
    for name in ("onnx-fp32", "onnx-int8", "openvino-int8"):
        time(run, name, 3.0 + len(name))
    judge(run, "onnx-int8", "equivalent")
    judge(run, "openvino-int8", "equivalent")
    change(run)
    _, found = said(str(run.artifacts))
    assert (found["artifact"], found["provisional"]) == ("openvino-int8", True)
    assert word in found["sentences"][2]
    assert "octc bench" in found["sentences"][2]


@pytest.mark.parametrize(("word", "exploratory"), [("inconclusive", False), ("equivalent", True), (None, False)])
def test_what_was_not_shown_as_planned_waits_behind_its_reference(
    run: Run, said: Said, word: str | None, exploratory: bool
) -> None:
    shutil.rmtree(run.artifacts / "onnx-int8")
    time(run, "onnx-fp32", 4.0)
    time(run, "openvino-int8", 1.0)
    if word is not None:
        judge(run, "openvino-int8", word, exploratory=exploratory)
        _, found = said(str(run.artifacts))
        assert (found["artifact"], found["provisional"]) == ("onnx-fp32", True)
        assert "openvino-int8" in found["sentences"][2]
    _, found = said(str(run.artifacts / "openvino-int8"))
    assert (found["artifact"], found["provisional"]) == ("openvino-int8", True)
    assert "octc verify" in found["sentences"][2]


def test_a_verdict_about_another_file_counts_for_nothing(run: Run, said: Said) -> None:
    judge(run, "openvino-int8", "equivalent")
    manifest = run.artifacts / "openvino-int8" / MANIFEST
    manifest.write_text(manifest.read_text() + "\n")
    assert read_artifact(run.artifacts / "openvino-int8").name == "openvino-int8"
    _, found = said(str(run.artifacts))
    assert all(one["state"] == "open" for one in found["candidates"])
    assert found["provisional"]
