"""tests/run.py: what it takes for a killed worker, and what for a failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT
from tests.run import GROUPS, only_killed

CRASH = "FAILED tests/a.py::b - worker 'gw1' crashed while running 'tests/a.py::b'"
DOWN = "[gw1] node down: Not properly terminated"


@pytest.mark.parametrize(
    ("output", "killed"),
    [
        (f"{DOWN}\n{CRASH}\n", True),
        (f"{DOWN}\n{CRASH}\nFAILED tests/c.py::d - assert 1 == 2\n", False),
        (f"{DOWN}\n{CRASH}\nERROR tests/c.py::d\n", False),
        ("FAILED tests/c.py::d - assert 1 == 2\n", False),
        ("3 passed\n", False),
    ],
)
def test_only_a_killed_worker_is_run_again(output: str, killed: bool) -> None:
    assert only_killed(output) is killed


def test_every_folder_with_tests_is_in_one_group() -> None:
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("*/test_*.py")}
    listed = [folder for group in GROUPS for folder in group]
    assert sorted(listed) == sorted(folders)
    assert not list((ROOT / "tests").glob("test_*.py"))


DIES_ONCE = """
import os, signal
from pathlib import Path
def test_dies():
    mark = Path(__file__).with_name("died")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
def test_more():
    assert MORE
"""


@pytest.mark.parametrize(("more", "code"), [("True", 0), ("False", 1)])
def test_a_worker_killed_for_real(more: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone: x\naddopts = -q\n")
    (tmp_path / "test_it.py").write_text(DIES_ONCE.replace("MORE", more))
    command = [sys.executable, str(ROOT / "tests" / "run.py"), "-p", "no:cacheprovider", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout
    assert done.stdout.count("this group is run again, once") == 1
    assert done.stdout.splitlines()[-1].startswith("2 passed in" if code == 0 else "1 failed, 1 passed in")
