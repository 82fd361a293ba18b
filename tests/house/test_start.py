"""Starting is cheap: what is loaded for help is tested beside the door (tests/cli/test_main.py), here it is timed."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 0.6  # of processor time; about 0.15 on a laptop, and a library like torch alone takes more than 2


def seconds_of(words: list[str], folder: Path) -> float:
    """Processor time of a command, which other work on the machine does not lengthen as it does the wall clock's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "octc.cli._app.main", *words]
    subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["export", "--help"], ["verify", "--help"], ["train", "student", "--help"]],
    ids=" ".join,
)
def test_help_and_version_are_quick(words: list[str], tmp_path: Path) -> None:
    assert any(seconds_of(words, tmp_path) < SECONDS for _ in range(3))
