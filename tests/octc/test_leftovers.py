"""What killed processes left half-written is removed; what a living one writes stays."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from octc.core import files
from octc.core.files import publishing, remove_leftovers, write_bytes


def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_what_nobody_writes_goes(tmp_path: Path) -> None:
    gone, ours, held = (f".tmp-{number}-{name}" for number, name in ((dead(), "a"), (os.getpid(), "b"), (dead(), "c")))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / gone).write_text("half")
    (tmp_path / ours).write_text("half")
    (tmp_path / held).write_text("half")
    (tmp_path / ".tmp-export-onnx").mkdir()
    (tmp_path / ".tmp-export-onnx" / "model.onnx").write_text("half")
    (tmp_path / "kept").write_text("whole")
    with (tmp_path / held).open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert sorted(remove_leftovers(tmp_path)) == sorted([gone, ".tmp-export-onnx"])
    assert {path.name for path in tmp_path.iterdir()} == {"below", "kept", ours, held}
    assert remove_leftovers(tmp_path) == [held]
    assert not list((tmp_path / "below").iterdir())


WRITER = """
import os, sys
from pathlib import Path
from octc.core.files import replacing
with replacing(Path(sys.argv[1])) as temporary, temporary.open("w") as stream:
    stream.write("half")
    stream.flush()
    print(temporary, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("late", [0, 86_400 * 365])
def test_what_a_living_process_writes_stays_when_the_clock_is_set_on(
    late: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a box without a battery is set on by years once it has a network: its start, which the kernel reckons
    from now, is then later than any file of before."""
    pipe = subprocess.PIPE
    words = [sys.executable, "-c", WRITER, str(tmp_path / "table.csv")]
    process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    path = Path(process.stdout.readline().rstrip())
    boot, now = files._boot(), time.time()
    monkeypatch.setattr(files, "_boot", lambda: boot + late)
    monkeypatch.setattr(time, "time", lambda: now + late)
    assert remove_leftovers(tmp_path) == []
    assert path.read_text() == "half"
    process.communicate("")
    assert process.returncode == 0
    assert (tmp_path / "table.csv").read_text() == "half"


def test_a_number_that_another_process_has_now_does_not_keep_what_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f".tmp-{os.getpid()}-table.csv"
    path.write_text("half")
    monkeypatch.setattr(files, "_boot", time.time)
    assert remove_leftovers(tmp_path) == [path.name]


def test_what_gets_its_name_while_it_is_looked_at_is_nobodys_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation notes what it did in run.json beside the process that owns the run and tidies it."""
    path, walk = tmp_path / f".tmp-{os.getpid()}-run.json", os.walk
    path.write_text("whole")

    def meanwhile(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in walk(folder):
            path.rename(tmp_path / "run.json")
            yield found

    monkeypatch.setattr(os, "walk", meanwhile)
    assert remove_leftovers(tmp_path) == []
    assert (tmp_path / "run.json").read_text() == "whole"


def test_a_link_goes_and_not_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("whole")
    (tmp_path / ".tmp-export-link").symlink_to(tmp_path / "there")
    assert remove_leftovers(tmp_path) == [".tmp-export-link"]
    assert (tmp_path / "there" / "file").read_text() == "whole"


LONG_AGO = 2 * files.QUIET


def left(path: Path, age: float = LONG_AGO) -> Path:
    """What a process that was killed left of a file or folder, unchanged since."""
    if path.suffix:
        path.write_text("half")
    else:
        path.mkdir()
        (path / "inside").write_text("half")
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
    return path


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has not looked at any folder yet."""
    monkeypatch.setattr(files, "_cleared", set())


@pytest.mark.usefixtures("forgetful")
def test_whoever_writes_a_file_anew_removes_what_was_left_of_it_and_of_its_kind(tmp_path: Path) -> None:
    pid = dead()
    gone = [left(tmp_path / f".tmp-{pid}-{name}") for name in ("verify-3.json", "verify-41.json")]
    kept = [
        left(tmp_path / f".tmp-{os.getpid()}-verify-5.json", age=-3), left(tmp_path / f".tmp-{pid}-verify-7.json", age=60),
        left(tmp_path / f".tmp-{pid}-other.json"), left(tmp_path / ".tmp-x-verify-3.json"), left(tmp_path / "verify-9.json"),
    ]  # fmt: skip
    write_bytes(tmp_path / "verify-3.json", b"whole")
    assert [path.exists() for path in gone] == [False, False]
    assert all(path.exists() for path in kept)


@pytest.mark.usefixtures("forgetful")
def test_whoever_publishes_a_folder_removes_what_was_left_of_it_and_of_its_kind(tmp_path: Path) -> None:
    pid = dead()
    gone = [left(tmp_path / f".tmp-{pid}-report-2026120{day}-080000") for day in (1, 2)]
    gone += [left(tmp_path / f".tmp-{pid}-old-report-20261203-080000")]
    held = left(tmp_path / f".tmp-{pid}-report-20261204-080000")
    other = left(tmp_path / f".tmp-{pid}-page")
    with held.joinpath("inside").open(), files._locked(held), publishing(tmp_path / "report-20261205-080000") as folder:
        (folder / "inside").write_text("whole")
    assert [path.exists() for path in (*gone, held, other)] == [False, False, False, True, True]
    assert (tmp_path / "report-20261203-080000" / "inside").read_text() == "half"  # moved aside, and nothing took its place
    assert (tmp_path / "report-20261205-080000" / "inside").read_text() == "whole"
