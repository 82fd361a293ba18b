"""`octc compare`: two runs and an exported file on the same images; what cannot be compared is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octc.export.formats import choose_opset
from octc.export.pipeline import export_artifact
from octc.export.source import read_source
from octc.export.targets import Job, Workshop
from octc.store.runs import Run, scan_runs
from octc.train.evaluation.outcome import evaluate, read_predictions
from octc.train.loop.checkpoint import read_checkpoint, write_checkpoint
from tests.cli.conftest import Said
from tests.tiny_artifacts import DEVICE
from tests.tiny_run import make_run, write_patterns

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher (r-0001) and a student (r-0002) with an ONNX file, on one split."""
    folder = tmp_path_factory.mktemp("compare")
    write_patterns(folder / "set", patients=6, images=2)
    make_run(folder / "runs", folder / "set", kind="teacher")
    run = make_run(folder / "runs", folder / "set", model="test_efficientnet")
    checkpoint, state = read_checkpoint(run.path / "train")
    write_checkpoint(run.path / "train", state, replace(checkpoint, metrics={"parameters": 1000, "macs": 5000}))
    shop = Workshop(read_source(run, folder / "set"), folder, None)
    export_artifact(shop, Job("onnx", "fp32", choose_opset("onnx", None)), DEVICE)
    return folder


def runs(place: Path) -> tuple[Run, Run]:
    student, teacher = scan_runs(place / "runs")
    return teacher, student


def test_f59_two_runs_on_the_test_part_and_their_files(place: Path, said: Said) -> None:
    teacher, student = runs(place)
    code, out, err = said("compare", student.id, "r-0001", "--run-dir", str(place / "runs"))
    assert code == 0, err
    assert f"the teacher {teacher.id} is the reference" in err
    folder = Path(out.splitlines()[-1])
    document: dict[str, Any] = json.loads((folder / "compare.json").read_text())
    for key, run in (("reference", teacher), ("candidate", student)):
        stored = evaluate(read_predictions(run.path / "eval" / "test-none"))
        assert document[key]["figures"]["accuracy"] == stored.figures.accuracy
        assert document[key]["loss"] == pytest.approx(stored.loss)
    assert document["candidate"]["size"]["parameters"] == 1000
    assert document["candidate"]["size"]["file_mib"] > 0.1
    assert document["times_smaller"]["parameters"] is None  # the teacher's are not stored: unknown, not guessed
    with (folder / "model_comparison.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["teacher"] == teacher.id
    assert "octc export" in err  # how latency would be known
    code, again, err = said("compare", teacher.id, student.id, "--run-dir", str(place / "runs"), "--json")
    assert code == 0
    assert err.count("stored answers") == 2
    assert json.loads(again)["data"]["pair"] == document["pair"]
    assert [entry["stage"] for entry in student.read()["stages"]].count("evaluated") == 1


def test_an_exported_file_against_its_run(place: Path, said: Said) -> None:
    """ONNX in FP32 answers as the run does, and its measured time is shown where octc bench left one."""
    _, student = runs(place)
    artifact = student.artifacts / "onnx-fp32"
    row = {
        "id": "x", "artifact": "onnx-fp32", "scenario": "single_stream", "scope": "device", "batch": 1, "status": "VALID",
        "latency_ms": {"p50": {"value": 1.25}},
    }  # fmt: skip
    bench = artifact / "bench-box.json"
    bench.write_text(json.dumps({"rows": [row], "machine": {"name": "box"}, "started_utc": "2026-11-26T00:00:00Z"}))
    words = ("compare", student.id, str(artifact), "--run-dir", str(place / "runs"), "--data", str(place / "set"))
    code, out, err = said(*words)
    bench.unlink()
    assert code == 0, err
    document = json.loads((Path(out.splitlines()[-1]) / "compare.json").read_text())
    assert document["agreement"] == 1.0
    assert document["candidate"]["facts"]["weights"]["licence"] == "MIT"  # the start weights' goes along into the artifact
    assert (document["pair"]["lost"], document["pair"]["gained"]) == (0, 0)
    assert document["candidate"]["loss"] == pytest.approx(document["reference"]["loss"], abs=1e-4)
    assert document["candidate"]["latency"][0]["p50_ms"]["value"] == 1.25
    assert "1.25" in out


def test_runs_of_other_images_are_refused(place: Path, said: Said) -> None:
    _, student = runs(place)
    write_patterns(place / "other", patients=5, images=2)
    other = make_run(place / "elsewhere", place / "other")
    code, _, err = said("compare", str(student.path), str(other.path))
    assert (code, "OCT-E706" in err) == (3, True)
    assert "--split test (or official)" in err


@pytest.mark.parametrize(
    ("words", "code"), [(("r-0001", "r-0077"), "OCT-E107"), (("r-0001", "r-0002", "--split", "all"), "OCT-E104"),
                        (("r-0001", "r-0002", "--tta", "9"), "OCT-E104"), (("r-0001",), "OCT-E101")],
)  # fmt: skip
def test_what_is_not_there_is_a_mistake_of_the_command(
    place: Path,
    said: Said,
    words: tuple[str, ...],
    code: str,
) -> None:
    exit_code, _, err = said("compare", *words, "--run-dir", str(place / "runs"))
    assert (exit_code, code in err) == (2, True), err
