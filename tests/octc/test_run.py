"""Run folders: ids that are never used twice, what "newest" means, and one owner at a time. Owners are real processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octc.core.errors import OctcError
from octc.core.files import publishing
from octc.store.find import find_artifacts
from octc.store.listing import list_runs
from octc.store.runs import LOCK, RUN, Run, create_run, find_run, newest_run, owning, scan_runs, unread_runs
from tests.tiny_artifacts import artifact_folder


def finished(run_dir: Path, kind: str = "student", dataset: str = "ucsd", status: str = "done", artifact: bool = False) -> Run:
    run = create_run(run_dir, kind, dataset, recipe={"name": "edge"})
    run.update(status=status)
    if artifact:
        (run.artifacts / "onnx-fp32").mkdir(parents=True)
        (run.artifacts / "onnx-fp32" / "artifact.json").write_text("{}")
    return run


def test_a_run_and_its_log(tmp_path: Path) -> None:
    run = create_run(tmp_path / "runs", "student", "ucsd", seed=3)
    run.log_stage("train", epochs=2)
    run.log_stage("qat")
    value = run.read()
    assert run.id == value["id"] == "r-0001-student-ucsd"
    assert (value["kind"], value["dataset"], value["status"], value["seed"]) == ("student", "ucsd", "running", 3)
    assert [stage["stage"] for stage in value["stages"]] == ["train", "qat"]
    assert value["stages"][0]["epochs"] == 2
    assert value["created"].endswith("Z")
    assert (run.artifacts.name, run.split.name) == ("artifacts", "split.json")


def test_what_a_run_has_from_its_first_moment_is_there_before_it_is_a_run(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom octc.store.runs import create_run\n"
        "create_run(Path(sys.argv[1]), 'student', 'a', begin=lambda run: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert scan_runs(tmp_path) == []

    def refused(_run: Run) -> None:
        raise OctcError("OCT-E216", "no split", hint="none")

    with pytest.raises(OctcError):
        create_run(tmp_path, "student", "a", begin=refused)
    run = create_run(tmp_path, "student", "a", begin=lambda run: run.split.write_text("{}"))
    assert (run.id, run.split.read_text()) == ("r-0003-student-a", "{}"), "and no number is used again"
    assert not (tmp_path / "r-0002-student-a").exists()


def test_a_stage_is_known_by_its_facts(tmp_path: Path) -> None:
    run = create_run(tmp_path, "student", "a")
    run.log_stage("simplify", step="01", sha256="x")
    assert run.has_stage("simplify", step="01", sha256="x")
    assert not run.has_stage("simplify", step="02", sha256="x")
    assert not run.has_stage("train", sha256="x")


def test_numbers_are_not_used_again_even_after_a_gap(tmp_path: Path) -> None:
    assert [create_run(tmp_path, "teacher", "a").id for _ in range(3)][-1] == "r-0003-teacher-a"
    for number in ("r-0001", "r-0003"):  # the newest too
        shutil.rmtree(tmp_path / f"{number}-teacher-a")
    assert create_run(tmp_path, "student", "b").id == "r-0004-student-b"
    (tmp_path / "r-12345-student-x").mkdir()  # without run.json: a number all the same
    assert create_run(tmp_path, "student", "b").id == "r-12346-student-b"


def make_one(asked: tuple[str, str]) -> str:
    return create_run(Path(asked[0]), asked[1], "x").id


def test_numbers_are_not_shared_by_processes_that_begin_together(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        ids = pool.map(make_one, [(str(tmp_path), kind) for kind in ("student", "teacher", "other")] * 20, chunksize=1)
    assert len({run_id[:6] for run_id in ids}) == 60
    assert sorted(run.id for run in scan_runs(tmp_path)) == sorted(ids)


def test_t05_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OctcError) as caught:
        create_run(tmp_path / "file" / "runs", "student", "x")
    assert caught.value.code == "OCT-E109"
    assert "--run-dir" in caught.value.hint


def test_scanning_is_newest_first_and_passes_over_what_is_no_run(tmp_path: Path) -> None:
    for kind, dataset in (("teacher", "ucsd"), ("student", "ucsd"), ("student", "phantom")):
        finished(tmp_path, kind, dataset)
    (tmp_path / "r-0009-broken").mkdir()
    (tmp_path / "r-0009-broken" / RUN).write_text("{ not json")
    (tmp_path / "r-0010-list").mkdir()
    (tmp_path / "r-0010-list" / RUN).write_text("[1]")
    (tmp_path / "notes").mkdir()
    assert [run.id[:6] for run in scan_runs(tmp_path)] == ["r-0003", "r-0002", "r-0001"]
    assert [run.id[:6] for run in scan_runs(tmp_path, "student", "ucsd")] == ["r-0002"]
    assert scan_runs(tmp_path / "absent") == []
    with pytest.raises(OctcError, match=r"run\.json of r-0010-list cannot be read"):
        Run(tmp_path / "r-0010-list").read()
    with pytest.raises(OctcError, match="not a run"):
        Run(tmp_path / "notes").read()


LOOKS: dict[str, Callable[[Path], Any]] = {
    "list_runs": list_runs, "scan_runs": scan_runs, "newest_run": lambda place: newest_run(place, artifacts=True),
    "find_run": lambda place: find_run(place, "r-0001"), "find_artifacts": lambda place: find_artifacts("r-0001", place, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOKS)
def test_a_run_that_is_removed_while_runs_are_looked_at_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """`octc runs prune`, or a training that is refused, removes runs at any moment; a second look at one was an error."""
    shutil.copytree(artifact_folder(), finished(tmp_path).artifacts / "onnx-int8")
    going, read = finished(tmp_path, status="running"), Run.read

    def once(run: Run) -> dict[str, Any]:
        value = read(run)
        if run.id == going.id:
            shutil.rmtree(run.path)
        return value

    monkeypatch.setattr(Run, "read", once)
    LOOKS[name](tmp_path)
    assert not going.path.exists()


def test_a_run_that_goes_before_its_file_is_read_is_no_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, read = finished(tmp_path), Run.read

    def meanwhile(run: Run) -> dict[str, Any]:
        shutil.rmtree(run.path, ignore_errors=True)
        return read(run)

    monkeypatch.setattr(Run, "read", meanwhile)
    assert unread_runs(tmp_path) == []
    assert list_runs(tmp_path) == []
    assert not run.path.exists()


def test_a_half_written_artifact_is_none_yet(tmp_path: Path) -> None:
    run = finished(tmp_path)
    with publishing(run.artifacts / "onnx-fp32") as folder:
        (folder / "artifact.json").write_text("{}")
        assert list_runs(tmp_path)[0].artifacts == []
        with pytest.raises(OctcError) as caught:
            newest_run(tmp_path, artifacts=True)
        assert caught.value.code == "OCT-E107"
    assert list_runs(tmp_path)[0].artifacts == ["onnx-fp32"]


def test_the_newest_is_the_newest_that_is_done(tmp_path: Path) -> None:
    first = finished(tmp_path, artifact=True)
    second = finished(tmp_path)
    finished(tmp_path, status="failed")
    finished(tmp_path, "teacher")
    assert newest_run(tmp_path, "student") == second
    assert newest_run(tmp_path, "student", artifacts=True) == first


def test_x01_no_run_lists_candidates_and_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        newest_run(tmp_path, "student", "ucsd")
    assert caught.value.code == "OCT-E107"
    assert caught.value.hint == "octc train student --dataset ucsd"
    run = finished(tmp_path, status="interrupted")
    with pytest.raises(OctcError) as caught:
        newest_run(tmp_path, "student")
    assert f"{run.id} (interrupted)" in str(caught.value.why)
    with pytest.raises(OctcError) as caught:
        newest_run(tmp_path, "student", artifacts=True)
    assert caught.value.hint == "octc export"


def test_finding_by_path_id_and_beginning(tmp_path: Path) -> None:
    runs = [finished(tmp_path), finished(tmp_path, "teacher")]
    assert find_run(tmp_path, runs[0].id) == runs[0]
    assert find_run(tmp_path, "r-0002") == runs[1]
    assert find_run(tmp_path / "elsewhere", str(runs[0].path)) == runs[0]
    for name in ("r-000", "r-0007"):
        with pytest.raises(OctcError) as caught:
            find_run(tmp_path, name)
        assert caught.value.code == "OCT-E107"
        assert all(run.id in str(caught.value.why) for run in runs)


HOLD = """
import sys, time
from pathlib import Path
from octc.store.runs import Run, owning
with owning(Run(Path(sys.argv[1]))):
    print("mine", flush=True)
    time.sleep(60)
