"""Inputs that could not be read, or that change, and calls that are given again: pictures of an export, folders, files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from octc.archive.listing import CLOSED, GONE, state_of
from octc.datasets.synthetic import volumes as synthetic
from octc.datasets.synthetic.volumes import DrawnEye
from tests.archive.test_archive import World
from tests.archive.world import forked_workers, patterns, rows, small_units, write_pictures
from tests.class_tree import must_obey, obey_permissions
from tests.tiny_artifacts import artifact_folder

__all__ = ["forked_workers", "small_units"]  # fixtures
pytestmark = pytest.mark.usefixtures("small_units")


def write_export(folder: Path, frames: int = 4) -> Path:
    """Heidelberg's XML whose B-scans are known pictures, and a photograph of the eye's surface."""
    known = patterns()[:: len(patterns()) // frames][:frames]
    scans = np.stack([np.asarray(Image.open(one).convert("L").resize((64, 64))) for one in known])
    folder.mkdir(parents=True)
    path = synthetic.write_xml(DrawnEye(scans, "L", "SYN-1", datetime(2026, 1, 2, 3, 4), "lying"), folder)
    Image.fromarray(scans[0].T.copy()).save(folder / "slo.bmp")
    photograph = "<Image><ImageType><Type>LOCALIZER</Type></ImageType><ImageData><ExamURL>slo.bmp</ExamURL></ImageData></Image>"
    path.write_text(path.read_text().replace("<Image>", photograph + "<Image>", 1))
    return path


def test_pictures_of_an_export_that_change_are_seen(tmp_path: Path, forked_workers: None) -> None:
    """Its unit is done again for each change of a part, and for no other reason."""
    write_pictures(tmp_path / "archive", 5, folders=1)
    path = write_export(tmp_path / "archive" / "eye")
    world = World(tmp_path / "archive", tmp_path / "results")
    first = world.go()
    assert (first.inputs, first.scans, first.eyes, first.failed) == (6, 9, 1, 0)
    before = rows(world.results)
    second = path.with_name("001.bmp")
    kept = second.read_bytes()
    second.write_bytes(path.with_name("002.bmp").read_bytes())
    assert (world.go().done, world.go().done) == (1, 0)
    after = {row["frame"]: row for row in rows(world.results) if row["file"] == str(path)}
    assert [after[1][f"p_{name}"] for name in ("lying", "upright")] == [after[2][f"p_{name}"] for name in ("lying", "upright")]
    second.unlink()
    gone = world.go()
    assert (gone.done, gone.failed, gone.scans, gone.eyes, gone.inputs) == (1, 1, 5, 0, 6)
    second.write_bytes(kept)
    back = world.go()
    assert (back.done, back.failed, back.scans, back.eyes) == (1, 0, 9, 1)
    assert rows(world.results) == before


def test_the_state_of_an_export_is_that_of_all_of_its_files(tmp_path: Path) -> None:
    path = write_export(tmp_path / "eye")
    states = {state_of(path)}
    for change in (
        lambda: os.utime(path.with_name("003.bmp"), (1, 1)), lambda: path.with_name("slo.bmp").unlink(),
        lambda: path.with_name("000.bmp").write_bytes(b"x"), lambda: os.utime(path, (2, 2)),
    ):  # fmt: skip
        change()
        assert state_of(path) == state_of(path)
        states.add(state_of(path))
    assert len(states) == 5
    assert state_of(tmp_path / "eye") == GONE != CLOSED
    assert state_of(tmp_path / "none.xml") == GONE


Octc = Callable[..., Any]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Path]:
    """Pictures in two folders, of which the second may not be looked into, and one picture that may not be read."""
    must_obey()
    write_pictures(tmp_path / "archive", 6, folders=2)
    closed = tmp_path / "archive" / "site-1"
    (tmp_path / "archive" / "site-0" / "scan-0001.png").chmod(0)
    closed.chmod(0)
    yield tmp_path / "archive"
    closed.chmod(0o700)


def test_a_folder_that_can_be_read_again_is_no_failed_input(archive: Path, tmp_path: Path, octc: Octc) -> None:
    results, closed = tmp_path / "results", archive / "site-1"

    def go(*more: str) -> dict[str, Any]:
        words = ("predict", artifact_folder(), archive, "--out", results, "--anyway", "--workers", "1", "--json", *more)
        done = octc(*words, preexec_fn=obey_permissions)
        assert done.returncode in (0, 3), done.stderr
        return {"code": done.returncode, "stderr": done.stderr, **json.loads(done.stdout)}

    first = go()
    assert first["code"] == 3
    assert {(row["file"], row["code"]) for row in rows(results, "failed")} == {
        (str(closed), "OCT-E231"), (str(archive / "site-0" / "scan-0001.png"), "OCT-E201"),
    }  # fmt: skip
    assert len(rows(results)) == 2
    journal = results / "journal-all.jsonl"
    lines = len(journal.read_text().splitlines())
    assert "2 inputs failed before" in go()["stderr"]
    assert len(journal.read_text().splitlines()) == lines, "nothing is done twice"
    closed.chmod(0o700)
    go("--shard", "1/1")
    assert [row["code"] for row in rows(results, "failed")] == ["OCT-E201"]
    assert len(rows(results)) == 5
    (archive / "site-0" / "scan-0001.png").chmod(0o600)
    again = go("--retry-failed")
    assert (again["code"], "1 inputs that failed are tried again" in again["stderr"]) == (0, True)
    assert json.loads(journal.read_text().splitlines()[-1])["again"] == 1
    assert rows(results, "failed") == []
    assert {row["file"] for row in rows(results)} == {str(path) for path in archive.rglob("*.png")}
    assert json.loads((results / "manifest.json").read_text())["counts"]["inputs"] == 6
    lines = len(journal.read_text().splitlines())
    assert go()["code"] == 0
    assert len(journal.read_text().splitlines()) == lines


def test_a_folder_that_opens_is_not_forgotten_by_a_part_of_an_array(archive: Path, tmp_path: Path, octc: Octc) -> None:
    """A part takes the plan as it is: what is in the folder is in no plan yet, so the folder stays named."""
    results = tmp_path / "results"
    words = (
        "predict",
        artifact_folder(),
        archive,
        "--out",
        results,
        "--anyway",
        "--workers",
        "1",
        "--shard",
        "1/2",
        "--retry-failed",
    )
    octc(*words, preexec_fn=obey_permissions)
    (archive / "site-1").chmod(0o700)
    octc(*words, preexec_fn=obey_permissions)
    failed = [row for path in sorted((results / "failed").iterdir()) for row in rows_of(path)]
    assert (str(archive / "site-1"), "OCT-E201") in {(row["file"], row["code"]) for row in failed}


def rows_of(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    return list(parquet.read_table(path).to_pylist())
