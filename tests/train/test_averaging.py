"""EMA and SWA: their formulas, fresh norms, SWA as a candidate, and that all new state of a training goes on bitwise."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, update_bn

from octc.train.loop.averaging import average_epochs, average_steps, batch_norms, refresh_norms
from octc.train.loop.epoch import Judgement, judge
from octc.train.loop.evaluate import logits_of
from octc.train.loop.label_losses import label_loss
from octc.train.loop.state import read_state
from octc.train.loop.training import Fitted
from octc.train.loop.ways import Ways, plain_ways
from octc.train.networks.models import build_model
from octc.train.recipes.config import Augment, Mix, Objective, Stage, Swa
from tests.train.test_loop import equal, stop_at
from tests.train.test_processes import LIMIT, largest_difference, two
from tests.train.tiny import CLASSES, make_data, train


def test_equal_average_is_torchs() -> None:
    torch.manual_seed(0)
    models = [build_model("test_resnet", 3) for _ in range(4)]
    mine = build_model("test_resnet", 3)
    theirs = AveragedModel(models[0], use_buffers=True)
    for count, model in enumerate(models):
        average_epochs(mine, model, count)
        theirs.update_parameters(model)
    for (name, a), b in zip(mine.named_parameters(), theirs.module.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def test_refreshed_norms_are_torchs() -> None:
    torch.manual_seed(0)
    mine, theirs = build_model("test_resnet", 3), build_model("test_resnet", 3)
    theirs.load_state_dict(mine.state_dict())
    batches = [torch.rand(4, 3, 32, 32) for _ in range(3)]
    refresh_norms(mine, iter(batches))
    update_bn(batches, theirs)
    for a, b in zip(mine.buffers(), theirs.buffers(), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-6)
    assert batch_norms(mine)
    assert all(norm.momentum == 0.1 for norm in batch_norms(mine))
    assert not mine.training


def test_networks_without_batch_norm_are_left_as_they_are() -> None:
    def never() -> Any:
        raise AssertionError("no picture is needed")
        yield

    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    refresh_norms(model, never())


def test_ema_with_and_without_warm_up() -> None:
    kept, live = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for module, value in ((kept, 0.0), (live, 1.0)):
        nn.init.constant_(module.weight, value)
    average_steps(kept, live, 0.9, 0, warmup=False)
    assert float(kept.weight.detach()) == pytest.approx(0.1)
    nn.init.constant_(kept.weight, 0.0)
    average_steps(kept, live, 0.9, 0)
    assert float(kept.weight.detach()) == pytest.approx(0.9)
    nn.init.constant_(kept.weight, 0.0)
    average_steps(kept, live, 0.9, 1000)
    assert float(kept.weight.detach()) == pytest.approx(0.1)


def told(*criteria: float) -> Ways:
    """A training whose judge says these, one set of weights after the other, beside the real figures of each.

    Which weights are better is said, not trained for: that would hang on the last bits of a sum, and so on the processor.
    """
    left = iter(criteria)

    def said(stage: Stage, logits: torch.Tensor, labels: Sequence[int], train_labels: Sequence[int]) -> Judgement:
        return replace(judge(stage, logits, labels, train_labels), criterion=next(left))

    return replace(plain_ways(label_loss(Objective(), 0.0, [], CLASSES)), judge=said)


AVERAGED: dict[str, Any] = {"epochs": 4, "ema": 0.0, "smoothing": 0.0, "augment": Augment()}
EPOCHS = (4.0, 3.0, 1.0, 2.0)


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """The training whose average is not judged."""
    swa = Swa(start=1, lr=1e-3, judged=False)
    return train(tmp_path_factory.mktemp("unused"), data=make_data(), swa=swa, loss=told(*EPOCHS), **AVERAGED)


@pytest.mark.parametrize(("said", "kept"), [(0.5, True), (1.0, False), (1.5, False), (float("nan"), False)])
def test_a9_swa_is_one_more_candidate_and_is_kept_where_it_is_better(
    tmp_path: Path, said: float, kept: bool, unused: Fitted
) -> None:
    data = make_data()
    fitted = train(tmp_path / "judged", data=data, swa=Swa(start=1, lr=1e-3), loss=told(*EPOCHS, said), **AVERAGED)
    found = fitted.metrics["swa"]
    assert (found["epochs"], found["kept"]) == (3, kept)
    assert fitted.metrics["epoch"] == (4 if kept else 3)
    assert fitted.metrics["val_loss"] == (found["val_loss"] if kept else fitted.history[2]["val_loss"])
    model = build_model("test_efficientnet", 3)
    model.load_state_dict(fitted.state)
    logits = logits_of(model, data.val_images, data.preprocess, "cpu")
    loss = float(functional.cross_entropy(logits, torch.tensor(list(data.val_labels))))
    assert loss == pytest.approx(fitted.metrics["val_loss"], rel=1e-4)  # the weights are those that the figures are of
    saved = read_state(tmp_path / "judged", {}, allow_change=True)
    assert saved is not None
    mean = {name: saved.tensors[f"swa/{name}"] for name, _ in model.named_parameters()}
    assert kept == all(torch.equal(fitted.state[name], tensor) for name, tensor in mean.items())
    assert "swa" not in unused.metrics
    assert unused.metrics["val_loss"] == fitted.history[2]["val_loss"]
    assert equal(fitted, unused) != kept


def test_a9_the_average_is_judged_as_an_epoch_is(tmp_path: Path) -> None:
    """Whichever is better here: the smaller loss on val decides."""
    fitted = train(tmp_path, swa=Swa(start=1, lr=1e-3), loss=label_loss(Objective(), 0.0, [], CLASSES), **AVERAGED)
    found, best = fitted.metrics["swa"], min(row["val_loss"] for row in fitted.history)
    assert found["kept"] == (found["val_loss"] < best)
    assert fitted.metrics["val_loss"] == min(found["val_loss"], best)


EVERYTHING: dict[str, Any] = {
    "epochs": 4, "backbone": 0.3, "freeze": 1, "restart": True, "schedule": "iteration", "warmup": 0.5, "ema": 0.9,
    "swa": Swa(start=2, lr=1e-3, anneal=2), "mix": Mix(mixup=0.4, cutmix=1.0, prob=0.9), "decay_all": True, "patience": 9,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return train(tmp_path_factory.mktemp("whole"), **EVERYTHING)


@pytest.mark.parametrize("step", [3, 5, 13, 19])
def test_every_new_state_goes_on_bitwise(tmp_path: Path, whole: Fitted, step: int) -> None:
    """In the frozen epoch, on its last step, in the averaged epochs, before the end."""
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tick=stop_at(step, lambda: signal.raise_signal(signal.SIGINT)), **EVERYTHING)
    resumed = train(tmp_path / "cut", resume=True, **EVERYTHING)
    assert equal(resumed, whole)
    assert resumed.metrics == whole.metrics
    assert [{**row, "seconds": 0} for row in resumed.history] == [{**row, "seconds": 0} for row in whole.history]


def test_a_finished_training_judges_its_average_again_alike(tmp_path: Path, whole: Fitted) -> None:
    first = train(tmp_path, **EVERYTHING)
    assert equal(first, whole)
    again = train(tmp_path, resume=True, **EVERYTHING)
    assert again.metrics == first.metrics
    assert equal(again, first)


def test_published_views_go_on_bitwise(tmp_path: Path) -> None:
    options: dict[str, Any] = {"views": "kd-student", "epochs": 2}
    whole = train(tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tick=stop_at(7, lambda: signal.raise_signal(signal.SIGINT)), **options)
    assert equal(train(tmp_path / "cut", resume=True, **options), whole)


def test_the_backbone_stands_still_while_it_is_frozen(tmp_path: Path) -> None:
    torch.manual_seed(7)
    start = build_model("test_efficientnet", 3, drop_rate=0.2).state_dict()
    frozen = train(tmp_path / "frozen", epochs=1, freeze=1, ema=0.0).state
    moved = {name for name in start if not torch.equal(start[name], frozen[name]) and "running" not in name}
    assert {name.split(".")[0] for name in moved if "num_batches" not in name} == {"classifier"}
    train(tmp_path / "released", epochs=2, freeze=1, ema=0.0)
    saved = read_state(tmp_path / "released", {}, allow_change=True)
    assert saved is not None
    assert not torch.equal(saved.tensors["model/conv_stem.weight"], start["conv_stem.weight"])


def test_early_stopping_waits_for_the_release_where_everything_restarts(tmp_path: Path) -> None:
    """At rate zero nothing gets better: patience 1 stops at once, but not while the backbone is frozen."""
    stuck: dict[str, Any] = {"lr": 0.0, "epochs": 6, "patience": 1, "ema": 0.0, "decay": 0.0, "select": "accuracy"}
    assert train(tmp_path / "a", **stuck).metrics["epochs"] < 4
    assert train(tmp_path / "b", freeze=4, restart=True, **stuck).metrics["epochs"] >= 5


@pytest.mark.slow
def test_two_processes_freeze_as_one_does(warm: tuple[str, ...], tmp_path: Path) -> None:
    """There the gradients of the backbone are computed and thrown away, since every process waits for all of them."""
    options: dict[str, Any] = {
        "epochs": 2, "model_kwargs": {}, "batch": 4, "freeze": 1, "backbone": 0.3, "restart": True, "ema": 0.0,
    }  # fmt: skip
    train(tmp_path / "one", accumulate=2, **options)
    with two(warm, tmp_path / "two", options) as processes:
        for process in processes:
            _, said = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, said
    states = [read_state(tmp_path / name, {}, allow_change=True) for name in ("one", "two")]
    alone, together = (
        {n.removeprefix("model/"): t for n, t in s.tensors.items() if n.startswith("model/")} for s in states if s
    )
    assert largest_difference(alone, together, buffers=False) < 1e-5
