"""A small archive: pictures in folders, a volume, and what lies in a folder of results."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from octc.archive import plan
from octc.datasets.synthetic import volumes as synthetic
from octc.datasets.synthetic.volumes import DrawnEye
from octc.store.runs import Run
from tests.tiny_artifacts import shared_run

TIMES = ("milliseconds", "device")  # columns that differ between two runs of the same

Row = dict[str, Any]


def patterns(run: Run | None = None) -> list[Path]:
    """Pictures that the tiny network knows."""
    return sorted(((run or shared_run()).path.parent.parent / "patterns").rglob("*.png"))


def write_pictures(root: Path, count: int, folders: int = 3) -> list[Path]:
    """Known pictures, each with a pixel of its own, in folders."""
    known, paths = patterns(), []
    for number in range(count):
        picture = np.array(Image.open(known[number * 7 % len(known)]).convert("L"))
        picture[0, 0], picture[0, 1] = number % 256, number // 256
        path = root / f"site-{number * folders // count}" / f"scan-{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        paths.append(path)
    return paths


def write_volume(path: Path, frames: int = 4, laterality: str = "L") -> Path:
    """A volume whose B-scans are known pictures."""
    known = patterns()[:: len(patterns()) // frames][:frames]
    scans = np.stack([np.asarray(Image.open(one).convert("L").resize((64, 64))) for one in known])
    ending, write = synthetic.WRITERS["vol"]
    target = path.with_suffix(ending)
    target.parent.mkdir(parents=True, exist_ok=True)
    write(DrawnEye(scans, laterality, "SYN-1", datetime(2026, 1, 2, 3, 4), "lying"), target)
    return target


def rows(folder: Path, kind: str = "scans") -> list[Row]:
    """The rows of a table in order, without the columns that differ between two runs."""
    paths: Iterable[Path] = [folder / "failed.parquet"] if kind == "failed" else sorted((folder / kind).glob("*.parquet"))
    found = [row for path in paths for row in parquet.read_table(path).to_pylist()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in found]


@pytest.fixture
def forked_workers(forks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job starts are real processes, forked from one that has imported the engines (tests/warm.py)."""
    monkeypatch.setattr(sys, "executable", forks)


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units of a few inputs, so that an archive of some pictures has several."""
    monkeypatch.setattr(plan, "FIRST", 4)
    monkeypatch.setattr(plan, "MOST", 6)
