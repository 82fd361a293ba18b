"""A command on another machine that is ended here: what the other machine told of before is in the result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ASKED = """
import json, sys
from pathlib import Path
from octc.bench.remote.ssh import run_far
try:
    far = run_far("user@box", Path("there.tar"), ["bench"], "python3", Path("back.tar"), lambda line: print(line, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
print(json.dumps([far.exit_code, far.partial, type(far.interrupted).__name__]))
"""


@pytest.mark.parametrize(
    ("told", "known"), [('\\036partial {"rows": [1]}\\n', [130, {"rows": [1]}, "KeyboardInterrupt"]), ("", None)]
)
def test_what_was_done_there_is_known_when_the_command_is_interrupted_here(
    told: str, known: list[object] | None, tmp_path: Path
) -> None:
    """The other machine is an `ssh` that says something, and waits."""
    (tmp_path / "ssh").write_text(f"#!/bin/sh\nprintf '{told}ready\\n' >&2\nexec sleep 60\n")
    (tmp_path / "ssh").chmod(0o755)
    (tmp_path / "there.tar").touch()
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-c", ASKED], cwd=tmp_path, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == (0 if known else 130)
    assert (json.loads(out) if out else None) == known
