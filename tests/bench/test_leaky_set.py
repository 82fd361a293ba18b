"""Metrics on a released split carry the word LEAKY, and no report of them says that there is no leakage."""

from __future__ import annotations

from pathlib import Path

from octc.bench.parity.evaluation_set import read_set
from octc.datasets.registry import scan_dataset
from octc.datasets.released_splits import make_splits
from octc.datasets.synthetic.bscans import write_phantoms
from octc.store.runs import Run


def test_a_set_of_a_released_split_says_that_it_leaks(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "data", 12, 6, 0, size=(64, 62))
    samples = scan_dataset("phantom", tmp_path / "data")
    for protocol, leakage in (("clean", "none"), ("as-released", "LEAKY split (as-released)")):
        run = Run(tmp_path / protocol)
        make_splits(samples, "phantom", protocol)[0].write(run.split)
        found = read_set(run, tmp_path / "data", "test")
        assert found.leakage.startswith(leakage)
        assert ("LEAKY" in found.note) == (protocol != "clean")
        assert "synthetic images" in found.note
    assert found.protocol == "as-released test set"
