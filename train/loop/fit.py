"""The training loop: one network, one stage, resumable at any step, on one CPU, one GPU or many (Accelerate, torchrun)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from octc.core.errors import OctcError
from octc.train.batches.images import EpochBatches, ImageSet
from octc.train.batches.inputs import training_views
from octc.train.batches.mix import draw_mixing, mix_images
from octc.train.loop.averaging import average_epochs, refresh_norms
from octc.train.loop.checkpoint import read_weights
from octc.train.loop.epoch import best_path, criteria, finish_epoch, goes_on
from octc.train.loop.history import write_history
from octc.train.loop.label_losses import Loss
from octc.train.loop.optim import accumulation, backbone_of, drop_gradients, hold, set_rates
from octc.train.loop.processes import agreed, named_failures, shared_logits
from octc.train.loop.signals import Deferred, deferred_signals
from octc.train.loop.tensorboard import write_events
from octc.train.loop.training import Data, Fitted, Report, Training, add_values, go_on, refuse, save_state, update
from octc.train.loop.ways import Batch, Ways, plain_ways
from octc.train.recipes.config import Stage

SAVE_SECONDS = 300.0  # the most that a killed process loses, besides the end of every epoch


def fit(
    model: nn.Module, stage: Stage, data: Data, loss: Loss | Ways, *, folder: Path, facts: Mapping[str, Any], seed: int,
    accelerator: Accelerator, resume: bool, tick: Callable[[int], None], report: Report, allow_change: bool = False,
    exact: bool = False,
) -> Fitted:  # fmt: skip
    """Train, keep the best epoch by `stage.select`, save the state as it goes.

    Args:
        loss: on labels, or all that a training does in its own way (`Ways`).
        folder: where the state lies; facts: everything that decides the result (a resume must have the same).
        allow_change: resume a state whatever its facts are.
        exact: compute in float32 even where the accelerator has a shorter type (fake quantisation needs its grid whole).
        tick: called with 1 after every step; report: called with a row after every epoch.

    Raises:
        OctcError: E301 gradients or validation not finite, E110 / E501 the state cannot be resumed, E104 fewer images than
            processes, E302 the GPU is too small, E305 another process is lost.
    """
    ways = loss if isinstance(loss, Ways) else plain_ways(loss)
    optimizer = ways.optimizer(model, stage)
    backbone = backbone_of(optimizer)
    sampler = EpochBatches(len(data.labels), stage.batch, seed, accelerator.num_processes)
    loader: Any = DataLoader(
        ImageSet(data.images, data.labels), batch_sampler=sampler, pin_memory=accelerator.device.type == "cuda"
    )
    net, optim, loader = accelerator.prepare(model.to(memory_format=torch.channels_last), optimizer, loader)
    # without Accelerate's own autocast around `forward`: validation, and `exact` training, compute in float32
    plain: nn.Module = accelerator.unwrap_model(net, keep_fp32_wrapper=False)
    averages = {"ema": stage.ema > 0, "swa": stage.swa.start > 0}
    copies = {name: copy.deepcopy(plain).requires_grad_(False) for name, on in averages.items() if on}
    at = Training(net, plain, copies, optimizer, stage, data, folder, facts, seed, accelerator, ways)
    steps = len(loader)
    _check_steps(stage, steps)
    if resume:
        go_on(at, steps, allow_change, tick, report)
    progress = at.progress
    alone, rank = accelerator.num_processes == 1, accelerator.process_index

    def forward(x: torch.Tensor) -> torch.Tensor:
        with nullcontext() if exact else accelerator.autocast():
            logits: torch.Tensor = net(x)
        return logits.float()

    with deferred_signals() as signals, named_failures(accelerator, stage.batch):
        written = time.monotonic()
        while goes_on(progress, stage):
            started = time.monotonic()
            sampler.epoch = progress.epoch
            batches = accelerator.skip_first_batches(loader, progress.step) if progress.step else loader
            frozen = progress.epoch < stage.freeze
            hold(backbone, frozen and alone)
            if stage.restart and progress.epoch == stage.freeze and progress.step == 0:
                optimizer.state.clear()
                progress.bad = 0
            optim.zero_grad()
            losses = criteria(progress.history)
            for images, labels, indices in batches:
                _seed_step(seed, progress.epoch, progress.step, rank)
                set_rates(optimizer, stage, progress.epoch, progress.step, steps, losses)
                net.train()
                inputs = training_views(images, indices, stage, data.preprocess, *ways.view(seed, progress.epoch))
                mixing = draw_mixing(stage.mix, (seed, progress.epoch, progress.step, rank), len(images), stage.size)
                inputs = mix_images(inputs, mixing)
                group = accumulation(progress.step, steps, stage.accumulate, stage.drop_rest)
                value, parts = ways.step(forward, Batch(inputs, labels, mixing, indices.tolist(), progress.epoch))
                accelerator.backward(value / group.size)
                at.suspects += indices.tolist()
                if group.last:
                    if frozen and not alone:
                        drop_gradients(backbone)
                    update(at, optim, steps)
                add_values(progress.sums, {"loss": value, **parts})
                progress.step += 1
                tick(1)
                if group.last:
                    stop = agreed(accelerator, signals.number)
                    if stop or time.monotonic() - written > SAVE_SECONDS:
                        save_state(at)
                        written = time.monotonic()
                    if stop:
                        signals.leave(stop)
            row = _end_of_epoch(at, steps, signals)
            row["seconds"] = round(time.monotonic() - started, 1)
            save_state(at)
            written = time.monotonic()
            if accelerator.is_main_process:
                write_history(folder, progress.history)
                write_events(folder / "tensorboard", progress.history)
            report(row)
            if stop := agreed(accelerator, signals.number):
                signals.leave(stop)
    hold(backbone, False)
    fitted = _kept(at)
    accelerator.free_memory()
    return fitted


def _end_of_epoch(at: Training, steps: int, signals: Deferred) -> dict[str, Any]:
    """Judge the weights on val, keep them if they are the best, advance to the next epoch."""
    progress, stage, data = at.progress, at.stage, at.data
    logits = shared_logits(at.judged, data.val_images, data.preprocess, at.accelerator, lambda: signals.number)
    if len(logits) < len(data.val_labels):  # a signal: the epoch is judged when the run goes on
        save_state(at)
        signals.leave(signals.number)
    if not bool(torch.isfinite(logits).all()):
        refuse(at, "validation logits not finite")
    if not progress.sums:
        refuse(at, "no step with a finite loss")
    if "swa" in at.copies and progress.epoch >= stage.swa.start:
        average_epochs(at.copies["swa"], at.plain, progress.averaged)
        progress.averaged += 1
    judged = at.ways.judge(stage, logits, data.val_labels, data.labels)
    return finish_epoch(progress, at.judged, judged, stage, at.accelerator, at.folder, steps)


def _kept(at: Training) -> Fitted:
    """The best epoch, or the average of the last ones where that is better on val. Repeats itself on a finished state."""
    progress, stage, data = at.progress, at.stage, at.data
    best = progress.history[progress.best_epoch]
    state = read_weights(best_path(at.folder, progress.best_epoch), best["sha256"])
    metrics = {
        "epoch": progress.best_epoch + 1,
        "epochs": progress.epoch,
        "select": stage.select,
        "val_n": len(data.val_labels),
        "val_accuracy": best["val_acc"],
        "val_loss": best["val_loss"],
    }
    swa = at.copies.get("swa")
    if swa is None or not stage.swa.judged or not progress.averaged:
        return Fitted(state, metrics, progress.history)
    chunks = (np.arange(i, min(i + stage.batch, len(data.labels))) for i in range(0, len(data.labels), stage.batch))
    refresh_norms(swa, (_train_views(at, chunk) for chunk in chunks))
    logits = shared_logits(swa, data.val_images, data.preprocess, at.accelerator, lambda: 0)
    judged = at.ways.judge(stage, logits, data.val_labels, data.labels)
    better = judged.criterion < progress.best
    found = {"epochs": progress.averaged, "val_accuracy": judged.accuracy, "val_loss": judged.loss, "kept": better}
    if better:
        state = {name: tensor.detach().cpu().clone() for name, tensor in swa.state_dict().items()}
        metrics |= {"epoch": progress.epoch, "val_accuracy": judged.accuracy, "val_loss": judged.loss}
    return Fitted(state, {**metrics, "swa": found}, progress.history)


def _train_views(at: Training, chunk: npt.NDArray[np.int64]) -> torch.Tensor:
    images = torch.from_numpy(np.array(at.data.images[chunk])).to(at.accelerator.device)
    drawn = at.ways.view(at.seed, at.progress.epoch)
    return training_views(images, torch.from_numpy(chunk), at.stage, at.data.preprocess, *drawn)


def _check_steps(stage: Stage, steps: int) -> None:
    if stage.drop_rest and steps < stage.accumulate:
        text = f"{steps} batches an epoch are fewer than the {stage.accumulate} of one update, and the rest is dropped"
        raise OctcError("OCT-E104", text, hint="a smaller --batch, or a recipe that keeps the rest")


def _seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Dropout's draws depend on the step alone, so no generator state has to be saved."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1)))
