"""What is on this machine: rows of `octc list`, as a notebook has them."""

from __future__ import annotations

from pathlib import Path

from octc.datasets.registry import DATASETS
from octc.datasets.synthetic.bscans import write_phantoms
from octc.store.artifacts import MANIFEST
from octc.store.listing import list_datasets, list_runs
from octc.store.runs import create_run


def test_every_data_set_has_its_folder_or_what_to_do(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "drawn", 4, 4, 0, size=(64, 64))
    rows = {row.dataset: row for row in list_datasets(None, {"OCTC_DATA": str(tmp_path / "drawn")})}
    assert list(rows) == list(DATASETS)
    assert (rows["ucsd"].root, rows["ucsd"].missing) == (str(tmp_path / "drawn"), [])
    assert rows["phantom"].root is None  # drawn ones lie where they were drawn
    elsewhere = {row.dataset: row for row in list_datasets(str(tmp_path / "nowhere"), {})}
    assert all(row.root is None and row.missing and row.missing[0] for row in elsewhere.values())


def test_runs_are_listed_newest_first_with_what_comes_next(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "none") == []
    first, second, third = (create_run(tmp_path, "student", "folder") for _ in range(3))
    second.update(status="done")
    third.update(status="done")
    (third.artifacts / "onnx-int8").mkdir(parents=True)
    (third.artifacts / "onnx-int8" / MANIFEST).write_text("{}")
    rows = {row.run: row for row in list_runs(tmp_path)}
    assert list(rows) == [third.id, second.id, first.id]
    assert (rows[third.id].artifacts, rows[third.id].missing) == (["onnx-int8"], [])
    assert rows[second.id].missing == [f"octc export {second.id}"]
    assert (rows[first.id].missing, rows[first.id].kind, rows[first.id].dataset) == (["not finished"], "student", "folder")
