"""Other Pythons on this machine, wherever they lie, and environments made with them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

UNREACHABLE = re.compile(
    r"connection broken|NewConnectionError|ConnectTimeout|ReadTimeout|timed out|ProxyError|Name or service not known"
    r"|name resolution|Network is unreachable",
    re.I,
)


def find_python(version: str) -> str:
    """An interpreter of that version that can make environments; the test is skipped where there is none."""
    for candidate in _candidates(version):
        code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
        try:
            done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, timeout=30, check=False)
        except OSError:
            continue
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    pytest.skip(f"no Python {version} with venv on this machine")


def _candidates(version: str) -> Iterator[str]:
    yield getattr(sys, "_base_executable", sys.executable)
    if found := shutil.which(f"python{version}"):
        yield found
    for pattern in (
        f".pyenv/versions/{version}*",
        f".local/share/uv/python/cpython-{version}*",
        f"miniconda3/envs/*{version}*",
    ):
        yield from (str(path / "bin" / f"python{version}") for path in sorted(Path.home().glob(pattern)))
    yield from (f"{folder}/python{version}" for folder in ("/usr/bin", "/usr/local/bin", f"/opt/python{version}/bin"))


def make_environment(folder: Path, version: str) -> Path:
    """A fresh environment; its `bin`."""
    subprocess.run([find_python(version), "-m", "venv", str(folder)], check=True, capture_output=True, timeout=120)
    return folder / "bin"


def outside() -> dict[str, str]:
    """The environment of a user: nothing of this test process, whose offline switches are not for pip."""
    mine = ("OCTC_", "HF_", "TRANSFORMERS_", "PYTHON", "VIRTUAL_ENV", "COV")
    return {name: value for name, value in os.environ.items() if not name.startswith(mine)}


def pip(environment: Path, *words: str, timeout: float = 600) -> None:
    """Run pip there. Skipped where the package index cannot be reached; any other failure is one."""
    command = [str(environment / "python"), "-m", "pip", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=outside(), check=False)
    text = done.stdout + done.stderr
    if done.returncode and UNREACHABLE.search(text):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, text[-3000:]
