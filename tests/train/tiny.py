"""A training of seconds on arrays made here, in this process or as one of its own: python -m tests.train.tiny FOLDER JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from octc.imaging.preprocess import Preprocess
from octc.train.loop.fit import FitOptions, fit
from octc.train.loop.label_losses import label_loss
from octc.train.loop.processes import make_accelerator
from octc.train.loop.training import Data, Fitted
from octc.train.networks.models import build_model
from octc.train.recipes.config import Augment, Objective, Stage

SIZE, CLASSES = 32, 3
PRE = Preprocess(SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
VIEWS = Augment(rotate=5, shear=3, translate=0.05, scale=0.1, hflip=0.5, brightness=0.2, contrast=0.2, gamma=0.1, noise=0.1,
                blur=0.3, erase=0.3, border=0.3)  # fmt: skip
STAGE = Stage(
    model="test_efficientnet", weights="none", size=SIZE, epochs=3, lr=3e-3, batch=8, ema=0.9, mean=PRE.mean, std=PRE.std,
    augment=VIEWS, model_kwargs={"drop_rate": 0.2},
)  # fmt: skip


def make_data(count: int = 40, val: int = 12) -> Data:
    """Classes are levels of grey under noise."""
    rng = np.random.default_rng(3)
    labels = [i % CLASSES for i in range(count + val)]
    levels = np.array([60, 120, 180])[labels]
    images = np.clip(rng.normal(levels[:, None, None, None], 25, (count + val, 1, SIZE, SIZE)), 0, 255).astype(np.uint8)
    names = [f"CLASS/{i:03d}.png" for i in range(count)]
    return Data(images[:count], labels[:count], images[count:], labels[count:], PRE, names)


def facts(stage: Stage) -> dict[str, Any]:
    return {"stage.lr": stage.lr, "stage.batch": stage.batch, "seed": 7}


def train(  # noqa: PLR0913 - what a test may change
    folder: Path, *, resume: bool = False, tick: Callable[[int], None] = lambda _: None, data: Data | None = None,
    report: Callable[[dict[str, Any]], None] = lambda _: None, allow_change: bool = False, precision: str = "auto",
    device: str = "cpu", loss: Any = None,
    **fields: Any,
) -> Fitted:  # fmt: skip
    """The tiny stage with these fields changed."""
    stage = replace(STAGE, **fields)
    accelerator = make_accelerator(device, precision)
    torch.manual_seed(7)
    model = build_model(stage.model, CLASSES, **stage.model_kwargs)
    return fit(
        model, stage, data or make_data(), loss or label_loss(Objective(), 0.05, [], CLASSES),
        FitOptions(folder, facts(stage), 7, accelerator, tick, report, resume=resume, allow_change=allow_change),
    )  # fmt: skip


def _main(folder: Path, options: dict[str, Any]) -> None:
    """Options: resume, fields of the stage, and "die": [step, rank] - the process kills itself with SIGKILL after it."""
    die_step, die_rank = options.pop("die", (None, 0))
    steps = 0

    def tick(count: int) -> None:
        nonlocal steps
        steps += count
        if steps == die_step and int(os.environ.get("RANK", "0")) == die_rank:
            os.kill(os.getpid(), signal.SIGKILL)

    fitted = train(folder, tick=tick, device="auto", **options)
    if os.environ.get("RANK", "0") == "0":
        torch.save(fitted.state, folder / "result.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    _main(Path(sys.argv[1]), json.loads(sys.argv[2]))
