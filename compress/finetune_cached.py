"""Tuning with the teacher's logits from its cache: tunings of other students with this augmentation find them there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from octc.train.distill.loading import load_teacher
from octc.train.distill.precision import in_precision
from octc.train.distill.teachers import Teacher, cached_target, cached_views
from octc.train.loop.label_losses import Loss
from octc.train.loop.training import Data
from octc.train.loop.ways import Batch, Forward, Ways, plain_ways
from octc.train.recipes.config import Stage
from octc.train.stages import Context, cached_logits

Answers = Callable[[torch.Tensor], torch.Tensor]


def cached_ways(ctx: Context, stage: Stage, data: Data, folder: Path, with_teacher: Callable[[Answers], Loss]) -> Ways:
    """The loss that a teacher's answers give, with cached ones; with_teacher: the loss of a function of the input."""
    net, known = load_teacher(folder, ctx.split, data.preprocess, ctx.accelerator.device)
    how = ctx.recipe.distillation
    caches = cached_logits(ctx, stage, [Teacher(in_precision(net, how.teacher_precision), known.sha256)], data, [folder])

    def step(forward: Forward, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        target = cached_target(caches, [1.0], how, batch)
        logits = forward(batch.inputs)
        value, parts = with_teacher(lambda _input: target)(logits, batch.inputs, batch.labels)
        return value, {**parts, "acc": (logits.argmax(1) == batch.labels).float().mean()}

    return cached_views(plain_ways(with_teacher(lambda x: x)), how, step)
