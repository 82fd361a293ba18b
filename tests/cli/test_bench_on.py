"""`octc bench --on user@host` against a real sshd on this machine, and every way in which that may fail (R08)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from octc.cli._app.main import main
from octc.core.telemetry import SWITCHES
from octc.store.runs import Run
from tests.bench_tools import check_schema
from tests.far_machine import Far, box, other, tools
from tests.tiny_artifacts import shared_run

QUICK = ("--quick", "--duration", "0.2s", "--min-queries", "30", "--batch", "1", "--vs", "none", "--threads", "1", "--no-power")
__all__ = ["box", "other"]  # fixtures
Octc = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Run:
    shared = shared_run(tmp_path_factory)
    shutil.copytree(shared.path.parent, tmp_path / "runs")
    found = Run(tmp_path / "runs" / shared.id)
    for folder in found.artifacts.iterdir():
        if folder.name != "onnx-int8":
            shutil.rmtree(folder)
    return found


def on(octc: Octc, far: Far, *words: str) -> tuple[int, str, str]:
    done = octc("bench", "--on", far.address, *words, env=far.environment)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_results_come_back_and_nothing_stays_there(run: Run, box: Far, octc: Octc) -> None:
    code, out, err = on(octc, box, *QUICK, "--json")
    value = json.loads(out)
    assert code == 1, err  # shorter than the quick profile asks: INVALID, as it would be here
    assert value["data"]["status"] == "INVALID"
    assert value["error"]["code"] == "OCT-E602"
    check_schema(value["data"])
    assert value["data"]["machine"]["remote_host"] == "box"
    folder = run.artifacts / "onnx-int8"
    (beside,) = folder.glob("bench-*.json")
    stored = json.loads(beside.read_text())
    check_schema(stored)
    assert stored["machine"]["remote_host"] == "box"
    row = next(r for r in stored["rows"] if r["id"] == "onnx-int8-device-1")
    assert row["n"] >= 30
    samples = (folder / row["samples_file"]).read_text().splitlines()
    assert len(samples) == row["n"] + 1
    assert list((run.path.parent.parent / "reports").glob("bench-*.md"))
    assert box.left() == []
    assert "✓" in err or "onnx-int8-device-1" in err, "what goes on there is told here"


def test_nothing_is_sent_from_there(run: Run, box: Far, octc: Octc, tmp_path: Path) -> None:
    """The bench there has the switches of `octc.core.telemetry` in its environment, for whatever Python imports first."""
    spy, seen = tmp_path / "python", tmp_path / "seen"
    spy.write_text(f'#!/bin/sh\ncase "$*" in *octc.cli._app.main*) env >{seen}; exit 3 ;; esac\nexec {sys.executable} "$@"\n')
    spy.chmod(0o755)
    done = octc("bench", "--on", box.address, *QUICK, env={**box.environment, "OCTC_BENCH__REMOTE_PYTHON": str(spy)})
    assert seen.exists(), done.stderr
    assert set(seen.read_text().splitlines()) >= {f"{name}={value}" for name, value in SWITCHES.items()}


def test_r08_host_key_changed(run: Run, box: Far, octc: Octc) -> None:
    kept = (box.place / "known").read_text()
    try:
        stranger = (box.place / "user.pub").read_text().split()
        (box.place / "known").write_text(f"[127.0.0.1]:{box.port} {stranger[0]} {stranger[1]}\n")
        code, _, err = on(octc, box, *QUICK)
    finally:
        (box.place / "known").write_text(kept)
    assert code == 6
    assert "error[OCT-E606]" in err
    assert "host key is not the one that is known" in err
    assert box.left() == []


def test_r08_login_refused(run: Run, box: Far, octc: Octc) -> None:
    kept = (box.place / "authorized").read_text()
    try:
        (box.place / "authorized").write_text((box.place / "host.pub").read_text())
        code, _, err = on(octc, box, *QUICK)
    finally:
        (box.place / "authorized").write_text(kept)
    assert (code, "login refused" in err) == (6, True)


@pytest.mark.parametrize(
    ("scripts", "python", "words"),
    [({}, "python3", "no Python of at least 3.10"),
     ({"uname": "echo armv6l"}, sys.executable, "no engine runs on that processor"),
     ({"tar": "echo 'tar: No space left on device' >&2; exit 2"}, sys.executable, "the copy broke off"),
     ({}, "/bin/false", "no Python of at least 3.10")],
)  # fmt: skip
def test_r08_far_end_lacks_something(
    run: Run, other: Callable[..., Far], octc: Octc, tmp_path: Path, scripts: dict[str, str], python: str, words: str
) -> None:
    far = other(path=tools(tmp_path, **scripts))
    far.environment["OCTC_BENCH__REMOTE_PYTHON"] = python
    code, _, err = on(octc, far, *QUICK)
    assert code == 6, err
    assert words in err
    assert "help:" in err
    assert far.left() == []


def test_r08_disk_there_is_full(run: Run, other: Callable[..., Far], octc: Octc) -> None:
    far = other()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(far.temporary)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a small file system")
    try:
        code, _, err = on(octc, far, *QUICK)
        assert code == 6, err
        assert "the disk there is full" in err
        assert far.left() == []
    finally:
        subprocess.run(["umount", "-l", str(far.temporary)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(None, 6), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_r08_connection_lost_or_command_ended_midway_leaves_the_partial_result(
    run: Run, box: Far, tmp_path: Path, number: int | None, code: int
) -> None:
    """number: the signal that ends the command here, None where the connection is lost."""
    words = ["bench", "--on", box.address, *QUICK]
    words[words.index("0.2s")] = "3s"
    process = subprocess.Popen(
        [sys.executable, "-m", "octc.cli._app.main", *words], cwd=tmp_path, env={**os.environ, **box.environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if "onnx-int8-device-1:" in line:
            break
    time.sleep(0.5)
    for pid in sessions_of(box.server.pid) if number is None else ():
        os.kill(pid, signal.SIGKILL)
    if number is not None:
        process.send_signal(number)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == code, "".join(told) + rest
    assert ("connection lost" in rest) == (number is None)
    assert "partial result: " in rest
    (beside,) = (run.artifacts / "onnx-int8").glob("bench-*.json")
    value = json.loads(beside.read_text())
    check_schema(value)
    assert (value["status"], value["exit_code"]) == ("INVALID", code)
    rows = {row["id"]: row for row in value["rows"]}
    assert rows["onnx-int8-device-1"]["n"] > 0
    assert rows["onnx-int8-end_to_end-1"]["reasons"] == ["incomplete"]
    deadline = time.monotonic() + 60
    while box.left() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert box.left() == [], "the far end removes its folder"


def sessions_of(server: int) -> list[int]:
    """Processes of sshd below the listening one."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        parents[int(path.parent.name)] = int(rest.split()[1])
        names[int(path.parent.name)] = head.partition("(")[2]

    def below(pid: int) -> bool:
        while pid in parents and pid != server:
            pid = parents[pid]
        return pid == server

    return [pid for pid in parents if pid != server and names[pid].startswith("sshd") and below(pid)]


def test_addresses_and_contradictions_that_are_refused(
    run: Run, octc: Octc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--on", "me@box", "--offline"]) == 2
    for words in (("--on", "-oProxyCommand=touch x"), ("--on", "a b"), ("--on", "me@box", "--power-csv", "nowhere.csv")):
        assert octc("bench", *words, env={"OCTC_OFFLINE": "0"}).returncode == 2
    assert not (tmp_path / "x").exists()
