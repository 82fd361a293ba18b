"""The loop: it learns, repeats itself, goes on bitwise where it was stopped (T01, T02, T03), and stops on NaN (T10)."""

from __future__ import annotations

import csv
import math
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from octc.core.errors import OctcError
from octc.train.loop.epoch import Judgement
from octc.train.loop.label_losses import label_loss
from octc.train.loop.training import Data, Fitted
from octc.train.loop.ways import plain_ways
from octc.train.recipes.config import Augment, Objective
from tests.train.tiny import CLASSES, make_data, train

STEPS = 5  # of 40 images in batches of 8


def equal(one: Fitted | dict[str, torch.Tensor], other: Fitted | dict[str, torch.Tensor]) -> bool:
    a, b = (x.state if isinstance(x, Fitted) else x for x in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Three epochs without a break."""
    return train(tmp_path_factory.mktemp("whole"))


def stop_at(step: int, act: Callable[[], Any]) -> Callable[[int], None]:
    """A tick that acts after so many steps of this process."""
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        if done == step:
            act()

    return tick


def test_training_learns_and_keeps_its_best_epoch(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    data = make_data(90, 30)
    fitted = train(tmp_path, data=data, epochs=8, lr=1e-2, report=rows.append, augment=Augment(hflip=0.5))
    assert fitted.metrics["val_accuracy"] > 0.8 > 2 / CLASSES
    assert len(rows) == fitted.metrics["epochs"] == 8
    losses = [row["val_loss"] for row in rows]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert fitted.metrics["val_loss"] in losses
    assert fitted.metrics["val_n"] == 30
    with (tmp_path / "history.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [int(row["epoch"]) for row in table] == list(range(1, 9))
    assert [float(row["val_loss"]) for row in table] == losses
    assert float(table[-1]["lr"]) == pytest.approx(1e-4)


def test_two_runs_of_one_seed_are_the_same_bits(tmp_path: Path, whole: Fitted) -> None:
    assert equal(train(tmp_path), whole)


@pytest.mark.parametrize("step", [1, 7, 10, 14])
def test_t01_t02_stopped_by_a_signal_and_resumed_gives_the_same_bits(tmp_path: Path, whole: Fitted, step: int) -> None:
    """In the first epoch, in mid-epoch, on the last step of an epoch, just before the end."""
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tick=stop_at(step, lambda: signal.raise_signal(signal.SIGINT)))
    steps: list[int] = []
    resumed = train(tmp_path, resume=True, tick=steps.append)
    assert steps[0] == step
    assert sum(steps) == 3 * STEPS
    assert equal(resumed, whole)
    assert [{**row, "seconds": 0} for row in resumed.history] == [{**row, "seconds": 0} for row in whole.history]


def test_handlers_are_as_before_and_sigterm_goes_to_the_callers(tmp_path: Path) -> None:
    class Told(Exception):
        pass

    def tell(_number: int, _frame: Any) -> None:
        raise Told

    before = signal.signal(signal.SIGTERM, tell)
    try:
        with pytest.raises(Told):
            train(tmp_path, tick=stop_at(2, lambda: signal.raise_signal(signal.SIGTERM)))
        assert signal.getsignal(signal.SIGTERM) is tell
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "state-b" / "state.json").is_file()


def test_second_signal_acts_at_once(tmp_path: Path) -> None:
    """Two in one step: the second is not deferred to the state's being written."""

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tick=stop_at(3, twice))
    assert not (tmp_path / "state-b").exists()


def test_accumulated_micro_batches_are_stopped_only_between_updates(tmp_path: Path) -> None:
    options: dict[str, Any] = {"accumulate": 2, "epochs": 2}
    expected = train(tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tick=stop_at(3, lambda: signal.raise_signal(signal.SIGINT)), **options)
    steps: list[int] = []
    assert equal(train(tmp_path / "cut", resume=True, tick=steps.append, **options), expected)
    assert steps[0] == 4


def test_t03_killed_in_mid_epoch_and_resumed_gives_the_same_bits(tmp_path: Path, whole: Fitted, warm: tuple[str, ...]) -> None:
    """SIGKILL of a real process in the second epoch; what it had written at the end of the first one is taken up."""
    words = [*warm, "-m", "tests.train.tiny", str(tmp_path), '{"die": [7, 0]}']
    killed = subprocess.run(words, check=False, env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})
    assert killed.returncode == -signal.SIGKILL
    steps: list[int] = []
    resumed = train(tmp_path, resume=True, tick=steps.append)
    assert steps[0] == STEPS
    assert equal(resumed, whole)


