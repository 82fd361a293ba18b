"""The short distillation after each step: from the student itself as it was, and from its teacher, on cached views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from octc.train.distill.cached_logits import Logits
from octc.train.distill.loading import load_teacher
from octc.train.distill.losses import soft_loss
from octc.train.distill.precision import FP32
from octc.train.distill.teachers import Teacher, cached_target, cached_views, fast
from octc.train.loop.training import Data
from octc.train.loop.ways import Batch, Forward, Ways, plain_ways
from octc.train.recipes.config import Distillation, Quantisation, Stage, plain
from octc.train.stages import Context, cached_logits, preprocess_of

RATE = 0.3  # of the student's own learning rate: the weights are trained, a step moves them


def short_stage(student: Stage, epochs: int | None) -> Stage:
    """How a student is tuned after a step: its own views and batch, a quarter of its epochs, a smaller rate."""
    count, tamed = epochs or max(1, student.epochs // 4), plain(student)
    tamed = replace(tamed, views=student.views, canvas=student.canvas, select="loss", patience=count + 1)
    return replace(tamed, epochs=count, lr=RATE * student.lr, warmup=0.5, decay=0.0)


def with_views(ctx: Context, stage: Stage) -> Context:
    """The context with cached views: those of the recipe, or as many as there are epochs; both are asked in float32."""
    how = ctx.recipe.distillation
    how = replace(how, views=how.views or stage.epochs, teacher_precision=FP32)
    recipe = replace(ctx.recipe, distillation=how)
    return replace(ctx, recipe=recipe)


def asked_once(ctx: Context, stage: Stage, data: Data, own: tuple[nn.Module, str, Path]) -> list[Logits]:
    """What the student itself (network, checksum, folder) and its first teacher say of the views, each asked once.

    Raises:
        OctcError: of `load_teacher` and `cached_logits`.
    """
    device, size = ctx.accelerator.device, stage.size
    student = own[0].to(device).to(memory_format=torch.channels_last).eval()
    teachers, folders = [Teacher(fast(student, size, device), own[1])], [own[2]]
    for folder in ctx.teachers[:1]:
        net, known = load_teacher(folder, ctx.split, preprocess_of(stage), device)
        teachers.append(Teacher(fast(net, size, device), known.sha256))
        folders.append(folder)
    return cached_logits(ctx, stage, teachers, data, folders)


def both_ways(caches: Sequence[Logits], distillation: Distillation, how: Quantisation) -> Ways:
    """anchor * KL to the student itself + (1 - anchor) * KL to its teacher, both T^2-scaled; without a teacher the first alone.

    It is the loss of quantisation-aware tuning (`octc.compress.finetune.anchored_loss`), with both answers cached.
    """

    def step(forward: Forward, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        targets = [cached_target([cache], [1.0], distillation, batch) for cache in caches]
        logits = forward(batch.inputs)
        anchor, soft = (soft_loss(logits, target, how.temperature) for target in (targets[0], targets[-1]))
        parts = {"anchor": anchor, "soft": soft, "acc": (logits.argmax(1) == batch.labels).float().mean()}
        return how.anchor * anchor + (1 - how.anchor) * soft, parts

    unused = plain_ways(lambda logits, _x, _labels: (logits.sum(), {}))  # its step is not taken, its judge and optimiser are
    return cached_views(unused, distillation, step)
