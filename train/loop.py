"""The training loop: one network, one stage, resumable at any step, on one CPU, one GPU or many (Accelerate, torchrun)."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from octc.errors import OctcError, shorten
from octc.image import Preprocess
from octc.train.augment import augment, draw
from octc.train.averaging import average_epochs, average_steps, refresh_norms
from octc.train.checkpoint import read_weights
from octc.train.config import Stage
from octc.train.data import EpochBatches, ImageSet, eval_batches
from octc.train.epoch import Judgement, drop_old_best, finish_epoch, goes_on, judge
from octc.train.focal import Loss
from octc.train.history import write_history
from octc.train.mix import draw_mixing, mix_images, mix_targets
from octc.train.models import normalise
from octc.train.optim import accumulation, backbone_of, drop_gradients, hold, parameter_groups, set_rates
from octc.train.signals import deferred_signals, leave
from octc.train.state import Progress, load_optimizer, optimizer_tensors, pack, read_state, unpack, write_state
from octc.train.views import picture_views

log = logging.getLogger(__name__)
SAVE_SECONDS = 300.0  # the most that a killed process loses, besides the end of every epoch
BAD_STEPS = 3  # gradients that are not finite, in a row

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Data:
    """Prepared images uint8 [N, channels, size, size] and labels of train and val; names are for error messages."""

    images: npt.NDArray[np.uint8]
    labels: Sequence[int]
    val_images: npt.NDArray[np.uint8]
    val_labels: Sequence[int]
    preprocess: Preprocess
    names: Sequence[str] = field(default_factory=list)


@dataclass(frozen=True)
class Fitted:
    """The kept weights, the epoch they are of, its metrics on val, and whether the whole was resumed."""

    state: dict[str, torch.Tensor]
    metrics: dict[str, Any]
    history: list[dict[str, Any]]


def make_accelerator(device: str = "auto", precision: str = "auto") -> Accelerator:
    """The device and precision of this process: bf16 or fp16 on a GPU, fp32 on a CPU (where bf16 is slower)."""
    if device not in ("auto", "cpu"):
        if not torch.cuda.is_available():
            raise OctcError("OCT-E903", f"device {device} is not available", mend="--device cpu")
        torch.cuda.set_device(torch.device(device))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    gpu_precision = "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "fp16"
    chosen = (gpu_precision if on_gpu else "no") if precision == "auto" else {"fp32": "no"}.get(precision, precision)
    return Accelerator(cpu=device == "cpu", mixed_precision=chosen)


@torch.inference_mode()
def logits_of(model: nn.Module, images: npt.NDArray[np.uint8], pre: Preprocess, device: Any, batch: int = 64) -> torch.Tensor:
    """Logits float32 [N, K] of prepared images, in eval mode."""
    model.eval()
    rows = [model(_input(chunk.to(device), pre)).float().cpu() for chunk in eval_batches(images, batch)]
    return torch.cat(rows)


def _input(images: torch.Tensor, pre: Preprocess) -> torch.Tensor:
    return normalise(images, pre).contiguous(memory_format=torch.channels_last)


def fit(
    model: nn.Module, stage: Stage, data: Data, loss: Loss, *, folder: Path, key: str, seed: int, accelerator: Accelerator,
    resume: bool, tick: Callable[[int], None], report: Report, allow_change: bool = False,
) -> Fitted:  # fmt: skip
    """Train, keep the best epoch by `stage.select`, save the state as it goes.

    Args:
        folder: where the state lies; key: digest of everything that decides the result (a resume must have the same).
        allow_change: resume a state whatever its key is.
        tick: called with 1 after every step; report: called with a row after every epoch.

    Raises:
        OctcError: E301 gradients not finite several times in a row, E110 the state to resume is another training's.
    """
    optimizer = torch.optim.AdamW(parameter_groups(model, stage), lr=stage.lr)
    backbone = backbone_of(optimizer)
    sampler = EpochBatches(len(data.labels), stage.batch, seed)
    loader: Any = DataLoader(ImageSet(data.images, data.labels), batch_sampler=sampler)
    net, optim, loader = accelerator.prepare(model.to(memory_format=torch.channels_last), optimizer, loader)
    plain: nn.Module = accelerator.unwrap_model(net)
    averages = {"ema": stage.ema > 0, "swa": stage.swa.start > 0}
    copies = {name: copy.deepcopy(plain).requires_grad_(False) for name, on in averages.items() if on}
    serial, progress = 0, Progress()
    if resume and (found := read_state(folder, None if allow_change else key)):
        serial, progress, tensors, damaged = found
        for text in damaged:
            report({"warning": text})
        _restore(plain, copies, optimizer, tensors)
        tick(progress.epoch * len(loader) + progress.step)
    steps = len(loader)
    _check_steps(stage, steps)
    alone, rank = accelerator.num_processes == 1, accelerator.process_index

    def save() -> None:
        nonlocal serial
        serial += 1
        if accelerator.is_main_process:
            parts = {"model": plain.state_dict(), "optim": optimizer_tensors(optimizer)}
            write_state(folder, key, serial, progress, pack({**parts, **{k: m.state_dict() for k, m in copies.items()}}))
            drop_old_best(folder, progress.best_epoch)

    with deferred_signals() as pending:
        saved = time.monotonic()
        while goes_on(progress, stage):
            started = time.monotonic()
            sampler.epoch = progress.epoch
            batches = accelerator.skip_first_batches(loader, progress.step) if progress.step else loader
            bad, frozen = 0, progress.epoch < stage.freeze
            hold(backbone, frozen and alone)
            if stage.restart and progress.epoch == stage.freeze and progress.step == 0:
                optimizer.state.clear()
                progress.bad = 0
            optim.zero_grad()
            losses = [float(row["val_loss"]) for row in progress.history]
            for images, labels, indices in batches:
                _seed_step(seed, progress.epoch, progress.step, rank)
                set_rates(optimizer, stage, progress.epoch, progress.step, steps, losses)
                net.train()
                inputs = _views(images, indices, stage, data.preprocess, seed, progress.epoch)
                mixing = draw_mixing(stage.mix, (seed, progress.epoch, progress.step, rank), len(images), stage.size)
                inputs = mix_images(inputs, mixing)
                group = accumulation(progress.step, steps, stage.accumulate, stage.drop_rest)
                with accelerator.autocast():
                    logits = net(inputs)
                value, parts = loss(logits.float(), inputs, mix_targets(labels, mixing, logits.shape[1]))
                accelerator.backward(value / group.size)
                if group.last:
                    if frozen and not alone:
                        drop_gradients(backbone)
                    norm = float(accelerator.clip_grad_norm_(net.parameters(), stage.clip or float("inf")))
                    bad = 0 if np.isfinite(norm) else bad + 1
                    if bad >= BAD_STEPS:
                        _refuse(progress, [data.names[int(i)] for i in indices if data.names])
                    if bad == 0 or accelerator.scaler is not None:
                        optim.step()
                    optim.zero_grad()
                    if "ema" in copies:
                        done = progress.epoch * steps + progress.step
                        average_steps(copies["ema"], plain, stage.ema, done, warmup=stage.ema_warmup)
                _add(progress.sums, {"loss": value, **parts, "acc": (logits.argmax(1) == labels).float().mean()})
                progress.step += 1
                tick(1)
                if pending or (time.monotonic() - saved > SAVE_SECONDS and group.last):
                    if group.last:
                        save()
                        saved = time.monotonic()
                    if pending and group.last:
                        return leave(pending[0])
            if "swa" in copies and progress.epoch >= stage.swa.start:
                average_epochs(copies["swa"], plain, progress.averaged)
                progress.averaged += 1
            judged = _judge(copies.get("ema", plain), stage, data, accelerator)
            row = finish_epoch(progress, copies.get("ema", plain), judged, stage, accelerator, folder, steps)
            row["seconds"] = round(time.monotonic() - started, 1)
            save()
            saved = time.monotonic()
            write_history(folder, progress.history)
            report(row)
            if pending:
                return leave(pending[0])
    hold(backbone, False)
    return _kept(progress, stage, data, copies.get("swa"), accelerator, folder, seed)


def _kept(
    progress: Progress, stage: Stage, data: Data, swa: nn.Module | None, accelerator: Accelerator, folder: Path, seed: int
) -> Fitted:
    """The best epoch, or the average of the last ones where that is better on val. Repeats itself on a finished state."""
    best = progress.history[progress.best_epoch]
    state = read_weights(folder / f"best-{progress.best_epoch:04d}.safetensors", best["sha256"])
    metrics = {
        "epoch": progress.best_epoch + 1,
        "epochs": progress.epoch,
        "select": stage.select,
        "val_n": len(data.val_labels),
        "val_accuracy": best["val_acc"],
        "val_loss": best["val_loss"],
    }
    if swa is None or not stage.swa.judged or not progress.averaged:
        return Fitted(state, metrics, progress.history)
    chunks = (np.arange(i, min(i + stage.batch, len(data.labels))) for i in range(0, len(data.labels), stage.batch))
    device = accelerator.device
    refresh_norms(swa, (_train_views(data, chunk, stage, seed, progress.epoch, device) for chunk in chunks))
    judged = _judge(swa, stage, data, accelerator)
    better = judged.criterion < progress.best
    found = {"epochs": progress.averaged, "val_accuracy": judged.accuracy, "val_loss": judged.loss, "kept": better}
    if better:
        state = {name: tensor.detach().cpu().clone() for name, tensor in swa.state_dict().items()}
        metrics |= {"epoch": progress.epoch, "val_accuracy": judged.accuracy, "val_loss": judged.loss}
    return Fitted(state, {**metrics, "swa": found}, progress.history)


def _judge(model: nn.Module, stage: Stage, data: Data, accelerator: Accelerator) -> Judgement:
    logits = logits_of(model, data.val_images, data.preprocess, accelerator.device)
    return judge(stage, logits, data.val_labels, data.labels)


def _views(images: torch.Tensor, indices: torch.Tensor, stage: Stage, pre: Preprocess, seed: int, epoch: int) -> torch.Tensor:
    """Augmented, normalised input [N, 3, size, size] of training images uint8 [N, C, side, side] with these indices."""
    if stage.views:
        return _input(picture_views(images, indices, stage, seed, epoch), pre)
    uniform = torch.from_numpy(draw(seed, epoch, indices.cpu().numpy()))
    return _input(augment(images, uniform, stage.augment), pre)


def _train_views(
    data: Data, chunk: npt.NDArray[np.int64], stage: Stage, seed: int, epoch: int, device: torch.device
) -> torch.Tensor:
    images = torch.from_numpy(np.array(data.images[chunk])).to(device)
    return _views(images, torch.from_numpy(chunk), stage, data.preprocess, seed, epoch)


def _check_steps(stage: Stage, steps: int) -> None:
    if stage.drop_rest and steps < stage.accumulate:
        text = f"{steps} batches an epoch are fewer than the {stage.accumulate} of one update, and the rest is dropped"
        raise OctcError("OCT-E104", text, mend="a smaller --batch, or a recipe that keeps the rest")


def _seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Dropout's draws depend on the step alone, so no generator state has to be saved."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def _add(sums: dict[str, float], values: dict[str, torch.Tensor]) -> None:
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + float(value.detach())


def _restore(
    model: nn.Module, copies: dict[str, nn.Module], optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> None:
    model.load_state_dict(unpack(tensors, "model"))
    for name, average in copies.items():
        average.load_state_dict(unpack(tensors, name))
    load_optimizer(optimizer, unpack(tensors, "optim"))


def _refuse(progress: Progress, names: list[str]) -> None:
    text = f"gradients not finite in {BAD_STEPS} steps in a row (epoch {progress.epoch + 1}, step {progress.step + 1})"
    mend = "lower --lr (config train.lr); --resume continues from the last good state"
    raise OctcError("OCT-E301", text, mend=mend, place=shorten(names), why="the files of the last batch are named")
