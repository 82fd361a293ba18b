from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octc.compress.placement import counts, quantisers
from octc.export.formats import wanted
from octc.export.source import quantise, read_source
from octc.store.artifacts import read_artifact
from octc.store.runs import Run, create_run
from octc.train.loop.checkpoint import read_checkpoint, write_checkpoint
from tests.tiny_run import make_run, trained_run

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained() -> Run:
    return trained_run()


@pytest.fixture(scope="module")
def patterns(trained: Run) -> Path:
    return trained.path.parent.parent / "patterns"


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    shutil.copytree(trained.path.parent, tmp_path / "runs")
    return Run(tmp_path / "runs" / trained.id)


def write_quantised(run: Run, patterns: Path, scale: float = 1.0, **facts: Any) -> None:
    """A qat stage as training leaves it; `scale` other than 1 spoils the ranges of the activations."""
    quantised = quantise(read_source(run, patterns))
    for quantiser in quantisers(quantised.module).values():
        quantiser.scale.mul_(scale)
    checkpoint, _ = read_checkpoint(run.path / "train")
    train = read_source(run, patterns).split.parts["train"]
    kept = {"observer": "max", "observers": {}, "counts": counts(quantised.module), "calibration": [train[0].sha256], **facts}
    tuned = replace(checkpoint, quantisation=kept, parent={"sha256": checkpoint.sha256}, metrics={"chosen": "qat"})
    write_checkpoint(run.path / "qat", quantised.module.state_dict(), tuned)


def test_the_command_of_the_readme_in_a_process_of_its_own(run: Run, octc: Any) -> None:
    done = octc("export", "--int8", "--target", "openvino", process=True)
    assert done.returncode == 0, done.stderr
    assert f"using run {run.id} (newest successful student; choose with RUN)" in done.stderr
    assert "PTQ" in done.stderr
    assert "train only, 0 shared with val or test" in done.stderr
    artifact = read_artifact(run.artifacts / "openvino-int8")
    assert artifact.details["gate"]["accepted"]
    assert artifact.details["quantisation"]["method"] == "ptq"
    assert str(Path("runs") / run.id / "artifacts" / "openvino-int8") in done.stdout
    stages = run.read()["stages"]
    assert [stage["artifact"] for stage in stages] == ["openvino-int8"]


