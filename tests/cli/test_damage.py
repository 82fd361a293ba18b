"""The demo's damaged copy: its checksums agree, and `octc verify` refuses it and names the layer."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest

from octc.cli._app.main import main
from octc.store.artifacts import read_artifact
from octc.store.runs import Run
from tests.house.tree import ROOT
from tests.tiny_artifacts import shared_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


@pytest.mark.parametrize("name", ["openvino-int8", "openvino-fp16"])
def test_a_scaled_layer_is_caught_and_named(
    made: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run(Path(shutil.copytree(made.path, tmp_path / "runs" / made.id)))
    before = read_artifact(run.artifacts / name)
    damage = runpy.run_path(str(ROOT / "benchmarks" / "damage.py"))["damage"]
    place = damage(run.artifacts / name, tmp_path / "damaged")
    assert read_artifact(tmp_path / "damaged").name == name  # every checksum agrees
    assert read_artifact(run.artifacts / name) == before
    capsys.readouterr()
    assert main(["verify", "damaged", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["error"]["code"] == "OCT-E506"
    (one,) = found["data"]["artifacts"]
    layer = one["layers"][place - 1]["name"]
    assert one["suspects"][:1] == [layer]
    assert f"layer {layer} stands out" in found["error"]["message"]
    assert main(["verify", "damaged"]) == 1
    out = capsys.readouterr().out
    assert layer in out
    assert len(out.splitlines()) <= 10
