"""Several processes (gloo, on the CPU): the same weights as one, one signal for all, and no hang when one dies (T14)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset

from octc.core.errors import OctcError
from octc.train.loop import processes
from octc.train.loop.processes import accelerate_apart, make_accelerator, named_failures, torch_lent
from octc.train.loop.state import read_state
from tests.train.tiny import STAGE, facts, train

LIMIT = 120.0  # seconds; far less than the timeouts of the backends


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": "", **more}


@contextmanager
def two(python: tuple[str, ...], folder: Path, options: dict[str, Any]) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes of one training, without an agent that would end one when the other dies."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    words = [*python, "-m", "tests.train.tiny", str(folder), json.dumps(options)]
    started = [
        subprocess.Popen(
            words, env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **places), stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        yield started
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], buffers: bool) -> float:
    """Over the parameters, or over the statistics of BatchNorm."""
    names = [name for name in one if ("running" in name) == buffers and one[name].is_floating_point()]
    return max(float((one[name] - other[name]).abs().max()) for name in names)


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_that_accumulates(tmp_path: Path) -> None:
    """Through torchrun. A batch of 4 on each of two is one update of 2 x 4: gradients, clipping, rates and the average agree.

    BatchNorm's running statistics are those of the first process's half, as everywhere without synchronised norms.
    """
    options: dict[str, Any] = {"epochs": 1, "model_kwargs": {}, "batch": 4, "clip": 0.5}
    alone = train(tmp_path / "one", accumulate=2, **options)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tests.train.tiny"]
    made = subprocess.run(
        [*words, str(tmp_path / "two"), json.dumps(options)], env=environment(), capture_output=True, text=True, timeout=LIMIT,
        check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    together = load_file(tmp_path / "two" / "best-0000.safetensors")
    assert largest_difference(alone.state, together, buffers=False) < 1e-6
    assert largest_difference(alone.state, together, buffers=True) > 1e-3
    state = json.loads((tmp_path / "two" / "state-b" / "state.json").read_text())
    assert state["progress"]["epoch"] == 1
    assert len(list((tmp_path / "two").glob("*.csv"))) == 1


@pytest.mark.slow
def test_t14_when_one_dies_the_other_ends_with_an_error_that_says_so(warm: tuple[str, ...], tmp_path: Path) -> None:
    start = time.monotonic()
    with two(warm, tmp_path, {"die": [3, 1], "epochs": 50}) as (first, second):
        assert second.wait(LIMIT) == -signal.SIGKILL
        _, told = first.communicate(timeout=LIMIT)
    assert first.returncode == 1
    assert "OctcError: process 0 lost another one of 2" in told
    assert time.monotonic() - start < LIMIT


def test_a_signal_to_one_stops_both_after_the_same_step_with_the_state_saved(warm: tuple[str, ...], tmp_path: Path) -> None:
    """Only the process that does not write is told; the other one must save before the pair breaks up."""
    with two(warm, tmp_path, {"epochs": 500, "model_kwargs": {}}) as (first, second):
        deadline = time.monotonic() + LIMIT
        while not (tmp_path / "history.csv").exists():
            assert first.poll() is None, first.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second.send_signal(signal.SIGTERM)
        assert second.wait(LIMIT) == -signal.SIGTERM
        assert first.wait(LIMIT) == -signal.SIGTERM
    saved = read_state(tmp_path, facts(STAGE))
    assert saved is not None
    assert saved.warnings == ()
    assert saved.progress.epoch >= 1


class Killing(Dataset[int]):
    """A data set whose worker the system kills."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_t12_a_data_worker_that_is_killed_is_named_with_what_is_short() -> None:
    with pytest.raises(OctcError) as caught, named_failures(make_accelerator("cpu"), 8):
        list(DataLoader(Killing(), num_workers=1))
    assert caught.value.code == "OCT-E303"
    assert "/dev/shm has " in caught.value.message
    assert "RAM " in caught.value.message
    assert "--shm-size" in caught.value.hint


def test_t13_a_gpu_that_is_lost_is_named_and_the_way_on() -> None:
    with pytest.raises(OctcError) as caught, named_failures(make_accelerator("cpu"), 8):
        raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported later")
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E304", 4)
    assert "--resume" in caught.value.hint
    assert caught.value.why == "CUDA error: unspecified launch failure"


def test_t11_memory_of_the_machine_that_is_too_small_gets_a_batch_to_try() -> None:
    with pytest.raises(OctcError) as caught, named_failures(make_accelerator("cpu"), 8):
        torch.empty(1 << 50, dtype=torch.uint8)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E302", 4)
    assert "--batch 4" in caught.value.hint


def test_an_error_that_is_not_known_is_not_renamed() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), named_failures(make_accelerator("cpu"), 8):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


@pytest.mark.parametrize(("device", "chosen"), [("cuda", []), ("cuda:0", [0]), ("cuda:1", [1])])
def test_a_gpu_is_chosen_where_it_is_named_by_number(device: str, chosen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch refuses set_device("cuda"); without a number Accelerate takes the GPU of the rank (seen on an H100, 2026-11-27)."""
    took: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", took.append)
    monkeypatch.setattr(processes, "Accelerator", lambda **_: SimpleNamespace(num_processes=1))
    make_accelerator(device)
    assert took == chosen
    with pytest.raises(OctcError, match="device cuda:2 is not available"):
        make_accelerator("cuda:2")


@pytest.mark.parametrize(("together", "each"), [(1, 7), (2, 3), (8, 1)])
def test_processes_share_the_threads_out_and_torch_has_its_own_again(
    together: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that a notebook calls leaves torch as it found it, whatever ends it."""
    monkeypatch.setattr(processes, "usable_threads", lambda: (7, "told"))
    alone: Any = SimpleNamespace(device=torch.device("cpu"), num_processes=together)
    before = torch.get_num_threads()
    drawn = torch.random.get_rng_state()
    with torch_lent(alone):
        torch.manual_seed(1)
        assert torch.get_num_threads() == each
    assert torch.get_num_threads() == before
    with contextlib.suppress(KeyboardInterrupt), torch_lent(alone):
        torch.manual_seed(2)
        raise KeyboardInterrupt
    assert torch.get_num_threads() == before
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_a_job_leaves_no_device_and_no_precision_to_the_next_one() -> None:
    """Accelerate keeps both for the process: the next training would be refused, or stay on the processor that the first one
    had. An Accelerator of the caller keeps its own."""
    with accelerate_apart():
        mine = Accelerator(cpu=True, mixed_precision="bf16")
        mine.wait_for_everyone()
        for precision, word in (("fp32", "no"), ("bf16", "bf16")):
            with accelerate_apart():
                job = make_accelerator("cpu", precision)
                assert job.mixed_precision == word
                net, optimizer = job.prepare(torch.nn.Linear(2, 2), torch.optim.SGD([torch.zeros(1, requires_grad=True)]))
                job.backward(net(torch.zeros(1, 2)).sum())
                optimizer.step()
        assert AcceleratorState().mixed_precision == mine.mixed_precision == "bf16"
        assert Accelerator(cpu=True).state.mixed_precision == "bf16", "a second one of the caller is as the first"
    with contextlib.suppress(KeyboardInterrupt), accelerate_apart():
        make_accelerator("cpu", "bf16")
        raise KeyboardInterrupt
    with accelerate_apart():
        assert make_accelerator("cpu", "fp32").mixed_precision == "no"
