"""docs/your-own-model.md: its commands are carried out, on a network that learned something."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from octc.cli._app.main import main
from octc.store.runs import scan_runs
from octc.train.evaluation.assess import network_of
from octc.train.loop.checkpoint import read_checkpoint
from tests.cli.test_import import quantised
from tests.house.tree import ROOT
from tests.tiny_run import SIZE, make_run, write_patterns

PAGE = (ROOT / "docs" / "your-own-model.md").read_text()


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_patterns(tmp_path / "images")
    model = network_of(make_run(tmp_path / "theirs", tmp_path / "images"))[0].eval()
    example = (torch.zeros(1, 3, SIZE, SIZE),)
    torch.onnx.export(model, example, "net.onnx", dynamo=True, external_data=False, verbose=False)
    half = [0.5, 0.5, 0.5]
    stated = {"do_resize": True, "size": {"height": SIZE, "width": SIZE}, "image_mean": half, "image_std": half, "resample": 2}
    Path("preprocessor_config.json").write_text(json.dumps(stated))
    carry_out("")
    quantised(Path("net.onnx"), Path("net-int8.onnx"))
    carry_out(": int8")
    judged(Path("runs"), "onnx-int8-onnxruntime", "onnx-int8")


def carry_out(name: str) -> None:
    (block,) = re.findall(rf"<!-- test{name} -->\n```sh\n(.*?)```", PAGE, re.S)
    for line in block.strip().splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "octc"
        allowed = (0, 1) if words[1] == "verify" else (0,)  # 32 test images: whatever the verdict, there is one
        assert main(words[1:]) in allowed, line


def judged(runs: Path, *names: str) -> None:
    """Each of these was compared on test images."""
    for name in names:
        (place,) = runs.glob(f"*/artifacts/{name}/verify.json")
        stored = json.loads(place.read_text())
        assert [one["set"]["n"] > 0 for one in (stored["test"], *stored["exploratory"]) if one], name


@pytest.mark.slow
def test_the_commands_about_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_patterns(tmp_path / "images")
    words = ("--dataset", "folder", "--data", "images", "--recipe", "smoke", "--epochs", "20", "--run-dir", "theirs", "--quiet")
    assert main(("train", "teacher", *words)) == 0
    known, weights = read_checkpoint(scan_runs(Path("theirs"))[0].path / "train")
    other = {name: tensor + 1 for name, tensor in weights.items()}
    torch.save({"arch": known.model, "state_dict": other, "state_dict_ema": weights, "epoch": 8}, "model_best.pth.tar")
    carry_out(": checkpoint")
    judged(Path("runs"), "onnx-int8")
