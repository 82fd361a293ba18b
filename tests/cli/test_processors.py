"""Artifacts that are made for x86, on an Arm machine: refused with the way on, or passed over with the reason.

OpenVINO's INT8 file was measured on emulated Cortex-A57, A72 (it does not compile) and Neoverse-N1 (its golden images differ).
What the machine is comes from `platform.machine`; the engines and files are real.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from octc.cli._app.main import main
from octc.core.errors import OctcError
from octc.machine.checks import check_engines
from octc.machine.cpu import EVERY, family_of, why_other_family
from octc.runtimes.registry import open_runtime, other_processor, prefer, preferences, why_not, why_preferred
from octc.store.artifacts import read_artifact
from octc.store.find import Found
from octc.store.runs import Run
from tests.tiny_artifacts import copied, resign, shared_run

ARMS = ("aarch64", "arm64", "armv7l", "armv8l")
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


@pytest.fixture
def said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command in a folder with the tiny run, on what looks like an Arm machine: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run.path.parent, tmp_path / "runs")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def picture(run: Run) -> Path:
    return next((run.path.parent.parent / "patterns" / "bright").iterdir())


@pytest.mark.parametrize(
    ("kind", "family"), [*((kind, "arm") for kind in ARMS), ("x86_64", "x86"), ("AMD64", "x86"), ("riscv64", None), ("", None)]
)
def test_families_of_processors(kind: str, family: str | None) -> None:
    assert family_of(kind) == family
    assert (why_other_family("x86", kind) is None) == (family != "arm")
    assert why_other_family(None, kind) is None


@pytest.mark.parametrize("kind", ARMS)
def test_arm_prefers_onnx_in_every_precision(kind: str) -> None:
    order = preferences(kind)
    assert order[0] == ("onnx", "int8")
    for precision in ("int8", "fp16", "fp32"):
        assert order.index(("onnx", precision)) < order.index(("openvino", precision))
    assert preferences("x86_64")[0] == ("openvino", "int8")
    assert set(order) == set(preferences("x86_64"))


@pytest.mark.parametrize("name", ["torch-fp32", "onnx-fp32", "onnx-fp16", "onnx-int8", "openvino-fp16", "openvino-int8"])
def test_only_the_int8_file_of_openvino_is_for_x86(run: Run, name: str) -> None:
    artifact = read_artifact(run.artifacts / name)
    assert (other_processor(artifact, "aarch64") is not None) == (name == "openvino-int8")
    assert other_processor(artifact, "x86_64") is None
    assert artifact.details.get("processors") == ("x86" if name == "openvino-int8" else None)


def test_artifacts_of_before_and_of_later(run: Run, tmp_path: Path) -> None:
    """One that does not say which processors it is for is what octc made until now; one that says Arm runs there."""
    folder = copied(run, "openvino-int8", tmp_path)
    resign(folder, lambda value: value["details"].pop("processors"))
    assert other_processor(read_artifact(folder), "aarch64") is not None
    resign(folder, lambda value: value["details"].update(processors="arm"))
    assert other_processor(read_artifact(folder), "aarch64") is None
    assert other_processor(read_artifact(folder), "x86_64") is not None
    resign(folder, lambda value: value["details"].update(processors=EVERY))
    assert {other_processor(read_artifact(folder), kind) for kind in ("aarch64", "x86_64")} == {None}


@pytest.mark.skipif(family_of() != "x86", reason="the usual INT8 file of OpenVINO is for x86")
def test_the_file_for_this_processor_is_taken_before_one_for_every(run: Run, tmp_path: Path) -> None:
    every, own = copied(run, "openvino-int8", tmp_path / "a"), copied(run, "openvino-int8", tmp_path / "b")
    resign(every, lambda value: (value.update(name="openvino-arm-int8"), value["details"].update(processors=EVERY)))
    founds = [Found(folder, read_artifact(folder)) for folder in (every, own)]
    assert prefer(founds).folder == own
    assert "made for this processor" in why_preferred(prefer(founds), founds)
    assert prefer(founds[:1]).folder == every


def test_a_network_for_arm_is_exported_for_arm_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's own quantisers stand elsewhere; calibrated for Arm, its file is for every processor and opens here."""
    shutil.copytree(run.path.parent, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    words = ["export", run.id, "--int8", "--target", "openvino", "--cpu", "arm-nofp16", "--no-gate"]
    tuned = (tmp_path / "runs" / run.id / "qat").is_dir()
    assert main([*words, "--json"]) == (2 if tuned else 0)
    if tuned:
        error = json.loads(capsys.readouterr().out)["error"]
        assert (error["code"], "--ptq octc" in error["help"]) == ("OCT-E102", True)
    assert main([*words, "--ptq", "octc", "--force"]) == 0
    artifact = read_artifact(tmp_path / "runs" / run.id / "artifacts" / "openvino-arm-int8-octc")
    assert (artifact.target, artifact.details["processors"], artifact.details["encoding"]) == ("openvino", EVERY, "acl")
    assert "for every processors" not in capsys.readouterr().err


def test_predict_takes_the_onnx_file_and_says_why(said: Said, picture: Path) -> None:
    code, out, err = said("predict", picture, "--json")
    assert code == 0, err
    assert json.loads(out)["data"]["artifact"]["name"] == "onnx-int8"
    assert "openvino-int8: it is made for x86 processors" in err


@pytest.mark.parametrize("words", ["predict {} IMAGE", "verify {}", "bench {} --dry-run"])
def test_an_artifact_that_is_named_is_refused_with_the_way_on(words: str, run: Run, said: Said, picture: Path) -> None:
    folder = f"runs/{run.id}/artifacts/openvino-int8"
    code, out, err = said(*words.replace("IMAGE", str(picture)).format(folder).split(), "--json")
    error = json.loads(out)["error"]
    assert (code, error["code"]) == (4, "OCT-E903"), err
    assert "x86" in error["message"]
    assert f"runs/{run.id}/artifacts/onnx-int8" in error["help"]
    assert "again" not in error["help"]


def test_without_a_sister_the_command_that_makes_one_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(run, "openvino-int8", tmp_path)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(OctcError) as caught:
        open_runtime(folder, read_artifact(folder), threads=1)
    assert caught.value.code == "OCT-E903"
    assert "octc export --int8 --target onnx" in caught.value.hint
    assert "x86" in str(why_not(read_artifact(folder)))


def test_a_bench_of_all_leaves_it_out_with_the_reason(run: Run, said: Said) -> None:
    code, out, err = said("bench", run.id, "--dry-run", "--batch", "1")
    assert code == 0, err
    lines = [line for line in out.splitlines() if "openvino-int8" in line]
    assert lines
    assert any("x86" in line for line in lines)


def test_ptq_refuses_what_it_could_not_measure(run: Run, said: Said) -> None:
    code, out, err = said("ptq", run.id, "--json")
    error = json.loads(out)["error"]
    assert (code, error["code"]) == (4, "OCT-E903"), err
    assert "octc ptq --target onnx" in error["help"]


def test_doctor_says_it_where_it_matters(run: Run, tmp_path: Path) -> None:
    assert check_engines("x86_64", ()) == []
    (with_onnx,), (without,) = check_engines("aarch64", ("onnxruntime", "openvino")), check_engines("arm64", ("openvino",))
    assert (with_onnx.state, without.state, without.code) == ("info", "warning", "OCT-E901")
    assert "openvino-int8" in with_onnx.text
    assert "pip install 'octc[ort]'" in without.hint
    code = "import platform, sys; platform.machine = lambda: 'aarch64'; from octc.cli._app.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "doctor", "--json", "--run-dir", str(run.path.parent)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    texts = [check["text"] for check in json.loads(done.stdout)["data"]["checks"]]
    assert any("openvino-int8" in text and "aarch64" in text for text in texts)
    assert any("openvino-int8 does not run here" in text for text in texts)
    assert any("onnx-int8 runs here" in text for text in texts)


def test_export_says_for_which_processors(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run.path.parent, tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / run.id / "artifacts")
    monkeypatch.chdir(tmp_path)
    assert main(["export", run.id, "--int8", "--target", "openvino", "--no-gate"]) == 0
    err = capsys.readouterr().err
    assert "for x86 processors" in err
    assert "--target onnx" in err
    assert main(["export", run.id, "--int8", "--target", "onnx", "--no-gate"]) == 0
    assert "processors" not in capsys.readouterr().err
