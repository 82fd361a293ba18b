"""`octc simplify`: a run of its own that export, evaluation, verification and tuning take; killed and resumed; refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from octc.cli.json_schema import schema_of
from octc.compress.simplify import walk
from octc.datasets.layouts.folders import scan_folder
from octc.export.formats import FORMATS
from octc.export.run import ExportOptions, plan_export
from octc.store.runs import Run, create_run
from octc.train.evaluation.assess import network_of
from octc.train.loop.checkpoint import read_checkpoint
from octc.train.networks.macs import count_macs
from octc.train.recipes.registry import RECIPES
from tests.schema_checks import validate
from tests.tiny_run import make_run, write_patterns

Said = Callable[..., tuple[int, str, str]]
MODEL = "test_efficientnet"  # SiLU, two squeeze-excite modules


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """patterns/ and runs/ with a teacher (r-0001) and its student (r-0002), which learned something."""
    base = tmp_path_factory.mktemp("simplify")
    write_patterns(base / "patterns", patients=8, images=2)
    smoke = RECIPES["smoke"]()
    stage = replace(smoke.student, model=MODEL, size=64, epochs=1, lr=3e-4)
    fields: dict[str, Any] = {
        "recipe": asdict(replace(smoke, teacher=stage, student=stage)), "seed": 0, "protocol": "clean",
        "data_digest": scan_folder(base / "patterns", None).digest,
    }  # fmt: skip
    teacher = make_run(base / "runs", base / "patterns", "teacher", **fields)
    taught = {"teacher_run": teacher.id, "teacher_sha256": read_checkpoint(teacher.path / "train")[0].sha256}
    make_run(base / "runs", base / "patterns", "student", MODEL, **fields, **taught)
    return base


@pytest.fixture
def said(said: Said, place: Path, tmp_path: Path) -> Said:
    """`said` of this folder, beside a copy of the runs."""
    shutil.copytree(place / "runs", tmp_path / "runs")
    return said


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate judges, and accepts: after one epoch on eight images its word depends on how a processor rounds."""
    real = walk._gate
    monkeypatch.setattr(walk, "_gate", lambda *given: replace(real(*given), accepted=True))


WORDS = ("simplify", "r-0002", "--activation", "hard-swish", "--no-se", "--prune", "0.2", "--margin", "40")


