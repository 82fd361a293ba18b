"""`octc analyze`, `octc ptq` and `octc export --ptq`, as they are typed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from octc.export.ptq import compare
from octc.store.artifacts import read_artifact
from octc.store.runs import Run
from tests.ruined import ruin
from tests.tiny_run import trained_run

HERE = ("octc", "onnxruntime")
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained() -> Run:
    return trained_run()


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    shutil.copytree(trained.path.parent, tmp_path / "runs")
    return Run(tmp_path / "runs" / trained.id)


def test_analyze_names_the_ruined_layer_and_writes_the_list(run: Run, said: Said) -> None:
    layer = ruin(run)
    code, out, err = said("analyze", "--json")
    assert code == 0, err
    data = json.loads(out)["data"]
    assert data["costs"][0]["layer"] == layer
    assert data["keep"] == [layer]
    assert json.loads((run.path / "analysis" / "keep_float.json").read_text()) == [layer]
    code, out, _ = said("analyze", run.id)
    assert code == 0
    assert out.splitlines()[3].startswith(layer)
    assert "keep in float" in out.splitlines()[3]
    code, _, err = said("export", "--int8", "--target", "openvino")
    assert code == 0, err
    assert "rejected (every convolution in INT8)" in err
    assert f"float by the mixed-precision fallback: {layer}" in err


@pytest.mark.slow
def test_ptq_prints_every_engine_that_is_here(run: Run, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them: tests/export/test_ptq.py runs all."""
    monkeypatch.setattr(compare, "missing_of", lambda engine: None if engine.package in HERE else engine.package)
    code, out, err = said("ptq", "--target", "onnx", "--json")
    assert code == 0, err
    data = json.loads(out)["data"]
    assert sorted(data["absent"]) == ["modelopt", "nncf", "nncf-default"]
    rows = {row["engine"]: row for row in data["rows"]}
    assert list(rows) == ["fp32", "octc", "onnxruntime"]
    assert rows["fp32"]["agreement"] == 1.0
    assert all(row["median_ms"] > 0 and row["bytes"] > 10_000 for row in rows.values())
    assert not list(run.path.glob(".tmp-*"))
    assert not run.artifacts.exists()


@pytest.mark.slow
def test_export_with_an_engine_and_with_ranges_of_a_file(run: Run, said: Said) -> None:
    code, _, err = said("export", "--int8", "--target", "openvino", "--ptq", "onnxruntime")
    assert code == 0, err
    made = read_artifact(run.artifacts / "openvino-int8-onnxruntime")
    assert made.details["quantisation"]["engine"] == "onnxruntime"
    save_file({"conv1.0._input_quantizer._amax": torch.tensor(1.0)}, run.path.parent / "amax.safetensors")
    words = ("export", "--int8", "--target", "openvino", "--ptq", "octc", "--amax", str(run.path.parent / "amax.safetensors"))
    code, _, err = said(*words)
    assert code == 0, err
    how = read_artifact(run.artifacts / "openvino-int8-octc").details["quantisation"]
    assert how["amax"]["taken"] == 1
    assert how["amax"]["file"] == "amax.safetensors"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--ptq", "nncf"), "OCT-E102"),
        (("--int8", "--ptq", "nncf"), "OCT-E102"),
        (("--int8", "--target", "tensorrt", "--ptq", "onnxruntime"), "OCT-E102"),
        (("--int8", "--target", "onnx", "--ptq", "magic"), "OCT-E104"),
        (("--int8", "--target", "onnx", "--amax", "x.safetensors"), "OCT-E102"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(said: Said, words: tuple[str, ...], code: str) -> None:
    status, out, err = said("export", *words)
    assert status == 2
    assert code in err
    assert out == ""
