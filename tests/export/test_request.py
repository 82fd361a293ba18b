"""`octc.export` of a run: its folder, its id or the run itself to artifacts that `octc.load` opens."""

from __future__ import annotations

from pathlib import Path

import pytest

import octc
from octc.core.progress import LogReporter
from octc.export.formats import FORMATS
from octc.export.run import export_run, plan_export
from octc.export.tensorrt.engines import build_engines_of, target_of
from octc.store.artifacts import Artifact
from octc.store.runs import Run


def test_a_run_is_exported_in_int8_behind_a_gate_and_its_file_answers(
    run: Run, patterns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.path.parent.parent)
    told = LogReporter()
    (folder,) = octc.export(run.id, ["onnx"], gate=octc.Gate(margin=5), reporter=told)
    assert folder == Path("runs") / run.id / "artifacts" / "onnx-int8"
    with octc.load(folder) as model:
        assert model.artifact.details["gate"]["accepted"]
        assert model.artifact.details["gate"]["n"] == 32
        picture = next((patterns / "dark").glob("*.png"))
        assert model.predict([picture])[0].label == "dark"
    assert [entry["stage"] for entry in run.read()["stages"]] == ["export"]
    codes = {one["code"] for one in told.warnings} - {"OCT-W611"}  # which of the two files is faster is not asked here
    assert codes == {"OCT-W405"}  # 32 images do not settle it


def test_a_run_takes_a_folder_float_files_and_a_place_of_its_own(run: Run, tmp_path: Path) -> None:
    folders = octc.export(run.path, ["torch", "onnx"], "fp32", out=tmp_path / "mine")
    assert folders == [tmp_path / "mine" / "torch-fp32", tmp_path / "mine" / "onnx-fp32"]
    assert not run.artifacts.exists()
    with pytest.raises(octc.OctcError) as caught:
        octc.export(Run(run.path), ["onnx"], "fp32", out=tmp_path / "mine")
    assert caught.value.code == "OCT-E106"
    again = octc.export(
        Run(run.path), ["onnx"], "fp32", out=tmp_path / "mine", force=True, options=octc.ExportOptions(opset=18)
    )
    with octc.load(again[0]) as model:
        assert model.artifact.details["opset"] == 18


@pytest.mark.parametrize(
    ("targets", "precision", "more", "code"),
    [
        (["coreml"], "int8", {}, "OCT-E104"),
        (["torch"], "int8", {}, "OCT-E104"),
        (["onnx"], "fp32", {"gate": octc.Gate()}, "OCT-E102"),
        (["onnx"], "fp32", {"options": octc.ExportOptions(quantiser="octc")}, "OCT-E102"),
        (["onnx"], "int8", {"options": octc.ExportOptions(quantiser="mine")}, "OCT-E104"),
        (["onnx"], "int8", {"options": octc.ExportOptions(opset=5)}, "OCT-E401"),
        (["onnx"], "int8", {"options": octc.ExportOptions(data="nowhere")}, "OCT-E230"),
        (["tensorrt"], "int8", {"options": octc.ExportOptions(require_engine=True)}, "OCT-E410"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    run: Run, targets: list[str], precision: str, more: dict[str, object], code: str
) -> None:
    with pytest.raises(octc.OctcError) as caught:
        octc.export(run, targets, precision, **more)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.hint
    assert not run.artifacts.exists()


def test_no_such_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(octc.OctcError) as caught:
        octc.export(tmp_path, ["onnx"])
    assert caught.value.code == "OCT-E107"


def test_a_plan_names_every_target_once(run: Run) -> None:
    options = octc.ExportOptions()
    jobs = plan_export(run, ["onnx", "all", "onnx"], None, options)
    assert len(jobs) == len({job.name for job in jobs})
    assert {job.target for job in jobs} == {name for name, one in FORMATS.items() if not one.by_name}


def test_named_processors_get_the_file_that_is_theirs(run: Run) -> None:
    for cpu, target in (("", "openvino"), ("x86", "openvino"), ("arm", "openvino-arm"), ("arm-nofp16", "openvino-arm")):
        options = octc.ExportOptions(cpu=cpu)
        assert [job.name for job in plan_export(run, ["openvino"], "int8", options)] == [f"{target}-int8"]
        assert [job.target for job in plan_export(run, ["openvino"], "fp16", options)] == ["openvino"]
    jobs = plan_export(run, ["openvino", "onnx"], "int8", octc.ExportOptions(cpu="arm"))
    with pytest.raises(octc.OctcError, match="openvino-arm needs its quantisers elsewhere") as caught:
        export_run(run, jobs, octc.ExportOptions(cpu="arm"), None)
    assert caught.value.code == "OCT-E102"


def test_engines_are_built_of_tensorrt_artifacts_only(run: Run, tmp_path: Path) -> None:
    (folder,) = octc.export(run, ["onnx"], "fp32", out=tmp_path)
    with pytest.raises(octc.OctcError) as caught:
        build_engines_of(folder)
    assert caught.value.code == "OCT-E104"
    pre = octc.Preprocess(size=64)
    for name in ("tensorrt", "tensorrt-rtx"):
        artifact = Artifact(f"{name}-int8", "student", "none", "tensorrt", "int8", ("a", "b"), pre, {}, {}, main_file="m")
        assert target_of(artifact) == name
