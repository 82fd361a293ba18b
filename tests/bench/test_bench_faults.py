"""Faults that are injected into a bench of real engines: golden images, short runs, heat, quotas, crashes, hangs."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octc.bench.timing import measure
from octc.bench.timing.conditions import Snapshot, read_snapshot
from octc.bench.timing.findings import find_all
from octc.bench.timing.gates import judge
from octc.bench.timing.plan import Subject
from octc.bench.timing.process import KILLED, Worker
from octc.bench.timing.queries import in_batches
from octc.bench.timing.render import table
from octc.bench.timing.result import document
from octc.bench.timing.runner import run_bench
from octc.bench.timing.state import State
from octc.core.errors import OctcError
from octc.machine import memory
from octc.machine.cpu import read_cpus, usable_threads
from octc.machine.host import read_machine
from octc.runtimes.golden import GoldenReport, replay
from octc.runtimes.registry import open_runtime
from octc.store.artifacts import artifact_sha256, read_artifact, read_golden, write_golden
from octc.store.runs import Run
from tests.bench_tools import benched, check_schema, new_state, pretend_quiet, tiny_options
from tests.tiny_artifacts import resign, shared_run


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Run:
    """A copy of the run: a bench writes into it."""
    shared = shared_run(tmp_path_factory)
    shutil.copytree(shared.path.parent, tmp_path / "runs")
    return Run(tmp_path / "runs" / shared.id)


def test_b08_golden_images_that_differ_end_it_before_any_timing(run: Run, tmp_path: Path) -> None:
    folder = run.artifacts / "onnx-fp32"
    golden = read_golden(folder)
    write_golden(folder, replace(golden, logits=golden.logits + np.float32(3) * np.eye(4, dtype=np.float32)[0]))
    resign(folder)
    state = benched(run, ("onnx-fp32",), tmp_path / "scratch")
    verdict = judge(state)
    assert (verdict.status, verdict.exit_code, [e.code for e in verdict.errors]) == ("FAIL", 1, ["OCT-E506"])
    assert {row.status for row in state.rows.values() if not row.plan.hidden} == {"INVALID"}
    assert {row.reasons for row in state.rows.values() if not row.plan.hidden} == {("output_mismatch",)}
    assert not (folder / "samples").exists()
    check_schema(document(state, verdict, find_all(state)))


def test_r02_too_short_a_run_is_invalid_and_ends_with_one(run: Run, tmp_path: Path) -> None:
    options = tiny_options(run, min_queries=20, duration_s=0.02, vs="none")
    state = benched(run, ("onnx-fp32",), tmp_path, options=options)
    verdict = judge(state)
    assert (verdict.status, verdict.exit_code) == ("INVALID", 1)
    assert "OCT-E602" in {e.code for e in verdict.errors}
    assert all("below_minimum" in row.reasons for row in state.rows.values() if not row.plan.hidden)
    assert "(" in table(state)[0][3], "numbers that are not valid stand in brackets"


def test_r03_throttle_counter_that_rises_during_a_row(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_quiet(monkeypatch)
    counter = tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    counter.parent.mkdir(parents=True)
    looked = 0

    def heated(root: Path, *_: object) -> Snapshot:
        """Every look finds the counter higher than the one before."""
        nonlocal looked
        looked += 1
        counter.write_text(f"{looked}\n")
        return read_snapshot(root)

    monkeypatch.setattr("octc.bench.timing.state.read_snapshot", heated)
    state = benched(run, ("onnx-fp32",), tmp_path / "s", root=tmp_path, options=tiny_options(run, vs="none", batch=1))
    row = state.rows["onnx-fp32-device-1"]
    assert row.status == "INVALID"
    assert "thermal_throttle" in row.reasons
    assert row.to_json()["conditions"]["throttled"] is True
    assert "OCT-E603" in {e.code for e in judge(state).errors}


@pytest.mark.parametrize(
    ("quota", "cpuset", "threads", "source"), [("50000 100000", "0-7", 1, "quota"), ("max 100000", "2", 1, "affinity")]
)
def test_r05_threads_follow_quota_and_cpuset_and_are_recorded(
    run: Run, tmp_path: Path, quota: str, cpuset: str, threads: int, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_quiet(monkeypatch)
    files = {"proc/self/cgroup": "0::/box", "sys/fs/cgroup/box/cpu.max": quota, "sys/devices/system/cpu/online": "0-7"}
    for name, text in {**files, "sys/fs/cgroup/box/cpuset.cpus.effective": cpuset}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    machine = replace(read_machine(tmp_path), cpus=read_cpus(tmp_path, range(8)))
    assert usable_threads(machine.cpus) == (threads, source)
    options = tiny_options(run, vs="none", threads=threads, threads_source=source, batch=1)
    state = benched(run, ("onnx-fp32",), tmp_path / "s", options=options, machine=machine)
    found = document(state, judge(state), [])
    assert (found["settings"]["threads"], found["settings"]["threads_source"]) == (threads, source)
    assert found["machine"]["cgroup_quota"] == (0.5 if quota.startswith("5") else None)
    assert state.facts["onnx-fp32"].engine["threads"] == threads
    assert found["exit_code"] == 0
    assert any("quota of 0.5" in text for text in found["warnings"]) == quota.startswith("5")


def children() -> list[int]:
    """Workers of this process."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"octc.bench.timing.worker" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except (OSError, IndexError):
            continue
    return found


