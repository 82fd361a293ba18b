"""The training loop: one network, one stage, resumable at any step, on one CPU, one GPU or many (Accelerate, torchrun)."""

from __future__ import annotations

import copy
import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from octc.errors import OctcError, shorten
from octc.files import sha256_file, write_bytes
from octc.image import Preprocess
from octc.train.augment import augment, draw
from octc.train.checkpoint import read_weights
from octc.train.data import EpochBatches, ImageSet, eval_batches
from octc.train.history import write_history
from octc.train.losses import learning_rate
from octc.train.models import normalise
from octc.train.recipes import Stage
from octc.train.state import Progress, load_optimizer, optimizer_tensors, pack, read_state, unpack, write_state

log = logging.getLogger(__name__)
SAVE_SECONDS = 300.0  # the most that a killed process loses, besides the end of every epoch
BAD_STEPS = 3  # gradients that are not finite, in a row

# logits, normalised input, labels -> loss and its parts for the history
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, dict[str, torch.Tensor]]]
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
    optimizer = torch.optim.AdamW(_groups(model, stage.decay), lr=stage.lr)
    sampler = EpochBatches(len(data.labels), stage.batch, seed)
    loader: Any = DataLoader(ImageSet(data.images, data.labels), batch_sampler=sampler)
    net, optim, loader = accelerator.prepare(model.to(memory_format=torch.channels_last), optimizer, loader)
    plain: nn.Module = accelerator.unwrap_model(net)
    ema = copy.deepcopy(plain).requires_grad_(False) if stage.ema else None
    serial, progress = 0, Progress()
    if resume and (found := read_state(folder, None if allow_change else key)):
        serial, progress, tensors, damaged = found
        for text in damaged:
            report({"warning": text})
        _restore(plain, ema, optimizer, tensors)
        tick(progress.epoch * len(loader) + progress.step)
    steps = len(loader)

    def save() -> None:
        nonlocal serial
        serial += 1
        if accelerator.is_main_process:
            parts = {"model": plain.state_dict(), "optim": optimizer_tensors(optimizer)}
            write_state(folder, key, serial, progress, pack({**parts, **({"ema": ema.state_dict()} if ema else {})}))
            _drop_old_best(folder, progress.best_epoch)

    with _deferred_signals() as pending:
        saved = time.monotonic()
        while progress.epoch < stage.epochs and progress.bad < stage.patience:
            started = time.monotonic()
            sampler.epoch = progress.epoch
            batches = accelerator.skip_first_batches(loader, progress.step) if progress.step else loader
            bad = 0
            for images, labels, indices in batches:
                _seed_step(seed, progress.epoch, progress.step, accelerator.process_index)
                _set_rate(optimizer, stage, progress.epoch + (progress.step + 1) / steps)
                net.train()
                uniform = torch.from_numpy(draw(seed, progress.epoch, indices.cpu().numpy()))
                inputs = _input(augment(images, uniform, stage.augment), data.preprocess)
                group = _accumulation(progress.step, steps, stage.accumulate)
                with accelerator.autocast():
                    logits = net(inputs)
                value, parts = loss(logits.float(), inputs, labels)
                accelerator.backward(value / group.size)
                if group.last:
                    norm = float(accelerator.clip_grad_norm_(net.parameters(), stage.clip or float("inf")))
                    bad = 0 if np.isfinite(norm) else bad + 1
                    if bad >= BAD_STEPS:
                        _refuse(progress, [data.names[int(i)] for i in indices if data.names])
                    if bad == 0 or accelerator.scaler is not None:
                        optim.step()
                    optim.zero_grad()
                    if ema is not None:
                        _average(ema, plain, stage.ema, progress.epoch * steps + progress.step)
                _add(progress.sums, {"loss": value, **parts, "acc": (logits.argmax(1) == labels).float().mean()})
                progress.step += 1
                tick(1)
                if pending or (time.monotonic() - saved > SAVE_SECONDS and group.last):
                    if group.last:
                        save()
                        saved = time.monotonic()
                    if pending and group.last:
                        return _leave(pending[0])
            row = _finish_epoch(progress, ema or plain, stage, data, accelerator, folder, steps)
            row["seconds"] = round(time.monotonic() - started, 1)
            save()
            saved = time.monotonic()
            write_history(folder, progress.history)
            report(row)
            if pending:
                return _leave(pending[0])
    best = progress.history[progress.best_epoch]
    state = read_weights(folder / f"best-{progress.best_epoch:04d}.safetensors", best["sha256"])
    metrics = {
        "epoch": progress.best_epoch + 1,
        "epochs": progress.epoch,
        "select": stage.select,
        "val_n": len(data.val_labels),
    }
    return Fitted(state, {**metrics, "val_accuracy": best["val_acc"], "val_loss": best["val_loss"]}, progress.history)


