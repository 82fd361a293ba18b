"""docs/your-own-data.md: its commands are carried out on drawn images of several patients."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from octc.cli._app.main import main
from octc.datasets.patient_rules import apply_rule, read_rule
from octc.datasets.registry import scan_dataset
from octc.datasets.synthetic.bscans import CLASSES, draw_phantom
from tests.house.tree import ROOT

PAGE = (ROOT / "docs" / "your-own-data.md").read_text()


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for k, kind in enumerate(CLASSES):
        for person in range(3):
            folder = tmp_path / "images" / kind / f"P{k}{person:02d}"
            folder.mkdir(parents=True)
            for index in range(2):
                draw_phantom(kind, 100 * k + person, index, severity=1.0).save(folder / f"OD_{index}.png")
    (block,) = re.findall(r"<!-- test -->\n```sh\n(.*?)```", PAGE, re.S)
    for line in block.strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "octc"
        assert main(words[1:]) == 0, line
    samples = scan_dataset("folder", tmp_path / "images")
    rule = read_rule(tmp_path / "runs", samples.digest)
    assert rule is not None
    assert len({one.patient for one in apply_rule(samples, rule).items}) == 4 * 3
