"""One training: its data, its objects, where it stands; its update of the weights, its state on disk, its refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import nn

from octc.core.errors import OctcError, shorten
from octc.core.files import write_bytes
from octc.imaging.preprocess import Preprocess
from octc.train.loop.averaging import average_steps
from octc.train.loop.checkpoint import load_strictly
from octc.train.loop.epoch import drop_old_best
from octc.train.loop.optim import load_scaler, scaler_tensors, updates_before
from octc.train.loop.state import Progress, load_optimizer, optimizer_tensors, pack, read_state, unpack, write_state
from octc.train.loop.ways import Ways
from octc.train.recipes.config import Stage

BAD_UPDATES = 3  # gradients that are not finite, in a row
BAD_SCALED = 20  # the same with fp16, whose loss scale starts at 2^16 and is halved by each of them

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Data:
    """Prepared images uint8 [N, channels, size, size] and labels of train and val; names are for error messages.

    A label is an index, or (several labels an image, octc.train.crossmodal.stages) a float32 tensor [K] of zeros and ones.
    """

    images: npt.NDArray[np.uint8]
    labels: Sequence[Any]
    val_images: npt.NDArray[np.uint8]
    val_labels: Sequence[Any]
    preprocess: Preprocess
    names: Sequence[str] = field(default_factory=list)


@dataclass(frozen=True)
class Fitted:
    """The kept weights, the epoch they are of with its metrics on val, and a row for every epoch."""

    state: dict[str, torch.Tensor]
    metrics: dict[str, Any]
    history: list[dict[str, Any]]


@dataclass
class Training:
    """One training: its objects, and where it stands."""

    net: Any  # what computes gradients: the network, wrapped where there are several processes
    plain: nn.Module
    copies: dict[str, nn.Module]  # averages of the weights: "ema", "swa"
    optimizer: torch.optim.Optimizer
    stage: Stage
    data: Data
    folder: Path
    facts: Mapping[str, Any]
    seed: int
    accelerator: Accelerator
    ways: Ways
    progress: Progress = field(default_factory=Progress)
    serial: int = 0
    kept_before: int = -1  # best epoch of the state before this one
    bad: int = 0  # updates that were not finite, in a row
    suspects: list[int] = field(default_factory=list)  # images since the last finite update
    home: tuple[int, int] | None = None  # device and inode of the folder, once a state was written

    @property
    def judged(self) -> nn.Module:
        return self.copies.get("ema", self.plain)


def go_on(at: Training, steps: int, allow_change: bool, tick: Callable[[int], None], report: Report) -> None:
    """Go on from the state in the folder, if one was written."""
    saved = read_state(at.folder, at.facts, allow_change)
    if saved is None:
        return
    for text in saved.warnings:
        report({"warning": text})
    load_strictly(at.plain, unpack(saved.tensors, "model"), str(at.folder))
    for name, average in at.copies.items():
        load_strictly(average, unpack(saved.tensors, name) or unpack(saved.tensors, "model"), str(at.folder))
    load_optimizer(at.optimizer, unpack(saved.tensors, "optim"))
    load_scaler(at.accelerator.scaler, unpack(saved.tensors, "scaler"))
    at.serial, at.progress, at.kept_before = saved.serial, saved.progress, saved.progress.best_epoch
    tick(at.progress.epoch * steps + at.progress.step)


def check_home(at: Training) -> None:
    """Refuse to go on where the folder that states were written to has been removed: what is written next would make a part of
    it anew, and no run (E107)."""
    try:
        found = at.folder.stat()
        now = (found.st_dev, found.st_ino)
    except FileNotFoundError:
        now = None
    if at.home is not None and now != at.home:
        text = f"{at.folder} was removed while the training wrote to it"
        raise OctcError("OCT-E107", text, hint="begin the training anew", place=str(at.folder))


def save_state(at: Training) -> None:
    """Write the state, then drop the best weights that neither this state nor the one before refers to.

    Raises:
        OctcError: E107 the folder was removed since the state before.
    """
    at.serial += 1
    if at.accelerator.is_main_process:
        check_home(at)
        parts = {"model": at.plain.state_dict(), "optim": optimizer_tensors(at.optimizer)}
        parts |= {"scaler": scaler_tensors(at.accelerator.scaler), **{k: m.state_dict() for k, m in at.copies.items()}}
        write_state(at.folder, at.facts, at.serial, at.progress, pack(parts))
        drop_old_best(at.folder, at.progress.best_epoch, at.kept_before)
        made = at.folder.stat()
        at.home = (made.st_dev, made.st_ino)
    at.kept_before = at.progress.best_epoch


def update(at: Training, optim: Any, steps: int) -> None:
    """One step of the optimiser, or none where the gradient is not finite (E301 after several of them in a row)."""
    scaler, stage = at.accelerator.scaler, at.stage
    norm = float(at.accelerator.clip_grad_norm_(at.net.parameters(), stage.clip or float("inf")))
    finite = bool(np.isfinite(norm))
    at.bad = 0 if finite else at.bad + 1
    if at.bad >= (BAD_UPDATES if scaler is None else BAD_SCALED):
        refuse(at, f"gradients not finite in {at.bad} updates in a row")
    if finite or scaler is not None:  # the scaler skips the step itself, and needs to see it to halve the scale
        optim.step()
    optim.zero_grad()
    if finite:
        at.suspects.clear()
        if "ema" in at.copies:
            done = updates_before(at.progress.epoch, at.progress.step, steps, stage.accumulate)
            average_steps(at.copies["ema"], at.plain, stage.ema, done, warmup=stage.ema_warmup)


def add_values(sums: dict[str, float], values: dict[str, torch.Tensor]) -> None:
    """Add one step's values (of this process); a step that was not finite is not counted."""
    numbers = {name: float(value.detach()) for name, value in values.items()}
    if all(np.isfinite(list(numbers.values()))):
        for name, value in {**numbers, "steps": 1.0}.items():
            sums[name] = sums.get(name, 0.0) + value


def refuse(at: Training, what: str) -> NoReturn:
    """E301, with the files since the last good update in the message and, all of them, in not-finite.txt."""
    names = list(dict.fromkeys(at.data.names[i] for i in at.suspects if at.data.names))
    path = at.folder / "not-finite.txt"
    if names and at.accelerator.is_main_process:
        write_bytes(path, "".join(f"{name}\n" for name in names).encode(errors="surrogatepass"))
    text = f"{what} (epoch {at.progress.epoch + 1}, step {at.progress.step + 1})"
    hint = "lower train.lr in octc.toml, then --resume --allow-change goes on from the last good state"
    why = f"the images since the last good update are named; all of them: {path}" if names else None
    raise OctcError("OCT-E301", text, hint=hint, place=shorten(names, more=path.name) or str(at.folder), why=why)