def test_worker_that_crashes_ends_with_five_and_names_artifact_and_log(run: Run, tmp_path: Path) -> None:
    def shoot(line: str) -> None:
        """When the first row is done the worker waits or times the second: it is there."""
        if "onnx-fp32-device-1" in line:
            for pid in children():
                os.kill(pid, signal.SIGSEGV)

    state = new_state(run, ("onnx-fp32", "onnx-int8"), tmp_path, options=tiny_options(run, vs="none"), tell=shoot)
    run_bench(state)
    verdict = judge(state)
    crash = verdict.errors[0]
    assert (verdict.status, verdict.exit_code, crash.code) == ("FAIL", 5, "OCT-E609")
    assert crash.message.startswith("onnx-fp32: the runtime crashed while it was measured: signal SIGSEGV")
    assert crash.place is not None
    assert Path(crash.place).is_file()
    assert state.rows["onnx-fp32-device-1"].latency is not None
    assert state.rows["onnx-fp32-end_to_end-1"].reasons == ("incomplete",)
    assert state.rows["onnx-int8-device-1"].latency is not None, "the others are measured all the same"
    assert not children()
    check_schema(document(state, verdict, find_all(state)))


def test_worker_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    worker = Worker("onnx-fp32", tmp_path, 1, lambda log: log)
    os.kill(worker.pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(OctcError, match="no answer within 1 s") as caught:
        worker.ask({"do": "golden"}, 0.6)
    assert caught.value.exit_code == 5
    assert time.monotonic() - start < 30
    assert not children()


def test_a_worker_has_the_variables_that_spare_address_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MALLOC_ARENA_MAX", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is as before in the end
        monkeypatch.delenv(name)
    monkeypatch.setattr(memory, "space_limit_mib", lambda: 400.0)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _name: object())  # of this process nothing changes
    worker = Worker("onnx-fp32", tmp_path, 2, lambda log: log)
    try:
        until = time.monotonic() + 60  # the kernel shows a program's variables a moment after the program has begun
        while not (found := Path(f"/proc/{worker.pid}/environ").read_bytes()) and time.monotonic() < until:
            time.sleep(0.01)
        given = found.split(b"\0")
    finally:
        worker.kill()
    assert {b"MALLOC_ARENA_MAX=1", b"OPENBLAS_NUM_THREADS=1", b"OMP_NUM_THREADS=2"} <= set(given)


def test_what_a_worker_refuses_is_an_error_with_its_own_code(run: Run, tmp_path: Path) -> None:
    state = new_state(run, ("onnx-fp32",), tmp_path)
    (run.artifacts / "onnx-fp32" / "model.onnx").rename(tmp_path / "away")
    try:
        run_bench(state)
    finally:
        (tmp_path / "away").rename(run.artifacts / "onnx-fp32" / "model.onnx")
    assert [error.code for error in state.errors] == ["OCT-E502"]
    assert judge(state).exit_code == 3


def test_an_artifact_that_takes_the_place_of_another_during_a_bench_is_not_measured_as_that_one(
    run: Run, tmp_path: Path
) -> None:
    """Every process opens the folder anew, and the identity in the result was that of the folder at the end."""
    state = new_state(run, ("onnx-fp32",), tmp_path)
    folder = run.artifacts / "onnx-fp32"
    before = artifact_sha256(folder)
    shutil.rmtree(folder)
    shutil.copytree(run.artifacts / "onnx-int8", folder)
    run_bench(state)
    assert {error.code for error in state.errors} == {"OCT-E110"}
    assert state.samples == {}
    assert [one["sha256"] for one in document(state, judge(state), find_all(state))["artifacts"]] == [before]
    assert before != artifact_sha256(folder)


