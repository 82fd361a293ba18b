"""`octc.predict_archive` with real processes: resume, damage, growth, other artifacts, two writers, engines that die."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

import octc
from octc.archive import plan
from octc.archive.job import ArchiveOptions, ArchiveResult
from octc.archive.listing import Entry
from octc.archive.store import Shard, holding
from octc.cli._app.main import main
from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.core.progress import LogReporter, Step
from octc.volumes import read_volume
from octc.volumes import writing as stacks
from tests.archive.world import forked_workers, rows, small_units, write_pictures, write_volume
from tests.octc.volumes.opt_objects import parts
from tests.tiny_artifacts import artifact_folder

__all__ = ["forked_workers", "small_units"]  # fixtures
pytestmark = pytest.mark.usefixtures("small_units")
Go = Callable[..., ArchiveResult]


@dataclass
class World:
    """An archive and its results; `go` is the command."""

    archive: Path
    results: Path
    reporter: LogReporter = field(default_factory=LogReporter)

    def go(self, *words: Path | str, **options: Any) -> ArchiveResult:
        asked = ArchiveOptions(**{"workers": 1, "anyway": True, **options})
        inputs = words or (self.archive,)
        return octc.predict_archive(artifact_folder(), inputs, self.results, options=asked, reporter=self.reporter)

    def parts(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in sorted((self.results / "scans").iterdir())}


@pytest.fixture
def world(tmp_path: Path, forked_workers: None) -> World:
    write_pictures(tmp_path / "archive", 20)
    write_volume(tmp_path / "archive" / "site-1" / "eye", frames=3)
    return World(tmp_path / "archive", tmp_path / "results")


def test_rows_do_not_depend_on_the_number_of_processes_and_a_second_call_does_nothing(world: World, tmp_path: Path) -> None:
    first = world.go(workers=2)
    assert (first.complete, first.inputs, first.scans, first.eyes, first.failed) == (True, 21, 23, 1, 0)
    assert first.units == first.done > 3
    other = World(world.archive, tmp_path / "other")
    other.go()
    for kind in ("scans", "eyes", "failed"):
        assert rows(world.results, kind) == rows(other.results, kind)
    manifest = json.loads((world.results / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["counts"]["scans"] == 23
    before = world.parts()
    again = world.go()
    assert (again.done, world.parts()) == (0, before)
    assert (world.results / "_SUCCESS").is_file()


def test_damaged_shards_are_made_again_and_a_clock_does_not_matter(world: World) -> None:
    world.go()
    expected = rows(world.results)
    parts = sorted((world.results / "scans").iterdir())
    parts[0].write_bytes(parts[0].read_bytes()[:-9])
    data = bytearray(parts[1].read_bytes())
    data[40] ^= 255
    parts[1].write_bytes(data)
    parts[2].unlink()
    for path in world.results.rglob("*"):
        os.utime(path, (2**32, 2**32))  # written in the future: the clock was set back
    journal = world.results / "journal-all.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"unit": 9, "torn')
    found = world.go()
    assert (found.done, found.complete) == (3, True)
    assert rows(world.results) == expected
    assert [one["code"] for one in world.reporter.warnings].count("OCT-W808") == 3
    assert world.go().done == 0


def test_an_archive_that_changes_costs_what_changed(world: World) -> None:
    first = world.go()
    before = rows(world.results)
    pictures = sorted(world.archive.rglob("*.png"))
    pictures[0].write_bytes(pictures[-1].read_bytes())  # changed
    pictures[6].unlink()  # gone: its row stays
    added = shutil.copy(pictures[3], world.archive / "site-0" / "scan-0000b.png")
    second = world.go()
    assert (second.complete, second.inputs, second.failed) == (True, first.inputs + 1, 0)
    after = {row["file"]: row for row in rows(world.results) if row["frame"] is None}
    old = {row["file"]: row for row in before if row["frame"] is None}
    assert after[str(pictures[0])]["sha256"] == old[str(pictures[-1])]["sha256"]
    assert after[str(added)]["p_dark"] == pytest.approx(old[str(pictures[3])]["p_dark"], abs=1e-6)
    same = {file for file, row in old.items() if after[file] == row}
    assert same == set(old) - {str(pictures[0])}
    assert world.go().done == 0


def test_what_is_left_out_of_folders_is_said_each_time(world: World, caplog: pytest.LogCaptureFixture) -> None:
    (world.archive / "notes.txt").write_text("a text")
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO", "octc"):
            world.go()
        assert "left out of the folders: 1 .txt" in caplog.text


def test_failed_inputs_are_tried_again_when_asked(world: World) -> None:
    bad = sorted(world.archive.rglob("*.png"))[5]
    data = bad.read_bytes()
    bad.chmod(0o600)
    bad.write_bytes(data[:50])
    first = world.go()
    assert (first.failed, first.complete) == (1, True)
    (row,) = rows(world.results, "failed")
    assert (row["file"], row["code"], bool(row["message"]), bool(row["hint"])) == (str(bad), "OCT-E201", True, True)
    assert world.go().done == 0
    assert (world.go(retry_failed=True).failed, world.go(retry_failed=True).done) == (1, 1)
    bad.write_bytes(data)
    assert world.go().failed == 0
    assert rows(world.results, "failed") == []
    assert str(bad) in {row["file"] for row in rows(world.results)}


def test_another_artifact_or_other_options_never_mix(world: World) -> None:
    world.go()
    with pytest.raises(OctcError) as caught:
        octc.predict_archive(artifact_folder("onnx-fp32"), [world.archive], world.results)
    assert caught.value.code == "OCT-E110"
    with pytest.raises(OctcError) as caught:
        world.go(views="hflip")
    assert (caught.value.code, "views" in caught.value.hint) == ("OCT-E110", True)
    foreign = world.archive
    theirs = foreign / ".tmp-work"  # of another program: nothing is tidied in a folder that is refused
    theirs.mkdir()
    with pytest.raises(OctcError) as caught:
        octc.predict_archive(artifact_folder(), [world.archive], foreign)
    assert (caught.value.code, theirs.is_dir()) == ("OCT-E106", True)


def test_one_writer_at_a_time_and_parts_of_an_array_beside_each_other(world: World) -> None:
    with holding(world.results, Shard()), pytest.raises(OctcError) as caught:
        world.go()
    assert caught.value.code == "OCT-E108"
    with holding(world.results, Shard(2, 2)):
        half = world.go(shard="1/2")
        with pytest.raises(OctcError) as caught:
            world.go()
        assert caught.value.code == "OCT-E108"
    assert not half.complete
    assert not (world.results / "_SUCCESS").exists()
    lost = world.results / "scans" / ".tmp-2147483000-part-000000.parquet"  # of a worker that was killed; no such process
    lost.write_bytes(b"PAR1")
    whole = world.go(shard="2/2")
    assert whole.complete
    assert not lost.exists()
    assert half.done + whole.done == whole.units
    assert (world.results / "_SUCCESS").exists()


def test_parts_of_an_array_that_end_together_close_the_results(world: World) -> None:
    """Both have looked at the journals before either has done a unit, as jobs of an array do."""
    both, found = threading.Barrier(2), {}

    class Together(LogReporter):
        def say(self, text: str) -> None:
            if "inputs in" in text:
                both.wait(60)

    def go(part: str) -> None:
        found[part] = World(world.archive, world.results, Together()).go(shard=part)

    threads = [threading.Thread(target=go, args=(part,)) for part in ("1/2", "2/2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.complete for one in found.values()} >= {True}
    assert max(one.scans for one in found.values()) == 23
    assert (world.results / "_SUCCESS").is_file()
    assert json.loads((world.results / "manifest.json").read_text())["counts"]["scans"] == 23


def test_a_part_that_ends_while_another_tries_again_does_not_close_the_results(world: World) -> None:
    """Every unit was done before, so that the first part to end closed the results over rows that the other was making anew."""
    bad = sorted(world.archive.rglob("*.png"))[5]  # of the second unit
    data = bad.read_bytes()
    bad.write_bytes(data[:50])
    assert world.go().failed == 1
    bad.write_bytes(data)
    found = []

    class Beside(LogReporter):
        def progress(self, label: str, total: int | None) -> AbstractContextManager[Step]:
            found.append(world.go(shard="1/2"))  # now, when this part has begun to work
            found.append((world.results / "_SUCCESS").exists())
            return super().progress(label, total)

    again = World(world.archive, world.results, Beside()).go(shard="2/2", retry_failed=True)
    assert (found[0].done, found[1]) == (0, False)
    assert (again.done, again.complete, again.failed) == (1, True, 0)
    assert (world.results / "_SUCCESS").is_file()
    assert rows(world.results, "failed") == []
    manifest = json.loads((world.results / "manifest.json").read_text())
    assert (manifest["counts"]["scans"], manifest["counts"]["failed"]) == (23, 0)
    for name, part in manifest["files"].items():
        assert sha256_file(world.results / name) == part["sha256"]


def test_parts_of_two_divisions_do_not_work_beside_each_other(world: World) -> None:
    """1/2 and 1/3 have units in common; 1/2 and 2/2 have none, and what has ended hinders nobody."""
    with holding(world.results, Shard(1, 2)):
        with pytest.raises(OctcError) as caught:
            world.go(shard="1/3")
        assert caught.value.code == "OCT-E108"
        assert world.go(shard="2/2").done > 0
    assert world.go(shard="1/3").done > 0
    assert world.go().complete


def test_a_thousandth_file_of_the_plan_is_behind_the_others(tmp_path: Path) -> None:
    """Units are numbered by them: a job that finds new files every hour is there in six weeks."""
    for number in (998, 999, 1000, 1001, 100):
        (tmp_path / f"plan-{number:03d}.parquet").touch()
    assert [path.name[5:-8] for path in plan.plan_files(tmp_path)] == ["100", "998", "999", "1000", "1001"]


def test_a_word_that_names_nothing_never_becomes_an_input(world: World, tmp_path: Path) -> None:
    named = tmp_path / "named.png"
    shutil.copy(next(world.archive.rglob("*.png")), named)
    with pytest.raises(OctcError) as caught:
        world.go(tmp_path / "tpyo")
    assert (caught.value.code, world.results.exists()) == ("OCT-E201", False)
    assert world.go(world.archive, named).inputs == 22
    with pytest.raises(OctcError) as caught:
        world.go(world.archive, named, tmp_path / "tpyo")
    assert (caught.value.code, str(caught.value.place)) == ("OCT-E201", str(tmp_path / "tpyo"))
    named.unlink()  # it was an input when it was there, and keeps its rows
    again = world.go(world.archive, named)
    assert (again.inputs, again.scans, again.failed, again.complete) == (22, 24, 0, True)


def test_columns_that_change_in_the_table_are_refused(world: World, tmp_path: Path) -> None:
    pictures = sorted(world.archive.rglob("*.png"))[:6]
    lines = ["path,site,age", *(f"{path},{'ab'[place % 2]},{'' if place else 5.5}" for place, path in enumerate(pictures))]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines[:-1]))
    assert world.go(table).scans == 5
    table.write_text("\n".join(lines))  # a line more, all others as they were
    assert (world.go(table).done, world.go(table).done) == (1, 0)
    for changed in (["path,site,age", *lines[2:], lines[1]], lines):
        for place in (1, 3):
            one = list(changed)
            one[place] = one[place].replace(",a,", ",c,").replace(",b,", ",c,")
            table.write_text("\n".join(one))
            with pytest.raises(OctcError) as caught:
                world.go(table)
            assert caught.value.code == "OCT-E110"
    table.write_text("\n".join(lines))
    assert world.go(table).done == 0
    assert [row["site"] for row in rows(world.results)] == list("ababab")


def test_no_name_and_no_manifest_ends_the_job(world: World) -> None:
    """Messages hold names that are no UTF-8, and a manifest may say anything: each is a row, and the others are done."""
    for name in (b"a\xff.png", b"b\xff.vol"):
        (Path(os.fsdecode(os.fsencode(world.archive / "site-0") + b"/" + name))).write_bytes(b"nothing")
    facts: list[tuple[str, Any]] = [("device", 5), ("acquired", [1]), ("patient", 7), ("patient", "Erika Mustermann")]
    for number, (name, value) in enumerate([*facts, ("device", "half \ud800")]):
        folder = world.archive / "site-1" / f"stack-{number}"
        stacks.write_pictures(read_volume(world.archive / "site-1" / "eye.vol"), folder)
        text = json.loads((folder / "volume.json").read_text())
        (folder / "volume.json").write_text(json.dumps({**text, name: value}))
    found = world.go()
    assert found.complete
    codes = {Path(row["file"]).parent.name + "/" + Path(row["file"]).name: row["code"] for row in rows(world.results, "failed")}
    assert codes == {
        "site-0/a\\xff.png": "OCT-E202",
        "site-0/b\\xff.vol": "OCT-E202",
        **{f"stack-{number}/volume.json": "OCT-E222" for number in range(4)},
    }
    (odd,) = {row["scanner"] for row in rows(world.results) if "stack-4/volume.json" in row["file"]}
    assert odd == "half \\ud800"
    assert not any("Mustermann" in str(row) for kind in ("scans", "eyes", "failed") for row in rows(world.results, kind))


def test_parts_of_a_concatenation_are_one_volume_wherever_units_are_cut(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    parts(folder, total=6, counts=(1,) * 6)  # the first unit has four of them
    found = world.go(folder)
    assert (found.units > 1, found.inputs, found.failed, found.eyes) == (True, 6, 0, 1)
    assert {row["file"] for row in rows(world.results)} == {str(folder / "part-1.dcm")}
    assert [row["frame"] for row in rows(world.results)] == list(range(6))


def test_rows_that_a_unit_has_no_longer_are_gone_when_the_results_are_closed(world: World) -> None:
    """The process ended between the journal's line and the removal of what the line does not name."""
    world.go()
    stale = world.results / "eyes" / "part-000000.parquet"
    assert not stale.exists()
    shutil.copy(next((world.results / "eyes").iterdir()), stale)
    (world.results / "_SUCCESS").unlink()
    assert world.go().complete
    assert not stale.exists()
    assert len(rows(world.results, "eyes")) == 1


