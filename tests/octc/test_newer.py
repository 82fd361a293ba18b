"""Whatever a newer octc wrote: it is refused with a newer octc as the hint, never with "train again"."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from octc.bench.timing.compare_results import read_result
from octc.cli._app.main import main
from octc.core.errors import OctcError
from octc.core.files import read_json, write_json
from octc.core.newer import HINT
from octc.runtimes.tensorrt.device_report import judge
from octc.store.artifacts import MANIFEST, read_artifact
from octc.store.runs import Run
from octc.store.verdicts import FILE, read_verdict
from octc.train.loop.checkpoint import META, read_checkpoint
from octc.train.recipes.registry import RECIPES, stored_recipe
from tests.tiny_artifacts import shared_run


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Run:
    shared = shared_run(tmp_path_factory)
    shutil.copytree(shared.path.parent, tmp_path / "runs")
    return Run(tmp_path / "runs" / shared.id)


def changed(path: Path, **fields: Any) -> Path:
    write_json(path, {**read_json(path), **fields})
    return path


def the_artifact(run: Run) -> Any:
    changed(run.artifacts / "onnx-fp32" / MANIFEST, schema_version="2.0", shape="of things to come")
    return read_artifact(run.artifacts / "onnx-fp32")


def the_run(run: Run) -> Any:
    changed(run.path / "run.json", schema_version="1.1")
    return run.read()


def the_checkpoint(run: Run) -> Any:
    changed(run.path / "train" / META, schema_version="1.1")
    return read_checkpoint(run.path / "train")


def fields_of_the_checkpoint(run: Run) -> Any:
    value = read_json(run.path / "train" / META)
    value.pop("json_sha256")
    write_json(run.path / "train" / META, {**value, "sparsity": 0.5})
    return read_checkpoint(run.path / "train")


def the_recipe(_run: Run) -> Any:
    recipe = asdict(RECIPES["smoke"]())
    return stored_recipe({**recipe, "student": {**recipe["student"], "sparsity": 0.5}})


def the_bench(run: Run) -> Any:
    write_json(run.path / "bench.json", {"schema_version": "3.0", "rows": {}})
    return read_result(run.path / "bench.json")


def the_verdict(run: Run) -> Any:
    write_json(run.artifacts / "onnx-fp32" / FILE, {"schema_version": "1.2", "artifact": "x"})
    return read_verdict(run.artifacts / "onnx-fp32", "0" * 64)


def the_device(_run: Run) -> Any:
    return judge({"schema": "octc.trt-device/2"})


@pytest.mark.parametrize(
    "read",
    [the_artifact, the_run, the_checkpoint, fields_of_the_checkpoint, the_recipe, the_bench, the_verdict, the_device],
)
def test_the_hint_is_a_newer_octc(read: Callable[[Run], Any], run: Run) -> None:
    with pytest.raises(OctcError) as caught:
        read(run)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E509", 3)
    assert caught.value.hint == HINT


def test_commands_say_it_too(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(run.path.parent.parent)
    changed(run.artifacts / "onnx-fp32" / MANIFEST, schema_version="2.0")
    picture = next(Path(str(run.read()["data_root"])).rglob("*.png"))
    for words in (("predict", str(run.artifacts / "onnx-fp32"), str(picture)), ("verify", str(run.artifacts / "onnx-fp32"))):
        capsys.readouterr()
        assert main((*words, "--json")) == 3, words
        error = json.loads(capsys.readouterr().out)["error"]
        assert (error["code"], error["help"]) == ("OCT-E509", HINT)