def test_state_is_saved_within_an_epoch_too(tmp_path: Path, whole: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the long epochs; here after every update."""
    from octc.train.loop import fit as loop

    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)

    def die() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(tmp_path, tick=stop_at(9, die))
    steps: list[int] = []
    assert equal(train(tmp_path, resume=True, tick=steps.append), whole)
    assert steps[0] == 8


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_that_is_removed_meanwhile_ends_the_training_and_is_not_made_anew(again: bool, tmp_path: Path) -> None:
    """Hours of training would end in weights without a run. again: another one has its name by then."""
    folder = tmp_path / "train"

    def remove() -> None:
        shutil.rmtree(folder)
        if again:
            (tmp_path / "other").mkdir()  # so that the number of the old folder is taken
            folder.mkdir()

    with pytest.raises(OctcError) as caught:
        train(folder, tick=stop_at(STEPS + 2, remove))
    assert caught.value.code == "OCT-E107"
    assert list(folder.iterdir()) == [] if again else not folder.exists()


def test_finished_training_resumed_does_nothing_and_gives_the_same(tmp_path: Path, whole: Fitted) -> None:
    train(tmp_path)
    rows: list[dict[str, Any]] = []
    assert equal(train(tmp_path, resume=True, report=rows.append), whole)
    assert rows == []


def test_t07_damaged_newest_state_is_passed_over_with_a_warning(tmp_path: Path, whole: Fitted) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tick=stop_at(12, lambda: signal.raise_signal(signal.SIGINT)))
    newest = max(tmp_path.glob("state-?/state.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 4
    newest.write_bytes(data)
    rows: list[dict[str, Any]] = []
    resumed = train(tmp_path, resume=True, report=rows.append)
    assert "skipped" in rows[0]["warning"]
    assert equal(resumed, whole)


def test_best_weights_of_the_state_before_stay_until_no_state_refers_to_them(tmp_path: Path) -> None:
    train(tmp_path)
    kept = {path.name for path in tmp_path.glob("best-*")}
    assert 1 <= len(kept) <= 2


def test_t15_other_values_are_refused_or_allowed_by_name(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    with pytest.raises(OctcError) as caught:
        train(tmp_path, resume=True, lr=1e-4, epochs=2)
    assert caught.value.code == "OCT-E110"
    assert "stage.lr 0.003 -> 0.0001" in caught.value.message
    rows: list[dict[str, Any]] = []
    train(tmp_path, resume=True, lr=1e-4, epochs=2, allow_change=True, report=rows.append)
    assert "stage.lr 0.003 -> 0.0001" in rows[0]["warning"]
    assert [row["epoch"] for row in rows[1:]] == [2]


def test_t08_state_of_another_network_is_refused_with_the_difference(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    with pytest.raises(OctcError) as caught:
        train(tmp_path, resume=True, allow_change=True, model="test_resnet", epochs=2)
    assert caught.value.code == "OCT-E307"
    assert "missing keys" in caught.value.message


@pytest.mark.parametrize(("loss", "words"), [(0.5, "criterion (loss)"), (math.nan, "validation loss")])
def test_epochs_that_none_can_be_chosen_of_are_refused(tmp_path: Path, loss: float, words: str) -> None:
    """Logits that are finite may have a loss that is not."""
    ways = replace(plain_ways(label_loss(Objective(), 0.05, [], CLASSES)), judge=lambda *_: Judgement(loss, 0.5, math.inf))
    with pytest.raises(OctcError) as caught:
        train(tmp_path, epochs=1, loss=ways)
    assert (caught.value.code, words in caught.value.message) == ("OCT-E301", True)


def test_t10_gradients_that_explode_stop_with_the_files_and_keep_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tick=stop_at(3, lambda: signal.raise_signal(signal.SIGINT)))
    good = {path: path.read_bytes() for path in tmp_path.glob("state-?/*")}
    with pytest.raises(OctcError) as caught:
        train(tmp_path, resume=True, allow_change=True, lr=1e30, clip=0.0, warmup=0.0)
    error = caught.value
    assert error.code == "OCT-E301"
    assert error.exit_code == 5
    assert "in 3 updates in a row (epoch 1" in error.message
    assert "CLASS/" in str(error.place)
    named = (tmp_path / "not-finite.txt").read_text().splitlines()
    assert 8 <= len(named) <= 24
    assert set(named) <= set(make_data().names)
    assert {path: path.read_bytes() for path in tmp_path.glob("state-?/*")} == good


def test_t10_one_bad_batch_is_skipped_and_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from octc.train.batches import inputs

    real, seen = inputs.network_input, []

    def poison(images: torch.Tensor, pre: Any) -> torch.Tensor:
        seen.append(len(images))
        out = real(images, pre)
        return out * float("nan") if len(seen) == 2 else out  # the second batch of the first epoch

    monkeypatch.setattr(inputs, "network_input", poison)
    with pytest.raises(OctcError) as caught:  # BatchNorm's running mean has met it: validation shows that
        train(tmp_path, epochs=1)
    assert caught.value.code == "OCT-E301"
    assert "validation logits not finite" in caught.value.message
    seen.clear()
    fitted = train(tmp_path / "layer", epochs=1, model="test_convnext", model_kwargs={})  # LayerNorm forgets it
    assert np.isfinite(fitted.history[0]["train_loss"])
    assert all(bool(torch.isfinite(tensor).all()) for tensor in fitted.state.values())


@pytest.mark.parametrize(("count", "batch"), [(9, 8), (40, 64), (2, 8)])
def test_t22_last_batch_of_one_and_batch_larger_than_the_set(tmp_path: Path, count: int, batch: int) -> None:
    data = make_data(count, 6)
    steps: list[int] = []
    train(tmp_path, data=data, batch=batch, epochs=1, tick=steps.append)
    assert len(steps) == 1


def test_patience_ends_a_training_that_does_not_get_better(tmp_path: Path) -> None:
    fitted = train(tmp_path, epochs=30, lr=1e-9, ema=0.0, patience=2)
    assert fitted.metrics["epochs"] < 30
    assert fitted.metrics["epochs"] == fitted.metrics["epoch"] + 2


@pytest.mark.parametrize("select", ["loss", "accuracy"])
def test_the_kept_epoch_is_the_one_that_select_names(tmp_path: Path, select: str) -> None:
    fitted = train(tmp_path, epochs=4, lr=2e-2, select=select, smoothing=0.0)
    rows = fitted.history
    if select == "loss":
        assert rows[fitted.metrics["epoch"] - 1]["val_loss"] == min(row["val_loss"] for row in rows)
    else:
        top = max(row["val_acc"] for row in rows)
        ties = [row for row in rows if row["val_acc"] == top]
        assert rows[fitted.metrics["epoch"] - 1]["val_loss"] == min(row["val_loss"] for row in ties)


def test_kept_weights_are_those_that_were_judged(tmp_path: Path) -> None:
    from octc.train.loop.evaluate import logits_of
    from octc.train.networks.models import build_model

    data = make_data()
    fitted = train(tmp_path, data=data)
    model = build_model("test_efficientnet", CLASSES)
    model.load_state_dict(fitted.state)
    logits = logits_of(model, data.val_images, data.preprocess, "cpu")
    loss = float(torch.nn.functional.cross_entropy(logits, torch.tensor(list(data.val_labels))))
    assert loss == pytest.approx(fitted.metrics["val_loss"], rel=1e-5)
    again = logits_of(model, data.val_images, data.preprocess, "cpu")
    assert torch.equal(logits, again)  # T20: nothing moves in eval mode
    alone = torch.cat([logits_of(model, data.val_images[i : i + 1], data.preprocess, "cpu") for i in range(4)])
    assert torch.allclose(logits[:4], alone, atol=1e-4)


def test_short_floats_train_and_the_average_of_the_weights_is_what_is_judged(tmp_path: Path, reset_accelerate: None) -> None:
    data: Data = make_data()
    fitted = train(tmp_path, data=data, precision="bf16", ema=0.999)
    assert all(tensor.dtype != torch.bfloat16 for tensor in fitted.state.values())
    assert fitted.metrics["epochs"] == 3


def test_t11_gpu_that_is_too_small_gets_a_batch_to_try(tmp_path: Path) -> None:
    """Torch's own exception, raised here: no GPU can be filled in a test."""

    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(OctcError) as caught:
        train(tmp_path, tick=stop_at(2, full))
    assert caught.value.code == "OCT-E302"
    assert "8 images a step" in caught.value.message
    assert "--batch 4" in caught.value.hint
