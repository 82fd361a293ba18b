"""The end of an epoch: what it is judged by, which weights are kept, its row of the history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional

from octc.core.files import sha256_file, write_bytes
from octc.stats.metrics import confusion_matrix, metrics_of
from octc.train.loop.checkpoint import tensors_as_bytes
from octc.train.loop.label_losses import class_weights, objective
from octc.train.loop.optim import rate
from octc.train.loop.state import Progress
from octc.train.recipes.config import Stage

CRITERION = "val_criterion"  # in the row of an epoch, where it is not the loss


@dataclass(frozen=True)
class Judgement:
    """val of one set of weights; `criterion` decides, lower is better. more: other figures for the row of the epoch."""

    loss: float
    accuracy: float
    criterion: float
    more: dict[str, float] = field(default_factory=dict)


def judge(stage: Stage, logits: torch.Tensor, labels: Sequence[int], train_labels: Sequence[int]) -> Judgement:
    """Judge logits [N, K] of val by `stage.select`. Nearly equal accuracies or recalls are told apart by the loss.

    "loss" is smoothed as in training: the plain loss would punish the confidence that it asks for.
    """
    targets = torch.tensor(list(labels))
    nll = float(functional.cross_entropy(logits, targets))
    accuracy = float((logits.argmax(1) == targets).double().mean())
    measures: dict[str, Callable[[], float]] = {
        "loss": lambda: float(functional.cross_entropy(logits, targets, label_smoothing=stage.smoothing)),
        "accuracy": lambda: (1 - accuracy) + 1e-6 * min(nll, 100.0),
        "recall": lambda: (1 - _recall(logits, labels, accuracy)) + 1e-6 * min(nll, 100.0),
        "objective": lambda: _objective(stage, logits, targets, train_labels, len(targets)),
        "batches": lambda: _objective(stage, logits, targets, train_labels, stage.batch),
    }
    return Judgement(nll, accuracy, measures[stage.select]())


def _recall(logits: torch.Tensor, labels: Sequence[int], accuracy: float) -> float:
    matrix = confusion_matrix(list(labels), logits.argmax(1).numpy(), logits.shape[1])
    recall = metrics_of(matrix).macro_sensitivity
    return accuracy if recall is None else recall  # of one class alone both are the same


def _objective(stage: Stage, logits: torch.Tensor, targets: torch.Tensor, train: Sequence[int], batch: int) -> float:
    """The training loss without smoothing, as the mean over batches."""
    weights = class_weights(stage.objective.weights, train, logits.shape[1])
    pairs = zip(logits.split(batch), targets.split(batch), strict=True)
    values = [float(objective(stage.objective, z, y, weights, 0.0)) for z, y in pairs]
    return sum(values) / len(values)


def finish_epoch(
    progress: Progress, model: nn.Module, judged: Judgement, stage: Stage, accelerator: Accelerator, folder: Path, steps: int
) -> dict[str, Any]:
    """Keep the weights if they are the best, write the row, advance to the next epoch. The loss of the row is that on val."""
    counted = progress.sums.pop("steps")  # those whose loss was finite
    means = {f"train_{name}": total / counted for name, total in progress.sums.items()}
    row: dict[str, Any] = {"epoch": progress.epoch + 1, **means, "val_loss": judged.loss, "val_acc": judged.accuracy}
    row |= judged.more
    row["lr"] = rate(stage, "head", progress.epoch + 1, -1, steps, criteria([*progress.history, row]))  # after this epoch
    progress.bad += 1
    if np.isfinite(judged.criterion) and judged.criterion < progress.best:
        path = best_path(folder, progress.epoch)
        if accelerator.is_main_process:
            write_bytes(path, tensors_as_bytes(model.state_dict()))
        accelerator.wait_for_everyone()
        row["sha256"] = sha256_file(path)
        progress.best, progress.best_epoch, progress.bad = judged.criterion, progress.epoch, 0
    progress.history.append(row)
    progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
    return dict(row)


def criteria(history: Sequence[dict[str, Any]]) -> list[float]:
    """What a schedule that waits for better epochs looks at, one value an epoch, lower is better: the loss on val."""
    return [float(row.get(CRITERION, row["val_loss"])) for row in history]


def goes_on(progress: Progress, stage: Stage) -> bool:
    """Epochs are left, and patience too; a stage that restarts does not stop early before its second part has begun."""
    early = progress.bad >= stage.patience and not (stage.restart and progress.epoch <= stage.freeze)
    return progress.epoch < stage.epochs and not early


def best_path(folder: Path, epoch: int) -> Path:
    """Where the weights of an epoch lie that was the best so far."""
    return folder / f"best-{epoch:04d}.safetensors"


def drop_old_best(folder: Path, *keep: int) -> None:
    """Remove the weights of other epochs than these."""
    for path in set(folder.glob("best-*.safetensors")) - {best_path(folder, epoch) for epoch in keep}:
        path.unlink(missing_ok=True)
