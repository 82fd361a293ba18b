"""What commands print, whole, as it was last looked at: tests/cli/__snapshots__.

`pytest tests/cli/test_printed.py --snapshot-update` writes the snapshots anew; the difference belongs into the commit that
changes an output. What another machine or another moment would print otherwise is written as a letter (`told`).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from octc.datasets.synthetic.bscans import write_phantoms
from octc.machine.checks import Check
from octc.store import listing as store
from octc.train.recipes import listing as recipes
from tests.printed import told
from tests.tiny_artifacts import shared_run

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine with no weights in a cache, in a wide terminal."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize("what", ["models", "datasets", "recipes"])
def test_list(what: str, said: Said, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion) -> None:
    """Of a few entries: how they are printed, and not which ones there are."""
    monkeypatch.setattr(recipes, "EVERY", {name: recipes.EVERY[name] for name in ("edge", "kd-oct", "smoke", "retnet-smoke")})
    monkeypatch.setattr(store, "DATASETS", {name: store.DATASETS[name] for name in ("ucsd", "folder", "phantom")})
    code, out, err = said("list", what)
    assert (code, err) == (0, "")
    assert re.sub(" {2,}", "  ", out) == snapshot


def test_list_runs(said: Said, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    shutil.copytree(shared_run().path.parent, tmp_path / "runs")
    code, out, err = said("list", "runs")
    assert (code, err) == (0, "")
    assert told(out) == snapshot


def test_predict(said: Said, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    run = shared_run()
    shutil.copytree(run.path.parent, tmp_path / "runs")
    (tmp_path / "images").mkdir()
    for picture in (run.path.parent.parent / "patterns").glob("*/*-0-0.png"):
        shutil.copy(picture, tmp_path / "images")
    (tmp_path / "images" / "broken.png").write_bytes(b"no picture")
    code, out, err = said("predict", "images")
    assert code == 3
    assert told(out, figures=True) == snapshot(name="stdout")
    assert told(err, figures=True) == snapshot(name="stderr")


def test_data_check(said: Said, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    write_phantoms(tmp_path / "drawn", 4, 4, 0, size=(128, 124))
    scans = tmp_path / "drawn" / "CellData" / "OCT"
    shutil.copy(next((scans / "test" / "CNV").iterdir()), scans / "train" / "CNV" / "CNV-9-1.jpeg")
    code, out, err = said("data", "check", "drawn")
    assert code == 1
    assert told(out) == snapshot(name="stdout")
    assert told(err) == snapshot(name="stderr")


CHECKS = [
    Check("Python and packages", "ok", "Python 3.11.7"),
    Check("CPU", "info", "8 cores, of which this process may use 2 (affinity), which every figure of octc bench is about"),
    Check("Runtimes", "warning", "onnxruntime 1.26.0 and onnxruntime-gpu overlap", hint="pip uninstall one of them"),
    Check("Runtimes", "problem", "openvino does not start", hint="pip install -U openvino", code="OCT-E903"),
]


def test_doctor(said: Said, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion) -> None:
    """How checks are printed; what they find on this machine is tested in test_doctor.py."""
    monkeypatch.setattr("octc.runtimes.doctor.examine", lambda _: list(CHECKS))
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = said("doctor")
    assert code == 4
    assert out == snapshot(name="stdout")
    assert err == snapshot(name="stderr")