@dataclass(frozen=True)
class _Group:
    size: int  # micro-batches that share this update; the last group of an epoch may be smaller
    last: bool


def _accumulation(step: int, steps: int, accumulate: int) -> _Group:
    first = step - step % accumulate
    size = min(accumulate, steps - first)
    return _Group(size, step == first + size - 1)


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": decay},
        {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Dropout's draws depend on the step alone, so no generator state has to be saved."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def _set_rate(optimizer: torch.optim.Optimizer, stage: Stage, done: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = stage.lr * learning_rate(done, stage.epochs, stage.warmup, stage.floor)


@torch.no_grad()
def _average(ema: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights and buffers, with the usual warm-up of the decay."""
    rate = 1 - min(decay, (1 + step) / (10 + step))
    for kept, live in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(live, rate)
        else:
            kept.copy_(live)


def _add(sums: dict[str, float], values: dict[str, torch.Tensor]) -> None:
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + float(value.detach())


def _finish_epoch(
    progress: Progress, model: nn.Module, stage: Stage, data: Data, accelerator: Accelerator, folder: Path, steps: int
) -> dict[str, Any]:
    """Evaluate on val, keep the weights if they are the best, advance to the next epoch."""
    logits = logits_of(model, data.val_images, data.preprocess, accelerator.device)
    labels = torch.tensor(list(data.val_labels))
    nll = float(functional.cross_entropy(logits, labels))
    trained = float(functional.cross_entropy(logits, labels, label_smoothing=stage.smoothing))  # smoothed as in training: the
    accuracy = float((logits.argmax(1) == labels).double().mean())  # plain loss would punish the confidence that it asks for
    criterion = trained if stage.select == "loss" else (1 - accuracy) + 1e-6 * min(nll, 100.0)
    means = {f"train_{name}": total / steps for name, total in progress.sums.items()}
    row: dict[str, Any] = {"epoch": progress.epoch + 1, **means, "val_loss": nll, "val_acc": accuracy}
    row["lr"] = stage.lr * learning_rate(progress.epoch + 1, stage.epochs, stage.warmup, stage.floor)
    progress.bad += 1
    if np.isfinite(criterion) and criterion < progress.best:
        path = folder / f"best-{progress.epoch:04d}.safetensors"
        if accelerator.is_main_process:
            from safetensors.torch import save

            write_bytes(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}))
        accelerator.wait_for_everyone()
        row["sha256"] = sha256_file(path)
        progress.best, progress.best_epoch, progress.bad = criterion, progress.epoch, 0
    progress.history.append(row)
    progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
    return dict(row)


def _drop_old_best(folder: Path, keep: int) -> None:
    for path in folder.glob("best-*.safetensors"):
        if path.name != f"best-{keep:04d}.safetensors":
            path.unlink(missing_ok=True)


def _restore(
    model: nn.Module, ema: nn.Module | None, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> None:
    model.load_state_dict(unpack(tensors, "model"))
    if ema is not None:
        ema.load_state_dict(unpack(tensors, "ema"))
    load_optimizer(optimizer, unpack(tensors, "optim"))


def _refuse(progress: Progress, names: list[str]) -> None:
    text = f"gradients not finite in {BAD_STEPS} steps in a row (epoch {progress.epoch + 1}, step {progress.step + 1})"
    mend = "lower --lr (config train.lr); --resume continues from the last good state"
    raise OctcError("OCT-E301", text, mend=mend, place=shorten(names), why="the files of the last batch are named")


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM let the step finish and the state be saved; a second one acts at once."""
    pending: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _frame: Any) -> None:
        pending.append(number)
        for other, handler in before.items():
            signal.signal(other, handler)

    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in numbers:
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: the caller's handlers stay
        before.clear()
    try:
        yield pending
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)


def _leave(number: int) -> Fitted:
    """State is saved: hand the signal to whoever handled it before."""
    signal.raise_signal(number)
    raise KeyboardInterrupt
