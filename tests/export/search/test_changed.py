"""A candidate that loses squeeze-excite and channels: what is measured is what is trained, and its recipe makes it again."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from octc.cli._app.main import main
from octc.cli.json_schema import schema_of
from octc.core.errors import OctcError
from octc.export.search.candidates import base_recipe, recipe_of
from octc.export.search.effort import macs_of
from octc.export.search.pages import table_rows
from octc.export.search.random_network import build, found_artifacts
from octc.export.search.structure import with_structure
from octc.schemas.common import builtins, convert
from octc.schemas.search import Candidate
from octc.store.runs import Run, scan_runs
from octc.train.loop.checkpoint import read_checkpoint
from octc.train.networks.macs import count_macs
from octc.train.networks.models import build_model
from octc.train.networks.starting import start_network
from octc.train.recipes.registry import recipe_file
from tests.schema_checks import validate
from tests.tiny_run import write_patterns

CHANGED = {
    "name": "small", "model": "test_efficientnet", "size": 48, "weights": "none", "activation": "relu", "squeeze_excite": False,
    "prune": 0.5,
}  # fmt: skip
# a search whose times are made up; its candidate is exported, trained, tuned and verified
PROGRAM = """
import sys
from pathlib import Path
from octc.export.search import finish, job
from octc.schemas.search import SearchOptions, Timing


def timing(found, target):
    return Timing(target="onnx", status="VALID", why=[], ms=2.0, ms_ci95=[2.0, 2.0], mj=None, bytes=1000, engine="ONNX Runtime",
                  version="1", sha256="0" * 64, cached=False)


job.timing_of = finish.timing_of = timing
options = SearchOptions(candidates=Path("candidates.json"), recipe="smoke", epochs=6, margin=20.0, teacher="none",
                        target="onnx", dataset="folder")
job.search_student("5ms", data="patterns", run_dir="runs", options=options)
"""


def shapes(state: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in state.items()}


@pytest.mark.parametrize(
    "more",
    [
        {"weights": "none"},
        {"weights": "none", "activation": None, "squeeze_excite": True, "prune": 0.25},
        {"weights": "none", "prune": 0.0},
        {"model": "tf_efficientnet_lite0", "weights": "package", "activation": None, "squeeze_excite": True},
    ],
)
def test_the_network_that_is_measured_has_the_shapes_of_the_one_that_is_trained(more: dict[str, Any]) -> None:
    candidate = convert({**CHANGED, **more}, Candidate)
    base = base_recipe("smoke")
    found = with_structure(candidate, recipe_of(candidate, base, 1, 1).student, 4, False)
    stage = recipe_of(found, base, 1, 1).student
    measured = build(found, stage, 4)
    trained, _ = start_network(stage, 4, None, False, lambda: [torch.randn(4, 3, 48, 48)])
    assert shapes(measured.state_dict()) == shapes(trained.state_dict())
    assert count_macs(measured, 48) == count_macs(trained, 48) == macs_of(found, recipe_of(found, base, 1, 1), 4)[0]
    whole = build_model(candidate.model, 4)
    assert count_macs(measured, 48) < count_macs(whole, 48)
    assert (found.prune, found.squeeze_excite) == (candidate.prune, candidate.squeeze_excite), "what was asked for stays"


def test_what_loses_nothing_is_left_as_it_is_and_what_cannot_lose_it_is_refused() -> None:
    plain = Candidate(name="a", model="test_resnet", size=32, weights="none")
    stage = recipe_of(plain, base_recipe("smoke"), 1, 1).student
    assert with_structure(plain, stage, 4, False) == plain
    with pytest.raises(OctcError) as error:
        with_structure(convert({**builtins(plain), "squeeze_excite": False}, Candidate), stage, 4, False)
    assert error.value.code == "OCT-E413", "it has none"


def begun(place: Path, python: tuple[str, ...]) -> subprocess.Popen[str]:
    words = [*python, "program.py"]
    return subprocess.Popen(words, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_a_changed_candidate_is_measured_trained_resumed_delivered_and_made_again(
    tmp_path: Path, warm: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_patterns(tmp_path / "patterns", patients=12, images=4)
    (tmp_path / "candidates.json").write_text(json.dumps({"candidates": [CHANGED]}))
    (tmp_path / "program.py").write_text(PROGRAM)
    process = begun(tmp_path, warm)
    deadline = time.monotonic() + 600
    while not list((tmp_path / "runs").glob("*/train/state-*/state.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    out, _ = (process := begun(tmp_path, warm)).communicate(timeout=900)
    assert process.returncode == 0, out
    monkeypatch.chdir(tmp_path)
    (run,) = scan_runs(Path("runs"))
    (path,) = Path("runs").glob("search-*/search.json")
    document = json.loads(path.read_text())
    validate(document, schema_of("search.json"))
    check_search(document, run)
    check_again(document, run, path.parent / "winner.json")


def check_search(document: dict[str, Any], run: Run) -> None:
    """The row that was measured, the checkpoint, the tuned network and the artifact are of one structure."""
    (row,) = document["candidates"]
    candidate = convert(row["candidate"], Candidate)
    recipe = recipe_of(candidate, base_recipe("smoke"), 6, 4)
    checkpoint, state = read_checkpoint(run.path / "train")
    assert (row["macs"], row["parameters"]) == (checkpoint.metrics["macs"], checkpoint.metrics["parameters"])
    assert shapes(state) == shapes(build(candidate, recipe.student, 4).state_dict())
    assert list(found_artifacts(candidate, recipe, checkpoint.classes, ("onnx",), Path("runs/.cache/search"))) == ["onnx"]
    assert [one["step"] for one in checkpoint.model_kwargs["simplified"]] == ["squeeze-excite", "channels"]
    assert checkpoint.weights["changed"].endswith("squeeze-excite out, channels out")
    assert read_checkpoint(run.path / "qat")[0].model_kwargs == checkpoint.model_kwargs
    winner = document["winner"]
    assert (winner["name"], winner["run"], winner["precision"]) == ("small", run.id, "int8")
    manifest = json.loads((Path(winner["artifact"]) / "artifact.json").read_text())
    assert manifest["lineage"]["weights"]["changed"] == checkpoint.weights["changed"]
    assert (Path(winner["artifact"]) / "verify.json").is_file()
    assert winner["test"]["claims"][0]["accuracy"]["candidate"] > 0
    assert "test_efficientnet relu without squeeze-excite pruned by 50 %" in table_rows(document)[0]


def check_again(document: dict[str, Any], run: Run, recipe: Path) -> None:
    """The recipe of the winner trains a network of the same structure from the start, which goes on as any other."""
    words = ["--dataset", "folder", "--data", "patterns", "--teacher", "none", "--no-qat", "--run-dir", "other"]
    assert main(["train", "student", *words, "--recipe", str(recipe)]) == 0
    (again,) = scan_runs(Path("other"))
    checkpoint, state = read_checkpoint(again.path / "train")
    first, before = read_checkpoint(run.path / "train")
    assert shapes(state) == shapes(before)
    assert (checkpoint.model_kwargs, checkpoint.split_digest) == (first.model_kwargs, first.split_digest)
    assert recipe_file(recipe).student.model_kwargs["simplified"] == first.model_kwargs["simplified"]
    assert document["commands"][0].count(str(recipe)) == 1
    assert main(["export", again.id, "--fp32", "--target", "onnx", "--run-dir", "other"]) == 0
    words = ["--prune", "0.25", "--run-dir", "other", "--data", "patterns"]
    assert main(["simplify", again.id, *words, "--dry-run"]) == 0, "it takes more out of it"
