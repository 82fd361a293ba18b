"""What a login shell prints, and an answer that is cut off. The other machine is this one, behind an `ssh` of a few lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from octc.bench.remote.package import write_package
from octc.bench.remote.ssh import Far, run_far
from octc.bench.timing.remote_results import take_results
from octc.core.errors import OctcError
from octc.core.files import parse_json, read_json
from octc.store.runs import Run
from tests.tiny_artifacts import shared_run

SSH = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
"""
Ask = Callable[[str, str], tuple[Far, str]]


@pytest.fixture
def ask(tmp_path: Path, forks: str, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask the other machine for its version. before: what its login shell does first. after: where its answer goes."""
    write_package(tmp_path / "there.tar", [])
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def call(before: str, after: str = "") -> tuple[Far, str]:
        (tmp_path / "ssh").write_text(f'{SSH}{before}\nsh -c "$3"{after}\n')
        (tmp_path / "ssh").chmod(0o755)
        answer = tmp_path / "back.tar"
        words = ["--version", "--json"]
        far = run_far("user@box", tmp_path / "there.tar", words, sys.executable, answer, lambda _: None)
        return far, take_results(answer, [], tmp_path, "user@box")[0]

    return call


@pytest.mark.parametrize(
    "noise",
    ["", "echo Welcome to box!; echo", "printf 'no line end'", "head -c 5000 /dev/zero",
     "echo octc-exit soon >&2; echo octc-exit >&2"],
)  # fmt: skip
def test_what_a_login_shell_prints_is_passed_over(noise: str, ask: Ask) -> None:
    far, text = ask(noise, "")
    assert (far.exit_code, far.errors) == (0, ())
    assert parse_json(text)["data"]["octc"]


@pytest.mark.parametrize("kept", [0, 5, 100, 700])
def test_an_answer_that_is_cut_off_is_an_error_with_a_hint(kept: int, ask: Ask) -> None:
    """kept: bytes of it that arrive, and the connection ends as if all was well."""
    with pytest.raises(OctcError) as error:
        ask("", f" | {{ head -c {kept}; cat >/dev/null; }}" if kept else " >/dev/null")
    assert (error.value.code, error.value.place, error.value.exit_code) == ("OCT-E606", "user@box", 6)
    assert error.value.hint


@pytest.mark.slow
def test_a_bench_whose_results_are_cut_off_keeps_what_it_told_of(
    octc: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "ssh").write_text(f'{SSH}sh -c "$3" | {{ head -c 2000; cat >/dev/null; }}\n')
    (tmp_path / "far" / "ssh").chmod(0o755)
    shared = shared_run()
    run = Run(shutil.copytree(shared.path, tmp_path / "runs" / shared.id))
    path = f"{tmp_path / 'far'}{os.pathsep}{os.environ['PATH']}"
    quick = (
        "--quick",
        "--duration",
        "0.2s",
        "--min-queries",
        "30",
        "--batch",
        "1",
        "--vs",
        "none",
        "--threads",
        "1",
        "--no-power",
    )
    environ = {"PATH": path, "OCTC_OFFLINE": "0", "OCTC_BENCH__REMOTE_PYTHON": sys.executable}
    done = octc("bench", str(run.artifacts / "onnx-int8"), "--on", "user@box", *quick, env=environ)
    assert done.returncode == 6, done.stderr
    assert "OCT-E606" in done.stderr
    (kept,) = (run.artifacts / "onnx-int8").glob("bench-*.json")
    found = read_json(kept)
    assert (found["status"], found["exit_code"], found["machine"]["remote_host"]) == ("INVALID", 6, "box")
    assert "onnx-int8-device-1" in {row["id"] for row in found["rows"] if row.get("n")}
