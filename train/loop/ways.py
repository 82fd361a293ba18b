"""What a training does in its own way: its optimiser, its step, and how it judges an epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from octc.train.batches.mix import Mixing, mix_targets
from octc.train.loop.epoch import Judgement, judge
from octc.train.loop.label_losses import Loss
from octc.train.loop.optim import parameter_groups
from octc.train.recipes.config import Stage

Tensor = torch.Tensor
Forward = Callable[[Tensor], Tensor]  # normalised input -> float32 logits of the network that is trained, with gradients


@dataclass(frozen=True)
class Batch:
    """What a step is given: augmented and mixed input [N, 3, H, W], labels as the data hold them, which images, which epoch."""

    inputs: Tensor
    labels: Tensor
    mixing: Mixing | None
    indices: list[int]
    epoch: int


def own_view(seed: int, epoch: int) -> tuple[int, int]:
    """A new view of every image in every epoch."""
    return seed, epoch


@dataclass(frozen=True)
class Ways:
    """optimizer: of a model. step: the loss of a batch, and the values that are written down with it. judge: val logits.

    view: (seed of the training, epoch) -> the seed and the number that the epoch's augmentation is drawn from.
    """

    optimizer: Callable[[nn.Module, Stage], torch.optim.Optimizer]
    step: Callable[[Forward, Batch], tuple[Tensor, dict[str, Tensor]]]
    judge: Callable[[Stage, Tensor, Sequence[Any], Sequence[Any]], Judgement]
    view: Callable[[int, int], tuple[int, int]] = own_view


def plain_ways(loss: Loss) -> Ways:
    """AdamW, one network, one label an image."""

    def step(forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = forward(batch.inputs)
        value, parts = loss(logits, batch.inputs, mix_targets(batch.labels, batch.mixing, logits.shape[1]))
        return value, {**parts, "acc": (logits.argmax(1) == batch.labels).float().mean()}

    return Ways(lambda model, stage: torch.optim.AdamW(parameter_groups(model, stage), lr=stage.lr), step, judge)