@pytest.mark.slow
def test_a_student_is_made_simpler_exported_and_verified(said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate refuses the second step (as on a worse day), which is taken back; the others stay."""
    real, count = walk._gate, iter(range(9))
    monkeypatch.setattr(walk, "_gate", lambda *given: replace(real(*given), accepted=next(count) != 1))
    code, out, err = said(*WORDS, "--json")
    assert code == 0, err
    document = json.loads(out)
    validate(document, schema_of("simplify"))
    data = document["data"]
    assert [(one["step"], one["kept"]) for one in data["steps"]] == [
        ("activation", True), ("squeeze-excite", False), ("channels", True)
    ]  # fmt: skip
    assert "it is taken back" in err
    run = Run(tmp_path / "runs" / document["run_id"])
    known = run.read()
    assert (known["status"], known["kind"], known["teacher_run"]) == ("done", "student", "r-0001-teacher-folder")
    assert known["simplify"]["source"] == "r-0002-student-folder"
    assert [one["stage"] for one in known["stages"]] == ["simplify"] * 3 + ["train", "qat"]
    network, checkpoint, _ = network_of(run)
    assert [step["step"] for step in checkpoint.model_kwargs["simplified"]] == ["activation", "channels"]
    assert checkpoint.model_kwargs == known["recipe"]["student"]["model_kwargs"]
    assert checkpoint.parent is not None
    assert checkpoint.parent["simplified"]["run"] == "r-0002-student-folder"
    assert checkpoint.metrics["macs"] < data["steps"][0]["facts"]["macs"][0]
    assert sum(isinstance(part, torch.nn.SiLU) for part in network.modules()) == 0
    assert (run.path / "eval" / "val-none" / "figures.json").is_file()
    assert not list((run.path / "simplify").glob("*/best-*"))
    for precision in ("--fp32", "--int8"):
        code, out, err = said("export", run.id, precision, "--target", "onnx", "--margin", "50")
        assert code == 0, err
    code, out, err = said("verify", str(run.artifacts / "onnx-int8"), "--bootstrap", "1000", "--margin", "50")
    assert code in (0, 1), err
    assert (run.artifacts / "onnx-int8").is_dir()
    code, out, err = said("eval", run.id)
    assert code == 0, err
    tuned = {path: path.stat().st_mtime_ns for path in (run.path / "qat").rglob("*") if path.is_file()}
    code, _, err = said("simplify", "--resume", run.id)  # what artifacts were made of stays
    assert code == 0, err
    assert tuned == {path: path.stat().st_mtime_ns for path in (run.path / "qat").rglob("*") if path.is_file()}
    code, _, err = said("simplify", "r-0001", "--resume", run.id)
    assert (code, "OCT-E102" in err) == (2, True)
    code, out, err = said("export", run.id, "--target", "torch")
    assert (code, "OCT-E102" in err) == (2, True)


def test_what_has_no_file_of_a_simplified_network_is_refused_before_any_work_with_the_way(tmp_path: Path, said: Said) -> None:
    run = create_run(tmp_path / "runs", "student", "folder")
    run.update(status="done", recipe={"student": {"model_kwargs": {"simplified": [{"step": "activation"}]}}})
    for more in ((), ("--dry-run",)):
        code, _, err = said("export", run.id, "--target", "torch", *more)
        assert (code, "OCT-E102" in err, f"octc export {run.id} --fp32 --target onnx" in err) == (2, True, True), err
    by_name = [name for name, one in FORMATS.items() if one.by_name]
    planned = [job.target for job in plan_export(run, ["all", *by_name], None, ExportOptions())]
    assert set(planned) == {*FORMATS} - {"torch"}


@pytest.mark.slow
@pytest.mark.usefixtures("accepted")
def test_what_was_made_simpler_can_be_made_simpler_again(said: Said, tmp_path: Path) -> None:
    """The steps of both commands stand in the checkpoint, in their order, and make the network again."""
    assert said(*WORDS[:4], "--prune", "0.2", "--margin", "40", "--no-qat")[0] == 0
    code, out, err = said("simplify", "r-0003", "--prune", "0.4", "--margin", "40", "--json")
    assert code == 0, err
    made = json.loads(out)
    taken = made["data"]["steps"]
    assert [(one["step"], one["kept"]) for one in taken] == [("channels", True), ("channels", True)]
    network, checkpoint, _ = network_of(Run(tmp_path / "runs" / made["run_id"]))
    steps = [step["step"] for step in checkpoint.model_kwargs["simplified"]]
    assert steps == ["activation", "channels", "channels", "channels"]
    _, before, _ = network_of(Run(tmp_path / "runs" / "r-0003-student-folder-simple"))
    assert checkpoint.metrics["macs"] < before.metrics["macs"]
    assert count_macs(network, checkpoint.preprocess.size) == checkpoint.metrics["macs"]


@pytest.mark.slow
@pytest.mark.usefixtures("accepted")
def test_killed_after_a_step_and_resumed_it_ends_with_the_same_weights(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*WORDS[:4], "--prune", "0.2", "--margin", "40", "--no-qat")
    assert said(*words)[0] == 0
    whole = Run(tmp_path / "runs" / "r-0003-student-folder-simple")

    class Gone(BaseException):
        pass

    real, seen = walk._gate, []

    def gone(*given: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:
            raise Gone
        return real(*given)

    monkeypatch.setattr(walk, "_gate", gone)
    with pytest.raises(Gone):
        said(*words)
    half = Run(tmp_path / "runs" / "r-0004-student-folder-simple")
    assert not (half.path / "train").exists()
    monkeypatch.setattr(walk, "_gate", real)
    with monkeypatch.context() as patch:  # between the checkpoint of the second step and its line in the stage log
        patch.setattr(Run, "log_stage", lambda *_, **__: (_ for _ in ()).throw(Gone))
        with pytest.raises(Gone):
            said("simplify", "--resume")
    assert [one["step"] for one in half.read()["stages"]] == ["01-activation"]
    assert (half.path / "simplify" / "02-channels" / "checkpoint.json").is_file()
    code, _, err = said("train", "student", "--resume", "r-0004")
    assert (code, "octc simplify --resume r-0004" in err) == (2, True)
    code, _, err = said("simplify", "--resume", "r-0004", "--prune", "0.3")
    assert (code, "OCT-E102" in err) == (2, True)
    weights = half.path / "simplify" / "01-activation" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")  # a damaged step is made again, and is the same
    code, out, err = said("simplify", "--resume")
    assert code == 0, err
    assert "OCT-W306" in err
    assert out.strip().endswith(half.id)
    named = [[(one["stage"], one.get("step"), one["sha256"]) for one in run.read()["stages"]] for run in (half, whole)]
    assert named[0] == named[1]
    assert not list((half.path / "simplify").glob("*/start"))
    assert read_checkpoint(half.path / "train")[0].sha256 == read_checkpoint(whole.path / "train")[0].sha256
    code, _, err = said("train", "student", "--resume", "r-0004", "--epochs", "3", "--allow-change")
    assert (code, "made by octc simplify" in err) == (2, True), err
    code, _, err = said("train", "student", "--resume", "r-0004", "--qat", "--allow-change")
    assert code == 0, err
    assert (half.path / "qat" / "checkpoint.json").is_file()


def test_what_no_student_has_is_refused_before_a_run_is_made(said: Said, tmp_path: Path) -> None:
    for words, wanted in (
        (("r-0001", "--no-se"), "OCT-E102"),
        (("r-0002", "--prune", "0.9"), "OCT-E104"),
        (("r-0002",), "OCT-E102"),
        (("r-0002", "--prune", "0.2", "--budget", "3"), "OCT-E102"),
        (("r-0002", "--budget", "0"), "OCT-E104"),
        (("r-0002", "--activation", "relu", "--epochs", "0"), "OCT-E104"),
        (("--resume", "r-0002"), "OCT-E107"),
        (("--resume", "r-0002", "--margin", "5"), "OCT-E102"),
        (("--resume", "r-0002", "--no-qat"), "OCT-E102"),
    ):
        code, _, err = said("simplify", *words)
        assert (code, wanted in err) == (2, True), (words, err)
    code, out, _ = said("simplify", "r-0002", "--no-se", "--dry-run", "--json")
    assert code == 0
    validate(json.loads(out), schema_of("simplify"))
    assert json.loads(out)["data"]["found"] == {"gates": 2}
    assert sorted(path.name for path in (tmp_path / "runs").glob("r-*")) == ["r-0001-teacher-folder", "r-0002-student-folder"]
    shutil.rmtree(tmp_path / "runs" / "r-0001-teacher-folder")
    code, _, err = said("simplify", "r-0002", "--no-se")
    assert (code, "OCT-E107" in err) == (2, True)


def test_nothing_that_the_gate_accepts_is_said_and_recorded(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = walk._gate
    monkeypatch.setattr(walk, "_gate", lambda *given: replace(real(*given), accepted=False))
    code, _, err = said("simplify", "r-0002", "--activation", "relu", "--no-qat")
    assert (code, "OCT-E405" in err) == (1, True)
    known = Run(tmp_path / "runs" / "r-0003-student-folder-simple").read()
    assert known["status"] == "failed"
    assert [(one["step"], one["kept"]) for one in known["stages"]] == [("01-activation", False)]


@pytest.mark.usefixtures("accepted")
def test_a_budget_is_kept_by_measuring(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time follows the parameters here; the share is the smallest that is within, and is measured once."""
    from octc.export import latency

    monkeypatch.setattr(latency, "_measure", lambda model, _pre, _target: sum(p.numel() for p in model.parameters()) / 1e4)
    code, out, err = said("simplify", "r-0002", "--budget", "9", "--margin", "60", "--no-qat", "--json")
    assert code == 0, err
    data = json.loads(out)["data"]
    assert data["measured"][0]["share"] == 0
    assert data["measured"][0]["ms"] > 9
    assert {one["step"] for one in data["steps"]} == {"channels"}
    assert data["ms"] <= data["budget_ms"] == 9
    assert data["within_budget"] is True


def test_a_run_over_its_budget_stays_and_ends_with_1(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second lot of channels is refused, so what was kept takes longer than what was measured."""
    from octc.export import latency

    real, asked = walk._gate, list[int]()

    def first_only(*given: Any) -> Any:
        asked.append(1)
        return replace(real(*given), accepted=len(asked) == 1)

    monkeypatch.setattr(walk, "_gate", first_only)
    monkeypatch.setattr(latency, "_measure", lambda model, _pre, _target: sum(p.numel() for p in model.parameters()) / 1e4)
    words = ("simplify", "r-0002", "--budget", "5", "--margin", "60", "--no-qat", "--json")
    code, out, err = said(*words)
    found = json.loads(out)
    assert (code, found["error"]["code"]) == (1, "OCT-E604"), err
    assert [one["kept"] for one in found["data"]["steps"]] == [True, False], "the share takes several lots"
    assert found["data"]["within_budget"] is False
    assert found["data"]["ms"] > 5
    validate(found, schema_of("simplify"))
    known = Run(Path("runs") / "r-0003-student-folder-simple").read()
    assert known["status"] == "done"
