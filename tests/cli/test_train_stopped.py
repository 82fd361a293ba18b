"""`octc train` in processes of its own: interrupted, terminated, killed and resumed (T01-T03), locked (T06), several."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest

from octc.store.runs import scan_runs
from octc.train.loop.checkpoint import read_checkpoint
from tests.cli.train_words import SMOKE, Said, one_processor, patterns, said

__all__ = ["one_processor", "patterns", "said"]  # fixtures
EPOCHS = 6


def started(place: Path, patterns: Path, *words: str) -> subprocess.Popen[str]:
    """`octc train teacher` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "octc.cli._app.main", "train", "teacher", *words],
        cwd=place,
        env={**os.environ, "OCTC_DATA": str(patterns)},
        stderr=subprocess.PIPE,
        text=True,
    )


def rows_of(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def stopped(process: subprocess.Popen[str], run: Path, number: int, meanwhile: Callable[[], None] = lambda: None) -> str:
    """Send a signal when another epoch is over; what was said on stderr."""
    before, deadline = rows_of(run), time.monotonic() + 900
    while rows_of(run) <= before:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    meanwhile()
    used = computed(process.pid) + getrusage(RUSAGE_CHILDREN).ru_utime
    process.send_signal(number)
    _, err = process.communicate(timeout=900)
    # of its own time: other processes on this machine may take most of the clock's
    assert getrusage(RUSAGE_CHILDREN).ru_utime - used < 30
    return err


def computed(pid: int) -> float:
    """Seconds that a process has computed so far."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])
    return ticks / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_t01_t02_t03_t06_interrupted_terminated_killed_and_resumed_ends_with_the_same_weights(
    tmp_path: Path, patterns: Path, said: Said
) -> None:
    run = tmp_path / "runs" / "r-0001-teacher-folder"
    status = lambda: json.loads((run / "run.json").read_text())["status"]  # noqa: E731

    def second_process() -> None:
        code, _, err = said("teacher", "--resume", "r-0001")
        assert code == 2
        assert "OCT-E108" in err
        assert f"process {first.pid} on " in err

    first = started(tmp_path, patterns, *SMOKE, "--epochs", str(EPOCHS))
    err = stopped(first, run, signal.SIGINT, second_process)
    assert first.returncode == 130
    assert "octc train teacher --resume r-0001-teacher-folder" in err
    assert status() == "interrupted"
    second = started(tmp_path, patterns, "--resume")
    err = stopped(second, run, signal.SIGTERM)
    assert second.returncode == 143
    assert "using run r-0001-teacher-folder" in err
    third = started(tmp_path, patterns, "--resume")
    stopped(third, run, signal.SIGKILL)
    assert third.returncode == -signal.SIGKILL
    assert (run / "lock.json").exists()
    last = started(tmp_path, patterns, "--resume")
    _, err = last.communicate(timeout=900)
    assert last.returncode == 0, err
    assert f"recovered a stale lock of process {third.pid}" in err
    assert status() == "done"
    assert said("teacher", *SMOKE, "--epochs", str(EPOCHS))[0] == 0
    one, other = (read_checkpoint(tmp_path / "runs" / f"r-000{n}-teacher-folder" / "train")[0] for n in (1, 2))
    assert one.sha256 == other.sha256
    assert one.metrics == other.metrics


@pytest.mark.slow
def test_two_processes_of_torchrun_make_one_run(tmp_path: Path, patterns: Path) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "octc.cli._app.main"]
    environment = {"OCTC_DATA": str(patterns), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    made = subprocess.run(
        [*words, "train", "teacher", *SMOKE, "--epochs", "1"], cwd=tmp_path, env={**os.environ, **environment}, timeout=900,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines() == ["runs/r-0001-teacher-folder"]
    assert "2 processes" in made.stderr
    (run,) = scan_runs(tmp_path / "runs")
    assert run.read()["status"] == "done"
    checkpoint, _ = read_checkpoint(run.path / "train")
    assert checkpoint.metrics["epochs"] == 1
    assert rows_of(run.path) == 1