"""


NOTES = """
import sys
from pathlib import Path
from octc.store.runs import Run
for _ in range(30):
    Run(Path(sys.argv[1])).log_stage("evaluated")
"""


def test_of_several_that_note_a_stage_at_once_no_line_is_lost(tmp_path: Path) -> None:
    run = finished(tmp_path)
    before = len(run.read()["stages"])
    many = [subprocess.Popen([sys.executable, "-c", NOTES, str(run.path)]) for _ in range(3)]
    assert [process.wait(120) for process in many] == [0, 0, 0]
    assert len(run.read()["stages"]) == before + 90


ALONE = """
import sys, time
from pathlib import Path
from octc.core.errors import OctcError
from octc.store.runs import Run, owning
try:
    with owning(Run(Path(sys.argv[1]))):
        Path(sys.argv[2]).mkdir()
        time.sleep(0.3)
        Path(sys.argv[2]).rmdir()
except OctcError as error:
    sys.exit(error.exit_code)
"""


def hold(run: Run) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "mine\n"
    return process


def test_t06_two_processes_in_one_run_and_a_stale_lock(tmp_path: Path) -> None:
    run = finished(tmp_path)
    process = hold(run)
    with pytest.raises(OctcError) as caught, owning(run):
        pass
    assert caught.value.code == "OCT-E108"
    assert str(process.pid) in caught.value.message
    assert socket.gethostname() in caught.value.message
    process.kill()
    process.communicate()
    assert (run.path / LOCK).exists()
    with owning(run) as said:
        assert str(process.pid) in str(said)
        assert (run.path / LOCK).exists()
    assert not (run.path / LOCK).exists()
    with owning(run) as said:
        assert said is None


def test_a_lock_of_another_machine_is_respected_and_one_of_a_reused_pid_is_not(tmp_path: Path) -> None:
    run = finished(tmp_path)
    lock = run.path / LOCK
    lock.write_text(json.dumps({"pid": 1, "host": "another-machine", "since": "then", "start": "1"}))
    with pytest.raises(OctcError, match="another-machine"), owning(run):
        pass
    lock.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": "then", "start": "1"}))
    with owning(run) as said:
        assert said is not None


def test_a_lock_that_nobody_here_can_look_behind_says_how_it_goes(tmp_path: Path) -> None:
    """A container has another name each time it starts, and nobody is left to wait for."""
    run = finished(tmp_path / "my runs")
    (run.path / LOCK).write_text(json.dumps({"pid": 1, "host": "0f3c1b2a", "since": "then", "start": "1"}))
    with pytest.raises(OctcError) as caught, owning(run):
        pass
    command = caught.value.hint.partition(": ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    with owning(run) as said:
        assert said is None


def test_of_many_that_find_a_stale_lock_one_has_the_run(tmp_path: Path) -> None:
    run = finished(tmp_path)
    (run.path / LOCK).write_text(json.dumps({"pid": 1, "host": socket.gethostname(), "since": "then", "start": "1"}))
    command = [sys.executable, "-c", ALONE, str(run.path), str(tmp_path / "mine")]
    many = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(5)]
    codes = [process.wait(120) for process in many]
    assert set(codes) <= {0, 2}
    assert 0 in codes
    assert not (run.path / LOCK).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x", "host": "y"}'])
def test_a_damaged_lock_is_stale(text: str, tmp_path: Path) -> None:
    run = finished(tmp_path)
    (run.path / LOCK).write_text(text)
    with owning(run) as said:
        assert "stale" in str(said)


def test_the_lock_goes_when_the_work_fails(tmp_path: Path) -> None:
    run = finished(tmp_path)
    start = time.monotonic()
    with pytest.raises(RuntimeError), owning(run):
        raise RuntimeError
    assert not (run.path / LOCK).exists()
    assert time.monotonic() - start < 5


def damaged(run: Run) -> Run:
    """Its run.json ends in the middle."""
    whole = (run.path / RUN).read_bytes()
    (run.path / RUN).write_bytes(whole[: len(whole) // 2])
    return run


def test_a_run_that_cannot_be_read_is_named_and_no_older_one_takes_its_place(tmp_path: Path) -> None:
    older, newer = finished(tmp_path, artifact=True), damaged(finished(tmp_path, artifact=True))
    for name in (newer.id, "r-0002", "r-0002-stu", str(newer.path)):
        with pytest.raises(OctcError) as caught:
            find_run(tmp_path, name).read()
        assert (caught.value.code, newer.id in caught.value.message) == ("OCT-E107", True), name
    for artifacts in (False, True):
        with pytest.raises(OctcError) as caught:
            newest_run(tmp_path, "student", artifacts=artifacts)
        assert (caught.value.code, newer.id in caught.value.message) == ("OCT-E107", True)
        assert older.id in caught.value.hint
    with pytest.raises(OctcError) as caught:
        find_artifacts(None, tmp_path, {})
    assert newer.id in caught.value.message
    with pytest.raises(OctcError) as caught:
        find_artifacts("r-0002", tmp_path, {})
    assert newer.id in caught.value.message
    assert find_run(tmp_path, "r-0001") == older
    rows = {row.run: row for row in list_runs(tmp_path)}
    assert list(rows) == [older.id, newer.id]
    assert (rows[newer.id].status, rows[newer.id].artifacts) == (None, rows[older.id].artifacts)
    last = finished(tmp_path, artifact=True)
    assert newest_run(tmp_path, "student") == last, "it is newer than the one that cannot be read"
    damaged(finished(tmp_path, "teacher"))
    assert newest_run(tmp_path, "student") == last, "a teacher cannot be meant"