@pytest.mark.slow
def test_everything_sensible_without_options(run: Run, patterns: Path, said: Said) -> None:
    write_quantised(run, patterns)
    code, out, err = said("export", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["run_id"] == run.id
    made = [entry["name"] for entry in document["data"]["artifacts"]]
    assert made == ["onnx-fp32", "onnx-fp16", "onnx-int8", "openvino-fp16", "openvino-int8", "tensorrt-int8", "torch-fp32"]
    for name in made:
        assert read_artifact(run.artifacts / name).details["golden"]["ok"]
    assert read_artifact(run.artifacts / "onnx-int8").details["quantisation"]["method"] == "qat"
    assert not [p for p in run.path.iterdir() if p.name.startswith(".tmp")]


@pytest.mark.slow
def test_x15_without_tensorrt_the_portable_file_and_the_recipe_are_written(run: Run, said: Said) -> None:
    code, _, err = said("export", "--int8", "--target", "tensorrt")
    assert code == 0
    assert "no engine was built on this machine" in err
    folder = run.artifacts / "tensorrt-int8"
    assert "trtexec --onnx=model.onnx" in (folder / "BUILD.txt").read_text()
    assert read_artifact(folder).details["encoding"] == "int8"


def test_x15_required_engine_is_an_error(run: Run, said: Said) -> None:
    code, _, err = said("export", "--int8", "--target", "tensorrt", "--require-engine")
    assert code == 4
    assert "OCT-E410" in err
    assert not run.artifacts.exists()


@pytest.mark.parametrize(
    ("flags", "named"), [(("--int8", "--fp16"), "--fp16 and --int8"), (("--fp32", "--int8"), "--fp32 and --int8")]
)
def test_c02_contradictory_precisions_name_both(run: Run, said: Said, flags: tuple[str, ...], named: str) -> None:
    code, _, err = said("export", *flags)
    assert code == 2
    assert "OCT-E102" in err
    assert named in err


def test_x01_no_run_at_all(said: Said) -> None:
    code, _, err = said("export")
    assert code == 2
    assert "OCT-E107" in err
    assert "octc train student" in err


def test_x01_named_run_does_not_exist_or_none_succeeded(tmp_path: Path, said: Said) -> None:
    failed = create_run(tmp_path / "runs", "student", "folder")
    failed.update(status="failed")
    code, _, err = said("export")
    assert (code, f"{failed.id} (failed)" in err) == (2, True)
    code, _, err = said("export", "r-0099")
    assert (code, failed.id in err) == (2, True)


@pytest.mark.parametrize(("words", "code", "expected"), [
    (("--target", "tensorrt", "--int8", "--opset", "25"), 2, "OCT-E401"),
    (("--target", "onnx", "--opset", "17"), 2, "OCT-E401"),
    (("--target", "coreml"), 2, "OCT-E104"),
    (("--target", "torch", "--fp16"), 2, "OCT-E104"),
    (("--margin", "0"), 2, "OCT-E104"),
    (("--class-margin", "0"), 2, "OCT-E104"),
])  # fmt: skip
def test_x02_what_cannot_be_had_is_refused_before_any_work(
    run: Run, said: Said, words: tuple[str, ...], code: int, expected: str
) -> None:
    found, _, err = said("export", *words)
    assert (found, expected in err) == (code, True), err
    assert not run.artifacts.exists()


def test_the_gate_says_both_margins_of_which_neither_follows_from_the_other(run: Run, said: Said, tmp_path: Path) -> None:
    words = ("export", "--target", "onnx", "--int8", "--margin", "40", "--force")
    for more, stated in ((), "margin 40 pp, class margin 3 pp"), (("--class-margin", "70"), "margin 40 pp, class margin 70 pp"):
        _, _, err = said(*words, *more)
        assert stated in err
    (tmp_path / "octc.toml").write_text("[export]\nmargin_pp = 30\nclass_margin_pp = 60\n")
    assert "margin 30 pp, class margin 60 pp" in said("export", "--target", "onnx", "--int8", "--force")[2]


def test_x14_existing_output_is_refused_before_any_work(run: Run, said: Said) -> None:
    assert said("export", "--target", "torch")[0] == 0
    (run.artifacts / "torch-fp32" / "bench-old.json").write_text("{}")
    code, _, err = said("export", "--target", "all")
    assert (code, "OCT-E106" in err) == (2, True)
    assert [p.name for p in run.artifacts.iterdir()] == ["torch-fp32"]
    assert said("export", "--target", "torch", "--force")[0] == 0
    assert read_artifact(run.artifacts / "torch-fp32").files
    assert not (run.artifacts / "torch-fp32" / "bench-old.json").exists()


def test_temperature_is_fitted_or_the_reason_is_told_and_recorded(run: Run, said: Said) -> None:
    code, _, err = said("export", "--target", "torch", "--temperature")
    assert code == 0, err
    assert "temperature    float none: too_few_images" in err
    told = read_artifact(run.artifacts / "torch-fp32").details["temperature"]
    assert (told["folded"], told["reason"], told["set"]) == (1.0, "too_few_images", "select")
    assert said("export", "--from-bundle", str(run.artifacts / "torch-fp32"), "--temperature")[0] == 2


@pytest.mark.slow
def test_x08_spoilt_int8_is_not_published(run: Run, patterns: Path, said: Said) -> None:
    write_quantised(run, patterns, scale=1e-3)
    code, out, err = said("export", "--int8", "--target", "onnx", "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "OCT-E405"
    assert "chance_level" in json.loads(out)["error"]["message"]
    steps = re.findall(r"onnx-int8: rejected \(([^)]*)\)", err)
    assert len(steps) == len(set(steps)) >= 2, "every step of the fallback is tried and told once"
    assert not (run.artifacts / "onnx-int8").exists()
    assert (run.path / "rejected" / "onnx-int8" / "model.onnx").is_file()


@pytest.mark.slow
def test_x08_fallback_is_delivered_only_when_allowed_and_under_its_own_name(run: Run, patterns: Path, said: Said) -> None:
    write_quantised(run, patterns, scale=1e-3)
    code, _, err = said("export", "--int8", "--target", "openvino", "--allow-fallback")
    assert code == 0, err
    assert "FP16 was delivered instead" in err
    assert [p.name for p in run.artifacts.iterdir()] == ["openvino-fp16"]


def test_d25_calibration_on_test_images_ends_with_3(run: Run, patterns: Path, said: Said) -> None:
    leaked = read_source(run, patterns).split.parts["test"][0]
    write_quantised(run, patterns, calibration=[leaked.sha256])
    code, _, err = said("export", "--int8", "--target", "onnx")
    assert (code, "OCT-E214" in err, leaked.path in err) == (3, True, True)


def test_dry_run_writes_nothing(run: Run, said: Said) -> None:
    before = sorted(p for p in run.path.rglob("*"))
    code, out, _ = said("export", "--dry-run")
    assert code == 0
    assert out.count("would write") == 7
    assert sorted(p for p in run.path.rglob("*")) == before


@pytest.mark.slow
def test_teacher_is_exported_by_name_and_without_int8(run: Run, patterns: Path, said: Said) -> None:
    teacher = make_run(run.path.parent, patterns, kind="teacher", model="test_efficientnet")
    code, out, _ = said("export", teacher.id, "--dry-run")
    assert code == 0
    assert "int8" not in out
    assert out.count("would write") == 4
    assert said("export", teacher.id, "--target", "onnx", "--fp32")[0] == 0
    assert read_artifact(teacher.artifacts / "onnx-fp32").role == "teacher"


@pytest.mark.parametrize(("target", "precision", "kind", "count"), [
    ("all", None, "student", 7), ("all", None, "teacher", 4), ("all", "int8", "teacher", 3), ("onnx", None, "student", 3),
    ("openvino", "fp32", "student", 1), ("tensorrt", None, "student", 1), ("torch", None, "teacher", 1),
    ("tensorrt", None, "teacher", 1),
])  # fmt: skip
def test_what_is_made(target: str, precision: str | None, kind: str, count: int) -> None:
    assert len(wanted(target, precision, kind)) == count
