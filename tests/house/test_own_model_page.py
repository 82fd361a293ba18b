"""docs/your-own-model.md: its commands are carried out, on a network that learned something."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from octc.cli._app.main import main
from octc.train.evaluation.assess import network_of
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
    (block,) = re.findall(r"<!-- test -->\n```sh\n(.*?)```", PAGE, re.S)
    for line in block.strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "octc"
        allowed = (0, 1) if words[1] == "verify" else (0,)  # 32 test images: whatever the verdict, there is one
        assert main(words[1:]) in allowed, line
