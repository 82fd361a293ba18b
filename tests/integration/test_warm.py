"""A process of tests/warm.py is one: its folder, variables, streams and arguments are the asker's, and so is its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Octc

Words = tuple[str, ...]
PROBE = """
import json, os, sys
print(json.dumps({"folder": os.getcwd(), "value": os.environ.get("OCTC_PROBE"), "arguments": sys.argv[1:], "name": __name__,
                  "input": sys.stdin.read(), "processors": sorted(os.sched_getaffinity(0)), "torch": "torch" in sys.modules,
                  "main": sys.modules["__main__"].__dict__ is globals()}))
sys.exit(7)
"""


@pytest.mark.parametrize("kind", ["-c", "-m", "file"])
def test_what_it_is_given_and_how_it_ends(kind: str, warm: Words, tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    words = {"-c": ["-c", PROBE], "-m": ["-m", "probe"], "file": [str(tmp_path / "probe.py")]}[kind]
    done = subprocess.run(
        [*warm, *words, "one", "two words"], cwd=tmp_path, env={**os.environ, "OCTC_PROBE": "given"}, input="said", text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout) == {
        "folder": str(tmp_path), "value": "given", "arguments": ["one", "two words"], "name": "__main__", "input": "said",
        "processors": sorted(os.sched_getaffinity(0)), "torch": True, "main": True,
    }  # fmt: skip


def test_every_folder_of_octc_is_imported_and_no_program(warm: Words, tmp_path: Path) -> None:
    probe = "import sys; print(*sorted(name for name in sys.modules if name.startswith('octc.')))"
    done = subprocess.run([*warm, "-c", probe], cwd=tmp_path, text=True, capture_output=True, timeout=60, check=True)
    found = done.stdout.split()
    assert {"octc.train", "octc.export.run", "octc.bench.parity", "octc.archive", "octc.serve", "octc.cli.list"} <= set(found)
    assert not {"octc.cli._app.main", "octc.archive.worker", "octc.bench.timing.worker"} & set(found)


def test_an_octc_is_forked_whatever_was_imported_meanwhile(octc: Octc, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries set variables as they are imported (scikit-learn those of KMP_): all files are, before the first test."""
    monkeypatch.setenv("KMP_INIT_AT_FORK", "FALSE")
    started, run = [], subprocess.run

    def seen(words: list[str], **more: Any) -> Any:
        started.append(words)
        return run(words, **more)

    monkeypatch.setattr(subprocess, "run", seen)
    assert octc("--version").returncode == 0
    (words,) = started
    assert any(word.endswith("warm.py") for word in words)


def test_an_exception_is_a_traceback_and_one(warm: Words) -> None:
    done = subprocess.run([*warm, "-c", "1 / 0"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_it(number: signal.Signals, warm: Words, tmp_path: Path) -> None:
    """SIGINT is caught there as anywhere; the others end it, and who asked ends alike."""
    code = (
        "import os, sys, time\nopen('pid.new', 'w').write(str(os.getpid()))\nos.rename('pid.new', 'pid')\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(5)"
    )
    process = subprocess.Popen([*warm, "-c", code], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) == (5 if number is signal.SIGINT else -number)
    while (tmp_path / "pid").exists() and Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_octc_says_the_same_as_in_a_fresh_interpreter(warm: Words, tmp_path: Path) -> None:
    words = ("-m", "octc.cli._app.main", "list", "everything", "--json")
    ours, fresh = (
        subprocess.run([*start, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        for start in (warm, (sys.executable,))
    )
    assert (ours.returncode, ours.stdout, ours.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)
    assert ours.returncode == 2
