"""A batch that memory has no room for: what was tried, and half of it with twice as many steps an update."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from octc.core.errors import OctcError
from octc.core.progress import Reporter
from octc.train.jobs.request import Request
from octc.train.recipes.config import Stage
from octc.train.stages import Context

LEAST = 2  # images: BatchNorm has nothing to compare one with


def too_large(why: str | None, tried: Sequence[int], *, auto: bool) -> OctcError:
    """E302 with every batch that was tried and what to try next."""
    listed = ", ".join(map(str, tried))
    text = f"memory is exhausted; batches tried: {listed}"
    least = tried[-1]
    hint = "a smaller size (train.size in octc.toml), another recipe, or --device cpu"
    if least > LEAST:  # with auto: several processes, which do not change it together
        more = ", in every process" if auto else "   (--batch auto halves it until it fits)"
        hint = f"--batch {max(LEAST, least // 2)}{more}"
    return OctcError("OCT-E302", text, hint=hint, why=why)


def half_of(stage: Stage) -> Stage:
    """The stage with half the batch, and as many images an update."""
    return replace(stage, batch=max(LEAST, stage.batch // 2), accumulate=2 * stage.accumulate)


def free_memory() -> None:
    """Give back what nothing holds any more, also to the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def halved(reporter: Reporter, asked: Request, context: Context) -> Context:
    """The same training with half the batch, as many images an update where that is even; said, and written into the run."""
    recipe = context.recipe
    stage = recipe.teacher if asked.kind == "teacher" else recipe.student
    small = half_of(stage)
    recipe = replace(recipe, teacher=small) if asked.kind == "teacher" else replace(recipe, student=small)
    change = f"batch {stage.batch} -> {small.batch}, {small.batch * small.accumulate} images an update"
    reporter.warn("OCT-W302", f"memory is exhausted: {change} (choose with --batch)", str(context.run.path))
    context.run.update(recipe=asdict(recipe))
    context.run.log_stage("changed", changes=[change])
    context.accelerator.free_memory()
    free_memory()
    return replace(context, recipe=recipe, resume=True, allow_change=True)  # from the last state, where one was saved
