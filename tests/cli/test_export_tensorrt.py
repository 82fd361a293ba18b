"""`octc export` for TensorRT: on a machine without a GPU, and with NVIDIA's compiler for this CPU."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from octc.cli._app.main import main
from octc.core.errors import OctcError
from octc.runtimes.registry import open_runtime, why_not
from octc.store.artifacts import read_artifact
from octc.store.runs import Run
from tests.export.oracle import need_oracle
from tests.tiny_run import make_run, write_patterns

Said = Callable[..., tuple[int, str, str]]
FILES = {
    "model.onnx", "model.int8fp16.onnx", "model.fp16.onnx", "build-int8.json", "build-fp16.json", "trt_worker.py", "BUILD.txt",
    "USE.md", "engine.json", "golden.npz", "golden-fp16.npz",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    base = tmp_path_factory.mktemp("tensorrt")
    write_patterns(base / "patterns")
    return make_run(base / "runs", base / "patterns", model="test_efficientnet")


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    shutil.copytree(made.path.parent, tmp_path / "runs")
    return Run(tmp_path / "runs" / made.id)


def test_x15_without_a_gpu_variants_plans_worker_and_sidecar_are_written(run: Run, said: Said, tmp_path: Path) -> None:
    code, _, err = said("export", "--int8", "--target", "tensorrt", "--no-gate")
    assert code == 0, err
    assert err.count("no engine was built on this machine") == 1
    folder = run.artifacts / "tensorrt-int8"
    artifact = read_artifact(folder)
    assert set(artifact.files) == FILES
    assert json.loads((folder / "engine.json").read_text())["measured"]["value"] is None
    assert set(artifact.details["variants"]) == {"model.onnx", "model.int8fp16.onnx", "model.fp16.onnx"}
    assert all(row["agreement"] == 1.0 for row in artifact.details["variants"].values())
    recipe = (folder / "BUILD.txt").read_text()
    assert "--onnx=model.onnx --saveEngine=int8-weak.engine --int8 --fp16" in recipe
    assert "--onnx=model.int8fp16.onnx --saveEngine=int8-strong.engine --stronglyTyped" in recipe
    assert main(["lint", str(folder / "model.onnx")]) == 0
    assert main(["lint", str(folder / "model.int8fp16.onnx"), "--target", "tensorrt-strong"]) == 0
    assert said("export", "--from-bundle", str(folder), "--target", "tensorrt")[0] == 4  # no GPU here
    code, _, err = said("export", "--from-bundle", str(folder), "--int8")
    assert (code, "OCT-E102" in err) == (2, True)
    code, _, err = said("serve-config", "triton", str(folder), "-o", str(tmp_path / "models"))
    assert (code, "OCT-E410" in err) == (4, True)


@pytest.mark.slow
def test_with_the_compiler_a_real_engine_is_built_and_its_layers_are_as_promised(run: Run, said: Said) -> None:
    need_oracle()
    code, _, err = said("export", "--int8", "--target", "tensorrt-rtx", "--no-gate")
    assert code == 0, err
    folder = run.artifacts / "tensorrt-rtx-int8"
    artifact = read_artifact(folder)
    engine = artifact.details["engine"]
    assert (engine["file"], engine["package"], engine["tensorrt"]) == ("int8-rtx.engine", "tensorrt_rtx", "1.7.1.116")
    assert (folder / "int8-rtx.engine").read_bytes()[:4] == b"vtrt"
    rows = {row["precision"]: row for row in engine["built"]}
    assert rows["int8"]["convolutions"] == {"int8": 13, "fp16": 4}  # the four of squeeze-excite
    assert rows["fp16"]["convolutions"] == {"fp16": 17}
    sidecar = json.loads((folder / "int8-rtx.engine.json").read_text())
    assert (sidecar["typing"], sidecar["network_flags"], sidecar["builder_flags"]) == ("strong", ["STRONGLY_TYPED"], [])
    assert (sidecar["machine"]["sm"], sidecar["measured"]["value"]) == ("8.6", None)
    assert sidecar["output"]["classes"] == list(artifact.classes)
    assert sidecar["attempts"][0]["peak_rss_mib"] < 1000
    assert "another machine" in str(why_not(artifact))  # B07: no GPU, or another one
    with pytest.raises(OctcError) as caught:
        open_runtime(folder, artifact)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E505", 4)
    assert "--force" in caught.value.hint
    code, _, err = said("export", "--from-bundle", str(folder), "--target", "tensorrt-rtx")
    assert (code, "OCT-E106" in err) == (2, True)
    code, out, err = said("export", "--from-bundle", str(folder), "--target", "tensorrt-rtx", "--force")
    assert code == 0, err
    assert out.strip().endswith("int8-rtx.engine")
    again = read_artifact(folder).details["engine"]["built"]
    assert [row["convolutions"] for row in again] == [row["convolutions"] for row in engine["built"]]


def test_fp16_has_an_artifact_of_its_own(run: Run, said: Said) -> None:
    code, _, err = said("export", "--fp16", "--target", "tensorrt")
    assert code == 0, err
    artifact = read_artifact(run.artifacts / "tensorrt-fp16")
    assert artifact.main_file == "model.fp16.onnx"
    assert "build-fp16.json" in artifact.files


def test_the_compiler_is_asked_for_by_name_and_its_absence_is_said(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    from octc.runtimes.tensorrt import process as trt_process

    monkeypatch.setattr(trt_process, "have", lambda module: False)
    code, _, err = said("export", "--int8", "--target", "tensorrt-rtx")
    assert (code, "OCT-E410" in err, "pip install 'octc[trt-oracle]'" in err) == (4, True, True)
    assert not run.artifacts.exists()