def test_an_export_that_lacks_a_picture_is_one_volume_where_that_is_allowed(world: World, tmp_path: Path) -> None:
    stacks.write_pictures(read_volume(world.archive / "site-1" / "eye.vol"), tmp_path / "stack")
    (tmp_path / "stack" / "00001.png").unlink()
    found = world.go(tmp_path / "stack", allow_cut=True)
    assert (found.inputs, found.scans, found.eyes) == (1, 2, 1)


def test_a_suspicious_start_stops(world: World) -> None:
    for path in sorted(world.archive.rglob("*.png"))[:3]:
        path.write_bytes(b"nothing")
    with pytest.raises(OctcError) as caught:
        world.go(anyway=False)
    assert caught.value.code == "OCT-E802"
    assert "3 of 4 cannot be read" in caught.value.message
    assert len(world.parts()) == 1
    with pytest.raises(OctcError) as caught:
        world.go(anyway=False)
    assert len(world.parts()) == 1
    assert world.go().complete


def test_columns_of_a_table_stay_with_their_rows(world: World, tmp_path: Path) -> None:
    pictures = sorted(world.archive.rglob("*.png"))[:7]
    table = pa.table({"Path": [str(path.relative_to(tmp_path)) for path in pictures], "site": list("abcabca"), "age": range(7)})
    parquet.write_table(table, tmp_path / "table.parquet")
    assert world.go(tmp_path / "table.parquet").scans == 7
    assert [(row["file"], row["site"], row["age"]) for row in rows(world.results)] == [
        (str(path), "abcabca"[place], place) for place, path in enumerate(pictures)
    ]
    (tmp_path / "table.csv").write_text(f'image;"eye; side";id\n{pictures[0]};01;007\n{pictures[1]};02;\n')
    other = World(world.archive, tmp_path / "other")
    other.go(tmp_path / "table.csv")
    assert [(row["eye; side"], row["id"]) for row in rows(other.results)] == [("01", "007"), ("02", None)]
    text = f'image;"eye; side";id\n{pictures[0]};01;007\n{pictures[1]};02;\n'
    for number, (mark, encoding) in enumerate((("sep=;\r\n", "utf-8-sig"), ("sep=;\n", "utf-16"), ("", "utf-16"))):
        (tmp_path / "table.csv").write_bytes((mark + text).encode(encoding))
        other = World(world.archive, tmp_path / f"other{number}")
        other.go(tmp_path / "table.csv")
        assert [(row["eye; side"], row["id"]) for row in rows(other.results)] == [("01", "007"), ("02", None)]
    for text, code in (
        (f"image;label\n{pictures[0]};x\n", "OCT-E209"),  # a name of ours
        (f"image;Label\n{pictures[0]};x\n", "OCT-E209"),  # one for SQL
        (f"image;Site;site\n{pictures[0]};x;y\n", "OCT-E209"),
        (f"image;id\n{pictures[0]};1\n{pictures[0]};2\n", "OCT-E209"),  # twice
        ("name;id\na;1\n", "OCT-E209"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(OctcError) as caught:
            World(world.archive, tmp_path / "bad").go(tmp_path / "bad.csv")
        assert caught.value.code == code, text


def test_globs_and_words_that_overlap_name_an_input_once(world: World) -> None:
    found = world.go(str(world.archive / "site-0" / "*.png"), world.archive / "site-0", world.archive / "site-1" / "eye.vol")
    files = [row["file"] for row in rows(world.results)]
    assert len([file for file in files if file.endswith(".png")]) == len(set(files)) - 1 == found.inputs - 1
    with pytest.raises(OctcError) as caught:
        World(world.archive, world.results / "x").go(str(world.archive / "*.nothing"))
    assert caught.value.code == "OCT-E201"


def test_units_grow_with_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "FIRST", 10)
    monkeypatch.setattr(plan, "MOST", 40)
    plan.write_plan(tmp_path / "plan", (Entry(str(number)) for number in range(1000)), pa.schema([]), first=True)
    sizes = [unit.inputs for unit in plan.read_units(tmp_path / "plan")]
    assert sum(sizes) == 1000
    assert sizes[:9] == [10] * 9
    assert sizes[:-1] == sorted(sizes[:-1])
    assert max(sizes) == 40


PYTHON = sys.executable
KILLING = """
import os, signal
from octc.runtimes import onnxrt
call = onnxrt.OrtRuntime.__call__
def deadly(self, batch):
    if (batch[:, 0] == {grey}).all(axis=(1, 2)).any():
        os.kill(os.getpid(), signal.SIGSEGV)
    return call(self, batch)
onnxrt.OrtRuntime.__call__ = deadly
"""


def test_an_engine_that_dies_of_images_does_the_others(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", PYTHON)  # it reads sitecustomize.py
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(KILLING.format(grey=77))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hook"))
    deadly = np.full((64, 64), 77, np.uint8)
    killer = sorted(world.archive.rglob("*.png"))[9]
    Image.fromarray(deadly).save(killer)
    found = world.go(world.archive / "site-1")
    assert found.complete
    (row,) = rows(world.results, "failed")
    assert (row["file"], row["code"], row["frame"]) == (str(killer), "OCT-E610", None)
    assert "signal 11" in row["message"]
    assert found.scans == found.inputs - 1 - 1 + 3  # a volume of three B-scans among them


def test_processes_that_always_end_stop_the_job(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", PYTHON)  # it reads sitecustomize.py
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text("import os; os.write(2, b'no licence\\n'); os._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hook"))
    with pytest.raises(OctcError) as caught:
        world.go()
    assert caught.value.code == "OCT-E611"
    assert "exit code 7 (no licence)" in caught.value.message


def test_the_command_prints_what_lies_there_and_ends_with_the_failures(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sorted(world.archive.rglob("*.png"))[5].write_bytes(b"")
    words = ["predict", str(artifact_folder()), str(world.archive), "--out", str(world.results), "--workers", "1"]
    assert main([*words, "--json"]) == 3
    value = json.loads(capsys.readouterr().out)
    assert (value["error"]["code"], value["data"]["failed"], value["data"]["complete"]) == ("OCT-E801", 1, True)
    assert main([*words, "--format", "csv"]) == 2
    assert main([*words[:3], "--workers", "1"]) == 2
