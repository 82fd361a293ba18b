"""Claims in a shared folder: each piece of work is done once, and a claim ends with its process, whichever machine it is on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from octc.core.errors import OctcError
from octc.core.files import started
from octc.machine.mounts import locks_reach
from octc.schemas.logs import Owner
from octc.store.claims import Claim, boot, claiming, divided, is_here, take_claim, waiting_for
from octc.store.runs import LOCK, RUN, Run, create_run, owning

WORK = """
import os, sys, time
from pathlib import Path
from octc.store.claims import divided

folder, slow = Path(sys.argv[1]), float(sys.argv[2])


def left():
    return [name for name in map(str, range(12)) if not (folder / f"{name}.done").exists()]


print("begun", flush=True)
for name in divided(left, lambda name: folder / f"{name}.lock"):
    with (folder / "log").open("a") as stream:
        stream.write(f"{name}\\n")
    time.sleep(slow)
    (folder / f"{name}.done").write_text(str(os.getpid()))
"""
HOLD = """
import sys, time
from pathlib import Path
from octc.store.claims import take_claim
take_claim(Path(sys.argv[1]))
print("mine", flush=True)
time.sleep(60)
"""


def process(program: str, *words: str | float | Path, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    line = [*before, sys.executable, "-c", program, *map(str, words)]
    started = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline()
    return started


def test_workers_divide_the_pieces_and_one_that_is_killed_loses_its_own(tmp_path: Path) -> None:
    killed = process(WORK, tmp_path, 60)
    deadline = time.monotonic() + 60
    while not (tmp_path / "log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    others = [process(WORK, tmp_path, 0.02) for _ in range(2)]
    while len(list(tmp_path.glob("*.done"))) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (tmp_path / "0.done").exists(), "it is claimed"
    killed.kill()
    killed.communicate()
    for one in others:
        one.communicate(timeout=60)
    assert [one.returncode for one in others] == [0, 0]
    assert sorted((tmp_path / "log").read_text().split(), key=int) == ["0", *map(str, range(12))], "once, but for what was lost"
    assert not list(tmp_path.glob("*.lock"))


def elsewhere() -> tuple[str, ...]:
    """Words before a command that give it the name of another machine."""
    words = ("unshare", "-ru", "sh", "-c", 'hostname another-machine && exec "$@"', "sh")
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces of host names here (unshare -u)")
    return words


def test_a_claim_of_another_machine_stands_until_its_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "piece.lock"
    other = process(HOLD, path, before=elsewhere())
    found = take_claim(path)
    assert isinstance(found, Owner)
    assert found.host == "another-machine"
    assert found.held == locks_reach(tmp_path)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    if not found.held:
        pytest.skip("nobody knows whether locks of this file system reach other machines")
    with claiming(path) as mine:
        assert isinstance(mine, Claim)
        assert mine.left is not None
        assert mine.left.host == "another-machine"
    assert not path.exists()


def test_a_run_that_another_machine_lost_goes_on_and_one_that_nobody_knows_of_does_not(tmp_path: Path) -> None:
    run = create_run(tmp_path, "student", "folder")
    other = process(HOLD, run.path / LOCK, before=elsewhere())
    with pytest.raises(OctcError, match="another-machine"), owning(run):
        pass
    other.kill()
    other.communicate()
    lost = json.loads((run.path / LOCK).read_text())
    (run.path / LOCK).write_text(json.dumps({**lost, "held": False}))
    with pytest.raises(OctcError, match="another-machine") as caught, owning(run):
        pass
    assert caught.value.code == "OCT-E108"
    assert str(run.path / LOCK) in str(caught.value.hint)
    (run.path / LOCK).write_text(json.dumps({**lost, "held": True}))
    if locks_reach(tmp_path):
        with owning(run) as said:
            assert "another-machine" in str(said)


def test_a_name_that_two_machines_have_or_that_was_started_again_is_not_this_machine(tmp_path: Path) -> None:
    """The other one is alive and holds its lock, or its file system has none that reach here; after a restart of this one a
    process has the number, and even the ticks, of the one that was."""
    path, me = tmp_path / "piece.lock", os.getpid()
    other = {"pid": 1, "host": socket.gethostname(), "since": "then", "start": "1", "boot": "another", "held": False}
    path.write_text(json.dumps(other))
    found = take_claim(path)
    assert isinstance(found, Owner), "nobody can look for its process from here"
    assert not is_here(found)
    path.write_text(json.dumps({**other, "pid": me, "start": started(me), "held": True}))
    if locks_reach(tmp_path):
        with claiming(path) as mine:
            assert isinstance(mine, Claim), "the lock ended with the machine"
            assert json.loads(path.read_text())["boot"] == boot()
    path.write_text(json.dumps({**other, "boot": boot()}))
    assert isinstance(take_claim(path), Claim), "no such process here"
    path.write_text(json.dumps({**other, "boot": boot(), "pid": me, "start": started(me)}))
    found = take_claim(path)
    assert isinstance(found, Owner)
    assert is_here(found)
    run = create_run(tmp_path / "runs", "student", "folder")
    (run.path / LOCK).write_text(json.dumps(other))
    with pytest.raises(OctcError) as caught, owning(run):
        pass
    assert (caught.value.code, str(run.path / LOCK) in caught.value.hint) == ("OCT-E108", True)


def test_of_many_that_find_a_claim_that_was_left_one_has_it(tmp_path: Path) -> None:
    gone = {"pid": 1, "host": socket.gethostname(), "since": "then", "start": "1"}
    for name in range(12):
        (tmp_path / f"{name}.lock").write_text(json.dumps(gone))
    many = [process(WORK, tmp_path, 0.01) for _ in range(5)]
    for one in many:
        one.communicate(timeout=60)
    assert [one.returncode for one in many] == [0] * 5
    assert sorted((tmp_path / "log").read_text().split(), key=int) == [*map(str, range(12))], "once"
    assert not list(tmp_path.glob("*.lock"))


def test_who_waits_goes_on_when_the_claim_is_given_back(tmp_path: Path) -> None:
    path, said = tmp_path / "deep" / "piece.lock", list[str]()
    first = threading.Event()

    def other() -> None:
        with waiting_for(path, said.append, "it works"):
            first.set()

    with claiming(path) as mine:
        assert isinstance(mine, Claim)
        thread = threading.Thread(target=other)
        thread.start()
        while not said:
            time.sleep(0.01)
        assert not first.is_set()
    thread.join(60)
    assert first.is_set()
    assert said == [f"  waiting for process {os.getpid()} on {socket.gethostname()}: it works"]


def test_a_claim_ends_when_the_work_fails(tmp_path: Path) -> None:
    def work() -> None:
        with closing(divided(lambda: ["a"], lambda name: tmp_path / name)) as pieces:
            next(pieces)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert isinstance(take_claim(tmp_path / "a"), Claim)


def test_two_machines_that_take_one_number_have_two_runs(tmp_path: Path) -> None:
    """As on a file system without locks: the other machine has its folder after this one has looked for a free number."""
    begun: list[str] = []

    def begin(run: Run) -> None:
        begun.append(run.id)
        if len(begun) == 1:
            (tmp_path / "r-0001-student-folder").mkdir()
        (run.path / "split.json").write_text("{}")

    run = create_run(tmp_path, "student", "folder", begin=begin)
    assert run.id == run.read()["id"] == "r-0002-student-folder"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".last-number", "r-0001-student-folder", run.id]
    assert sorted(path.name for path in run.path.iterdir()) == [RUN, "split.json", "test-set.jsonl"]


def test_a_process_that_is_killed_while_it_makes_a_run_leaves_none(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from octc.store.runs import create_run
print("begun", flush=True)
create_run(Path(sys.argv[1]), "student", "folder", begin=lambda run: os.kill(os.getpid(), 9))
"""
    killed = process(program, tmp_path)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("r-*"))
    (left,) = tmp_path.glob(".tmp-*")
    os.utime(left, (1, 1))  # long ago
    assert create_run(tmp_path, "student", "folder").id == "r-0002-student-folder", "no number is given twice"
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("mount", "reaches"),
    [
        ("rw,relatime - ext4 /dev/sda1 rw", True),
        ("rw,relatime shared:5 - nfs4 server:/runs rw,vers=4.2,local_lock=none,addr=10.0.0.1", True),
        ("rw,relatime - nfs server:/runs rw,vers=3,local_lock=flock", False),
        ("rw,relatime - nfs server:/runs rw,vers=3,nolock,local_lock=all", False),
        ("rw,relatime - lustre host@tcp:/fs rw,flock,lazystatfs", True),
        ("rw,relatime - lustre host@tcp:/fs rw,localflock", False),
        ("rw,relatime - lustre host@tcp:/fs rw,lazystatfs", False),
        ("rw,relatime - fuse.sshfs user@host:/runs rw,user_id=0", False),
        ("rw,relatime - 9p share rw,trans=virtio", False),
        ("rw,relatime - exfat /dev/sdb1 rw", True),
        ("rw,relatime - fuseblk /dev/sdb2 rw,user_id=0", True),
    ],
)
def test_where_locks_reach_other_machines_is_read_from_the_mounts(mount: str, reaches: bool, tmp_path: Path) -> None:
    place = str((tmp_path / "my runs").resolve()).replace(" ", r"\040")
    table = f"22 1 0:21 / / rw - ext4 /dev/vda rw\n36 22 0:30 / {place} {mount}\nno line of a mount\n"
    assert locks_reach(tmp_path / "my runs" / "search", table) is reaches
    assert locks_reach(tmp_path, table), "another mount"
    assert not locks_reach(tmp_path, "")
