"""Temporary folders: what a killed process left goes, what anybody holds or made otherwise stays."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from octc.core.scratch import remove_left, scratch

HELD = """
import sys, time
from octc.core.scratch import scratch
with scratch("bench", sys.argv[1]) as folder:
    (folder / "half").write_text("half")
    print(folder, flush=True)
    time.sleep(60)
"""


def holder(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a temporary folder with something in it."""
    process = subprocess.Popen([sys.executable, "-c", HELD, str(place)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_folders_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    (killed, left), (living, held) = holder(tmp_path), holder(tmp_path)
    try:
        killed.kill()
        killed.wait()
        assert (left / "half").read_text() == (held / "half").read_text() == "half"
        with scratch("import", tmp_path) as mine, scratch("import", tmp_path) as other:
            assert set(tmp_path.iterdir()) == {held, mine, other}
        assert set(tmp_path.iterdir()) == {held}
        living.send_signal(signal.SIGINT)  # it goes its own way out
        living.wait()
        assert list(tmp_path.iterdir()) == []
    finally:
        for process in (killed, living):
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def test_folders_of_others_and_of_other_names_stay(tmp_path: Path) -> None:
    gone = [tmp_path / name for name in ("octc-tmp-bench-a1b2c3d4", ".octc-tmp-export-a1b2c3d4")]
    names = (
        "octc-tmp-bench-mine",
        "octc-bench-a1b2c3d4",
        "octc-tmp-a1b2c3d4",
        "octc-tmp-bench-a1b2c3d4.d",
        "octc-tmp-bench-A1B2C3D4",
    )
    kept = [tmp_path / name for name in names]
    for folder in (*gone, *kept):
        folder.mkdir(mode=0o700)
        (folder / "file").write_text("whole")
    (tmp_path / "octc-tmp-link-a1b2c3d4").symlink_to(kept[0])
    (tmp_path / "octc-tmp-file-a1b2c3d4").write_text("whole")
    shared = tmp_path / "octc-tmp-shared-a1b2c3d4"  # nobody but a person opens such a folder to others
    shared.mkdir()
    shared.chmod(0o755)
    assert sorted(remove_left(tmp_path)) == sorted(folder.name for folder in gone)
    assert {path.name for path in tmp_path.iterdir()} == {
        *names,
        shared.name,
        "octc-tmp-link-a1b2c3d4",
        "octc-tmp-file-a1b2c3d4",
    }
    assert all((folder / "file").read_text() == "whole" for folder in kept)


def test_a_folder_that_is_removed_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process looks between mkdtemp(3) and flock(2)."""
    made: list[str] = []
    make = tempfile.mkdtemp

    def seen(**words: object) -> str:
        made.append(make(**words))  # type: ignore[call-overload]
        return made[-1]

    opened = os.open

    def opening(path: object, *words: object, **more: object) -> int:
        handle: int = opened(path, *words, **more)  # type: ignore[call-overload]
        if len(made) == 1 and str(path) == made[0]:
            Path(made[0]).rmdir()
        return handle

    monkeypatch.setattr(tempfile, "mkdtemp", seen)
    monkeypatch.setattr(os, "open", opening)
    with scratch("bench", tmp_path) as folder:
        assert len(made) == 2
        assert str(folder) == made[1]
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_where_the_file_system_has_no_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    left = tmp_path / "octc-tmp-bench-a1b2c3d4"
    left.mkdir(mode=0o700)
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", none)
        with scratch("bench", tmp_path) as folder:
            assert folder.is_dir()
        assert list(tmp_path.iterdir()) == [left]
    assert remove_left(tmp_path) == [left.name]


def test_a_folder_that_somebody_takes_away_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that begin at once: the other one sees a folder that nobody holds yet."""
    made, gone = tempfile.mkdtemp, list[str]()

    def meanwhile(**words: str) -> str:
        folder = made(**words)
        if not gone:
            gone.extend(remove_left(tmp_path))
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", meanwhile)
    with scratch("bench", tmp_path) as folder:
        assert folder.is_dir()
        assert len(gone) == 1
        assert folder.name != gone[0]
