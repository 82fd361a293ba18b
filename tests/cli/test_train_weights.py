"""`octc train --weights FILE`: the file is looked at before anything is made, and in a dry run; what differs is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from octc.cli._app.main import main
from octc.store.runs import scan_runs
from octc.train.loop.checkpoint import read_checkpoint
from octc.train.networks.models import build_model
from octc.train.recipes.registry import RECIPES
from tests.cli.train_words import SMOKE, Said, one_processor, patterns, said

__all__ = ["one_processor", "patterns", "said"]  # fixtures
STAGE = RECIPES["smoke"]().teacher


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Of the recipe's network, with a classifier of 1,000 classes, as DataParallel names them, without counters."""
    torch.manual_seed(3)
    state = build_model(STAGE.model, 1000, **STAGE.model_kwargs).state_dict()
    return {f"module.{name}": tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def dry(path: Path, *words: str, capsys: pytest.CaptureFixture[str], kind: str = "teacher") -> tuple[int, dict[str, Any]]:
    more = ("--teacher", "none") if kind == "student" else ()
    code = main(["train", kind, *SMOKE, *more, "--weights", str(path), "--dry-run", "--json", *words])
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert not Path("runs").exists()
    return code, value


def test_a_dry_run_reads_the_whole_file(
    said: Said, weights: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.safetensors"
    save_file(weights, path)
    code, value = dry(path, capsys=capsys)
    assert code == 0
    fit = value["data"]["weights"]["fit"]
    assert fit["prefixes"] == ["module."]
    assert fit["classifier_drawn"]
    assert fit["counters_from_zero"] > 0
    name = next(iter(weights))
    spoilt = {
        "NaN": {**weights, name: torch.full_like(weights[name], float("nan"))},
        "shape": {**weights, name: weights[name][:1].clone()},
        "lacking": {key: tensor for key, tensor in weights.items() if key != name},
        "another": {"conv.weight": torch.ones(3)},
    }
    for state in spoilt.values():
        save_file(state, path)
        code, value = dry(path, capsys=capsys)
        assert (code, value["error"]["code"]) == (3, "OCT-E307")
        assert name.removeprefix("module.") in value["error"]["message"] or state.keys() == {"conv.weight"}
    save_file(weights, path)
    path.write_bytes(path.read_bytes()[:-100])
    code, value = dry(path, capsys=capsys)
    assert (code, value["error"]["code"]) == (3, "OCT-E307")
    code, value = dry(tmp_path / "absent.safetensors", capsys=capsys)
    assert (code, value["error"]["code"]) == (4, "OCT-E310")


@pytest.mark.parametrize("words", [("--folds", "2"), ()])
def test_folds_and_students_are_looked_at_too(
    said: Said, words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"conv.weight": torch.ones(3)}, path)
    code, value = dry(path, *words, capsys=capsys, kind="student" if not words else "teacher")
    assert (code, value["error"]["code"]) == (3, "OCT-E307")


def test_a_file_of_torch_save_is_read(
    said: Said, weights: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": weights, "epoch": 3}, path)
    for words in ((), ("--trust-pickle",)):
        code, value = dry(path, *words, capsys=capsys)
        assert code == 0
        assert value["data"]["weights"]["fit"]["prefixes"] == ["state_dict.module."]


def test_what_differs_stands_in_the_record_and_is_said(said: Said, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(weights, path)
    code, _, err = said("teacher", *SMOKE, "--epochs", "1", "--weights", str(path))
    assert code == 0
    made, _ = read_checkpoint(scan_runs(tmp_path / "runs")[0].path / "train")
    assert made.weights["source"] == "file w.safetensors"
    assert made.weights["fit"]["prefixes"] == ["module."]
    assert made.weights["fit"]["counters_from_zero"] > 0
    for name, what in made.weights["fit"]["classifier_drawn"].items():
        assert "1000" in what
        assert name in err
    assert "module." in err
    assert "num_batches_tracked" in err


def test_a_file_that_does_not_fit_makes_no_run(said: Said, tmp_path: Path) -> None:
    save_file({"conv.weight": torch.ones(3)}, tmp_path / "w.safetensors")
    code, _, err = said("teacher", *SMOKE, "--weights", str(tmp_path / "w.safetensors"))
    assert code == 3
    assert "OCT-E307" in err
    assert not scan_runs(tmp_path / "runs")


def test_a_teacher_file_that_its_checkpoint_does_not_describe_is_a_foreign_one(said: Said, tmp_path: Path) -> None:
    """The network of the file that was named teaches, not the one in model.safetensors beside it."""
    code, _, _ = said("teacher", *SMOKE, "--epochs", "1")
    assert code == 0
    folder = scan_runs(tmp_path / "runs")[0].path / "train"
    (folder / "other.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    code, _, out = said("student", *SMOKE, "--teacher", str(folder / "other.safetensors"), "--dry-run")
    assert code == 0
    assert "other.safetensors" in out  # the file itself, as one of another program: what lies beside it describes another
    assert "what it was trained on is not known" in out
    assert said("student", *SMOKE, "--teacher", str(folder / "model.safetensors"), "--dry-run")[0] in (0, 1)
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    code, _, err = said("student", *SMOKE, "--teacher", str(folder / "model.safetensors"), "--dry-run")
    assert code == 4
    assert "git lfs pull" in err
