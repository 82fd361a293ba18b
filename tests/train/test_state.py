"""The training state: a kill leaves one slot whole (T03), flipped bits are seen (T07), changes are named (T15)."""

from __future__ import annotations

import json
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from octc.core.errors import OctcError
from octc.train.loop.optim import load_scaler, scaler_tensors
from octc.train.loop.state import (
    Progress,
    differences,
    flat,
    load_optimizer,
    optimizer_tensors,
    pack,
    read_state,
    unpack,
    write_state,
)
from tests.train.writer import write_for_ever

FACTS = flat({"stage": {"lr": 0.001, "mean": (0.5, 0.5), "model": "x"}, "seed": 0, "processes": 1})


def write(folder: Path, serial: int, **progress: Any) -> None:
    fields = {"epoch": serial, "best": 0.25, "best_epoch": 0, "sums": {"loss": 1 / 3}, "history": [{"epoch": 1, "x": 0.1}]}
    write_state(folder, FACTS, serial, Progress(**{**fields, **progress}), {"w": torch.full((50,), float(serial))})


def serial_of(folder: Path) -> int:
    saved = read_state(folder, FACTS)
    assert saved is not None
    assert torch.equal(saved.tensors["w"], torch.full((50,), float(saved.serial)))
    assert saved.progress.epoch == saved.serial
    return saved.serial


def refused(folder: Path, facts: dict[str, Any] | None = None) -> OctcError:
    with pytest.raises(OctcError) as caught:
        read_state(folder, facts or FACTS)
    return caught.value


def test_nothing_written_is_nothing_to_resume(tmp_path: Path) -> None:
    assert read_state(tmp_path, FACTS) is None


def test_newest_state_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    for serial in range(1, 6):
        write(tmp_path, serial)
        assert serial_of(tmp_path) == serial
    saved = read_state(tmp_path, FACTS)
    assert saved is not None
    assert saved.progress == Progress(5, 0, 0.25, 0, 0, 0, {"loss": 1 / 3}, [{"epoch": 1, "x": 0.1}])
    assert saved.warnings == ()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state-a", "state-b"]


def test_no_best_yet_and_a_best_of_zero_are_kept_apart(tmp_path: Path) -> None:
    write(tmp_path, 1, best=float("inf"), best_epoch=-1)
    saved = read_state(tmp_path, FACTS)
    assert saved is not None
    assert saved.progress.best == float("inf")
    write(tmp_path, 2, best=0.0)
    saved = read_state(tmp_path, FACTS)
    assert saved is not None
    assert saved.progress.best == 0.0


def test_t07_any_flipped_bit_of_the_newest_state_takes_the_one_before_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    newest = tmp_path / "state-a"
    for name, stride in (("state.safetensors", 17), ("state.json", 1)):
        data = (newest / name).read_bytes()
        for place in [i for i in range(0, len(data), stride) if data[i] not in b" \n"]:
            (newest / name).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            saved = read_state(tmp_path, FACTS)
            assert saved is not None
            assert saved.serial == 1, (name, place)
            assert len(saved.warnings) == 1
            assert "state-a" in saved.warnings[0]
        (newest / name).write_bytes(data)
    assert serial_of(tmp_path) == 2


def test_t07_when_both_are_damaged_nothing_is_begun_anew_unasked(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    for slot in ("state-a", "state-b"):
        path = tmp_path / slot / "state.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    error = refused(tmp_path)
    assert error.code == "OCT-E501"
    assert "state-a" in str(error.why)
    assert "state-b" in str(error.why)


def test_half_written_first_state_is_nothing_to_resume(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "state-b" / "state.json").unlink()
    assert read_state(tmp_path, FACTS) is None


def test_t03_a_process_killed_while_writing_leaves_the_state_that_it_reported(tmp_path: Path) -> None:
    """Really killed, at sixteen moments of a loop that does nothing but write."""
    context = get_context("forkserver")  # torch is imported once
    context.set_forkserver_preload(["tests.train.writer"])
    for attempt in range(16):
        folder, log = tmp_path / str(attempt), tmp_path / f"{attempt}.log"
        log.touch()
        process = context.Process(target=write_for_ever, args=(folder, log))
        process.start()
        while log.read_text().count("\n") < 2:
            assert process.is_alive()
            time.sleep(0.001)
        time.sleep(0.002 * attempt)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        process.close()
        saved = read_state(folder, {"seed": 0})
        assert saved is not None
        assert saved.serial >= int(log.read_text().split()[-1])
        assert torch.equal(saved.tensors["w"], torch.full((50,), float(saved.serial)))


def test_t15_another_configuration_is_refused_with_every_difference(tmp_path: Path) -> None:
    write(tmp_path, 1, step=5)
    changed = flat({"stage": {"lr": 0.01, "mean": (0.5, 0.5), "model": "x"}, "seed": 1, "processes": 2, "new": True})
    error = refused(tmp_path, changed)
    assert error.code == "OCT-E110"
    assert error.exit_code == 2
    for part in ("stage.lr 0.001 -> 0.01", "seed 0 -> 1", "processes 1 -> 2", "new None -> True"):
        assert part in error.message
    assert "mean" not in error.message
    assert "--allow-change" in error.hint


def test_t15_allowed_changes_are_listed_and_the_epoch_begins_anew(tmp_path: Path) -> None:
    """A step number means another place where batches or processes differ."""
    write(tmp_path, 1, step=5)
    saved = read_state(tmp_path, {**FACTS, "seed": 1}, allow_change=True)
    assert saved is not None
    assert (saved.progress.epoch, saved.progress.step, saved.progress.sums) == (1, 0, {})
    assert "seed 0 -> 1" in saved.warnings[0]
    unchanged = read_state(tmp_path, FACTS, allow_change=True)
    assert unchanged is not None
    assert (unchanged.progress.step, unchanged.warnings) == (5, ())


def test_flat_names_leaves_by_their_path_as_json_gives_them_back() -> None:
    facts = flat({"a": {"b": (1, 2), "c": {}}, "d": None, "e": [0.1]})
    assert facts == {"a.b": [1, 2], "d": None, "e": [0.1]}
    assert differences(json.loads(json.dumps(facts)), facts) == []


def test_parts_are_packed_and_told_apart() -> None:
    packed = pack({"model": {"a.b": torch.ones(1)}, "ema": {"a.b": torch.zeros(1)}, "none": {}})
    assert unpack(packed, "model")["a.b"].item() == 1
    assert unpack(packed, "ema")["a.b"].item() == 0
    assert unpack(packed, "mode") == {}


def test_optimiser_goes_on_as_if_it_had_never_stopped() -> None:
    def steps(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            (weight * torch.arange(6.0)).square().sum().backward()
            optimizer.step()

    one = torch.nn.Parameter(torch.ones(6))
    optimizer = torch.optim.AdamW([one], lr=0.1)
    steps(one, optimizer, 3)
    tensors = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
    other = torch.nn.Parameter(one.detach().clone())
    steps(one, optimizer, 3)
    again = torch.optim.AdamW([other], lr=0.1)
    load_optimizer(again, tensors)
    steps(other, again, 3)
    assert torch.equal(one, other)


def test_loss_scale_of_fp16_is_kept() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for factor in (float("inf"), 1.0):  # an overflow halves the scale
        scaler.scale(weight * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    again = torch.amp.GradScaler("cpu")
    load_scaler(again, scaler_tensors(scaler))
    assert again.state_dict() == scaler.state_dict()
    assert again.get_scale() == 2.0**15
    assert scaler_tensors(None) == {}
    load_scaler(None, {})
