"""The training loop: one network, one stage, resumable at any step, on one CPU, one GPU or many (Accelerate, torchrun)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
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
from octc.train.loop.training import Data, Fitted, Report, Training, add_values, check_home, go_on, refuse, save_state, update
from octc.train.loop.ways import Batch, Ways, plain_ways
from octc.train.networks.in_place import without_copies
from octc.train.recipes.config import Stage

SAVE_SECONDS = 300.0  # the most that a killed process loses, besides the end of every epoch


@dataclass(frozen=True)
class FitOptions:
    """Where a training keeps its state, what decides its result, and who listens.

    Attributes:
        folder: where the state lies; facts: everything that decides the result (a resume must have the same).
        tick: called with 1 after every step; report: called with a row after every epoch.
        allow_change: resume a state whatever its facts are.
        exact: compute in float32 even where the accelerator has a shorter type (fake quantisation needs its grid whole).
    """

    folder: Path
    facts: Mapping[str, Any]
    seed: int
    accelerator: Accelerator
    tick: Callable[[int], None]
    report: Report
    resume: bool = False
    allow_change: bool = False
    exact: bool = False


@dataclass
class _Loop:
    """A training with what its steps go through. written: when its state was saved last."""

    at: Training
    options: FitOptions
    sampler: EpochBatches
    loader: Any
    optimizer: Any
    backbone: list[nn.Parameter]
    signals: Deferred
    written: float

    @property
    def steps(self) -> int:
        return len(self.loader)

    def save(self) -> None:
        save_state(self.at)
        self.written = time.monotonic()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, float32, of the network that is trained."""
        with nullcontext() if self.options.exact else self.options.accelerator.autocast():
            logits: torch.Tensor = self.at.net(x)
        return logits.float()


def fit(model: nn.Module, stage: Stage, data: Data, loss: Loss | Ways, options: FitOptions) -> Fitted:
    """Train, keep the best epoch by `stage.select`, save the state as it goes.

    Args:
        loss: on labels, or all that a training does in its own way (`Ways`).

    Raises:
        OctcError: E301 gradients or validation not finite, E110 / E501 the state cannot be resumed, E104 fewer images than
            processes, E302 the GPU is too small, E305 another process is lost.
    """
    ways = loss if isinstance(loss, Ways) else plain_ways(loss)
    accelerator, seed = options.accelerator, options.seed
    optimizer = ways.optimizer(model, stage)
    backbone = backbone_of(optimizer)
    sampler = EpochBatches(len(data.labels), stage.batch, seed, accelerator.num_processes)
    loader: Any = DataLoader(
        ImageSet(data.images, data.labels), batch_sampler=sampler, pin_memory=accelerator.device.type == "cuda"
    )
    net, optim, loader = accelerator.prepare(without_copies(model).to(memory_format=torch.channels_last), optimizer, loader)
    # without Accelerate's own autocast around `forward`: validation, and `exact` training, compute in float32
    plain: nn.Module = accelerator.unwrap_model(net, keep_fp32_wrapper=False)
    averages = {"ema": stage.ema > 0, "swa": stage.swa.start > 0}
    copies = {name: copy.deepcopy(plain).requires_grad_(False) for name, on in averages.items() if on}
    at = Training(net, plain, copies, optimizer, stage, data, options.folder, options.facts, seed, accelerator, ways)
    _check_steps(stage, len(loader))
    if options.resume:
        go_on(at, len(loader), options.allow_change, options.tick, options.report)
    with deferred_signals() as signals, named_failures(accelerator, stage.batch):
        loop = _Loop(at, options, sampler, loader, optim, backbone, signals, time.monotonic())
        while goes_on(at.progress, stage):
            _train_epoch(loop)
    hold(backbone, False)
    fitted = _kept(at)
    accelerator.free_memory()
    return fitted


def _train_epoch(loop: _Loop) -> None:
    """The steps of an epoch that are left, its judgement, its state."""
    at, options = loop.at, loop.options
    progress, stage, accelerator = at.progress, at.stage, options.accelerator
    started = time.monotonic()
    loop.sampler.epoch = progress.epoch
    batches = accelerator.skip_first_batches(loop.loader, progress.step) if progress.step else loop.loader
    hold(loop.backbone, progress.epoch < stage.freeze and accelerator.num_processes == 1)
    if stage.restart and progress.epoch == stage.freeze and progress.step == 0:
        at.optimizer.state.clear()
        progress.bad = 0
    loop.optimizer.zero_grad()
    losses = criteria(progress.history)
    for batch in batches:
        last = _train_step(loop, batch, losses)
        options.tick(1)
        if last:
            _save_or_leave(loop)
    row = _end_of_epoch(at, loop.steps, loop.signals)
    row["seconds"] = round(time.monotonic() - started, 1)
    loop.save()
    if accelerator.is_main_process:
        write_history(at.folder, progress.history)
        write_events(at.folder / "tensorboard", progress.history)
    options.report(row)
    if stop := agreed(accelerator, loop.signals.number):
        loop.signals.leave(stop)


def _train_step(loop: _Loop, batch: tuple[torch.Tensor, ...], losses: Sequence[float]) -> bool:
    """One micro-batch; whether it was the last of an update."""
    at, accelerator, steps = loop.at, loop.options.accelerator, loop.steps
    progress, stage, seed, rank = at.progress, at.stage, at.seed, accelerator.process_index
    images, labels, indices = batch
    _seed_step(seed, progress.epoch, progress.step, rank)
    set_rates(at.optimizer, stage, progress.epoch, progress.step, steps, losses)
    at.net.train()
    inputs = training_views(images, indices, stage, at.data.preprocess, *at.ways.view(seed, progress.epoch))
    mixing = draw_mixing(stage.mix, (seed, progress.epoch, progress.step, rank), len(images), stage.size)
    inputs = mix_images(inputs, mixing)
    group = accumulation(progress.step, steps, stage.accumulate, stage.drop_rest)
    value, parts = at.ways.step(loop.forward, Batch(inputs, labels, mixing, indices.tolist(), progress.epoch))
    accelerator.backward(value / group.size)
    at.suspects += indices.tolist()
    if group.last:
        if progress.epoch < stage.freeze and accelerator.num_processes > 1:
            drop_gradients(loop.backbone)
        update(at, loop.optimizer, steps)
    add_values(progress.sums, {"loss": value, **parts})
    progress.step += 1
    return group.last


def _save_or_leave(loop: _Loop) -> None:
    """After an update: save where it is due or a signal came, and leave where one did."""
    stop = agreed(loop.options.accelerator, loop.signals.number)
    if stop or time.monotonic() - loop.written > SAVE_SECONDS:
        loop.save()
    if stop:
        loop.signals.leave(stop)


def _end_of_epoch(at: Training, steps: int, signals: Deferred) -> dict[str, Any]:
    """Judge the weights on val, keep them if they are the best, advance to the next epoch."""
    check_home(at)
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
    if not np.isfinite(judged.loss):
        refuse(at, "validation loss not finite")
    return finish_epoch(progress, at.judged, judged, stage, at.accelerator, at.folder, steps)


def _kept(at: Training) -> Fitted:
    """The best epoch, or the average of the last ones where that is better on val. Repeats itself on a finished state."""
    progress, stage, data = at.progress, at.stage, at.data
    if progress.best_epoch < 0:
        refuse(at, f"the criterion ({stage.select}) is not finite in any epoch")
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
