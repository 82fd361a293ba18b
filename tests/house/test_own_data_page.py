"""docs/your-own-data.md: its commands are carried out on drawn images of several patients."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from octc.cli._app.main import main
from octc.datasets.synthetic.bscans import CLASSES, draw_phantom
from octc.store.runs import scan_runs
from tests.house.tree import ROOT

PAGE = (ROOT / "docs" / "your-own-data.md").read_text()


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for k, kind in enumerate(CLASSES):
        for person in range(12):
            folder = tmp_path / "images" / kind / f"P{k}{person:02d}"
            folder.mkdir(parents=True)
            for index in range(4):
                draw_phantom(kind, 100 * k + person, index, severity=1.0).save(folder / f"OD_{index}.png")
    (block,) = re.findall(r"<!-- test -->\n```sh\n(.*?)```", PAGE, re.S)
    for line in block.strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "octc"
        code = main(words[1:])
        assert code in ((0, 1) if words[1] == "verify" else (0,)), line  # few images, and a network of a few steps
    runs = scan_runs(tmp_path / "runs")
    assert {run.read()["patient_ids"] for run in runs if "patient_ids" in run.read()} <= {"known"}
