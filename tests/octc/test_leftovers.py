"""What killed processes left half-written is removed; what a living one writes stays."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from octc.core.files import remove_leftovers


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


def test_a_link_goes_and_not_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("whole")
    (tmp_path / ".tmp-export-link").symlink_to(tmp_path / "there")
    assert remove_leftovers(tmp_path) == [".tmp-export-link"]
    assert (tmp_path / "there" / "file").read_text() == "whole"