def test_golden_images_of_a_network_of_several_findings_are_judged_by_its_decisions(run: Run, tmp_path: Path) -> None:
    folder = run.artifacts / "onnx-int8"
    resign(folder, lambda value: value.update(task="multilabel"))
    artifact, golden = read_artifact(folder), read_golden(folder)
    worker = Worker("onnx-int8", tmp_path, 1, lambda log: log)
    try:
        given = {"folder": str(folder), "sha256": artifact.sha256, "threads": 1, "batch": 1, "cpus": []}
        worker.ask({"do": "open", **given}, 120)
        found = GoldenReport(**worker.ask({"do": "golden"}, 60)[0])
    finally:
        worker.close()
    runtime = open_runtime(folder, artifact, threads=1, batch=1)
    assert found == replay(in_batches(runtime, 1), golden, artifact)
    softmax = replay(in_batches(runtime, 1), golden, replace(artifact, task="multiclass"))
    assert found.kl_mean != softmax.kl_mean


def test_looks_at_the_machine_are_taken_while_the_timed_part_runs(run: Run, tmp_path: Path) -> None:
    state = new_state(run, ("onnx-fp32",), tmp_path)
    worker = Worker("onnx-fp32", tmp_path, 1, lambda log: log)
    found = state.plan.subject("onnx-fp32").found
    given = {"folder": str(found.folder.resolve()), "sha256": found.artifact.sha256, "threads": 1, "batch": 1, "cpus": []}
    try:
        worker.ask({"do": "open", **given}, 120)
        asked = {"do": "block", "scope": "device", "images": list(state.options.images), "block_s": 1.0, "block_calls": 3,
                 "slow_calls": 3}  # fmt: skip
        answer, looks = worker.ask(asked, 60, lambda: Snapshot(None, 20.0, None, None, None), 0.05)
    finally:
        worker.close()
    assert sum(answer["durations_ns"]) <= 60e9
    assert len(looks) >= 2 + 1, "one before, one after, and some between"
    assert not children()


def test_a_batch_that_nobody_asked_for_is_halved_where_memory_is_short(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system does it: at 8 images the engine says that memory is short, at 4 the process is killed."""
    opened = measure.opened

    def short(state: State, subject: Subject, batch: int) -> AbstractContextManager[Worker]:
        if batch == 8:
            raise OctcError("OCT-E904", "memory is exhausted", hint="-")
        if batch == 4:
            text = f"onnx-fp32: the runtime crashed while it was measured: {KILLED}"
            raise OctcError("OCT-E609", text, hint="-")
        return opened(state, subject, batch)

    monkeypatch.setattr(measure, "opened", short)
    state = benched(run, ("onnx-fp32",), tmp_path / "scratch")
    assert not state.errors
    assert state.rows["onnx-fp32-device-2"].latency is not None
    assert not [name for name in state.rows if name.endswith(("-8", "-4"))]
    assert [text for text in state.warnings if "not requested" in text] == [
        "onnx-fp32: memory is short for batch 8, which was not requested: 4 instead",
        "onnx-fp32: memory is short for batch 4, which was not requested: 2 instead",
    ]
    check_schema(document(state, judge(state), find_all(state)))
    asked = benched(run, ("onnx-fp32",), tmp_path / "asked", options=tiny_options(run, batch=8, vs="none"))
    assert [error.code for error in asked.errors] == ["OCT-E904"]


def test_a_network_that_answers_everything_alike_is_found(run: Run, tmp_path: Path) -> None:
    state = benched(run, ("onnx-fp32",), tmp_path / "scratch")
    assert not [one for one in find_all(state) if one.code == "same_answer"]
    golden = read_golden(run.artifacts / "onnx-fp32")
    write_golden(run.artifacts / "onnx-fp32", replace(golden, logits=np.tile(golden.logits[:1], (len(golden.logits), 1))))
    (found,) = [one for one in find_all(state) if one.code == "same_answer"]
    assert (found.level, found.warning) == ("warn", "OCT-W809")
    assert "all of its 8 golden images the same answer" in found.text
