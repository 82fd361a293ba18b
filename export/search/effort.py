"""How long trainings take, from measured steps: what rounds are planned with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from octc.datasets.split import Split
from octc.schemas.search import Candidate
from octc.train.batches.inputs import training_views
from octc.train.distill.loading import load_teacher
from octc.train.distill.teachers import fast
from octc.train.networks.macs import count_macs
from octc.train.networks.models import build_model, check_answers
from octc.train.recipes.config import Recipe, Stage
from octc.train.stages import preprocess_of

STEPS = 2  # that are timed, after one that is not
FIXED = 5.0  # seconds of a run beside its epochs: start weights, the last evaluation, its files
TAIL = 60.0  # seconds of export, gate, bench and verification of the winner


@dataclass(frozen=True)
class Effort:
    """Seconds. per_epoch: of each candidate. teacher: of its logits, all sizes. tail: of tuning, export and test."""

    per_epoch: Mapping[str, float]
    teacher: float
    tail: float


def step_seconds(stage: Stage, classes: int, device: Any) -> tuple[float, float]:
    """Seconds of a training step, and of one image forward, of the stage's network with random weights."""
    with torch.random.fork_rng(devices=[]):
        model = build_model(stage.model, classes, **stage.model_kwargs).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.randint(0, 256, (stage.batch, 1, stage.size, stage.size), dtype=torch.uint8).to(device)
    indices, labels = torch.arange(stage.batch), torch.zeros(stage.batch, dtype=torch.int64, device=device)
    pre = preprocess_of(stage)

    def step() -> None:
        optimizer.zero_grad()
        inputs = training_views(images, indices, stage, pre, 0, 0)
        torch.nn.functional.cross_entropy(model.train()(inputs), labels).backward()
        optimizer.step()

    def forward() -> None:
        with torch.inference_mode():
            model.eval()(training_views(images, indices, stage, pre, 0, 0))

    return timed(step, device), timed(forward, device) / stage.batch


def timed(work: Callable[[], None], device: Any) -> float:
    """Seconds of a call, the mean of STEPS after one that is not counted."""
    seconds = []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        work()
        if getattr(device, "type", "cpu") == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return sum(seconds[1:]) / STEPS


def epoch_seconds(stage: Stage, counts: Mapping[str, int], step: float, image: float) -> float:
    """Seconds of an epoch: its steps, and the validation images. counts: images of train and val."""
    return step * (counts["train"] // stage.batch + 1) + image * counts["val"]


def teacher_seconds(folder: Path | None, split: Split, recipes: Mapping[str, Recipe], views: int, device: Any) -> float:
    """Seconds of the logits that the teacher's caches hold for these students: one cache for each size and normalisation."""
    if folder is None:
        return 0.0
    total, train = 0.0, len(split.parts["train"])
    stages = {(s.size, s.mean, s.std): s for s in (recipe.student for recipe in recipes.values())}
    for stage in stages.values():
        net, _ = load_teacher(folder, split, preprocess_of(stage), device)
        net = fast(net, stage.size, device)
        x = torch.randn(stage.batch, 3, stage.size, stage.size).to(device).contiguous(memory_format=torch.channels_last)

        def ask(net: torch.nn.Module = net, x: torch.Tensor = x) -> None:
            with torch.inference_mode():
                net(x)

        total += timed(ask, device) / stage.batch * train * views
    return total


def effort_of(
    recipes: Mapping[str, Recipe], split: Split, teacher: Path | None, views: int, device: Any, step: Callable[[int], None]
) -> Effort:
    """Time the steps of every candidate and of the teacher, in this process."""
    counts = {part: len(split.parts[part]) for part in ("train", "val")}
    per_epoch, tails = {}, []
    for name, recipe in recipes.items():
        one, image = step_seconds(recipe.student, len(split.classes), device)
        per_epoch[name] = epoch_seconds(recipe.student, counts, one, image)
        tuning = recipe.quantisation
        looks = tuning.calibration * 3 + counts["val"] * (len(tuning.observers) + 3)
        tails.append(tuning.epochs * 2 * per_epoch[name] + 2 * image * looks)
        step(1)
    return Effort(per_epoch, teacher_seconds(teacher, split, recipes, views, device), max(tails, default=0.0) + TAIL)


def scaled_effort(
    recipes: Mapping[str, Recipe], macs: Mapping[str, int], split: Split, teacher: bool, views: int, device: Any
) -> Effort:
    """For a dry run: the candidate with the least arithmetic is timed; the others, and the teacher, are taken to cost as
    much as their arithmetic."""
    least = min(macs, key=lambda name: macs[name])
    small = recipes[least]
    counts = {part: len(split.parts[part]) for part in ("train", "val")}
    one, image = step_seconds(small.student, len(split.classes), device)
    base = epoch_seconds(small.student, counts, one, image)
    per_epoch = {name: base * macs[name] / macs[least] for name in recipes}
    asked = 0.0
    if teacher:
        stage = small.teacher
        size = count_macs(build_model(stage.model, len(split.classes), **stage.model_kwargs), stage.size)
        caches = len({(r.student.size, r.student.mean, r.student.std) for r in recipes.values()})
        asked = image * size / macs[least] * counts["train"] * views * caches
    return Effort(per_epoch, asked, small.quantisation.epochs * 2 * max(per_epoch.values()) + TAIL)


def macs_of(candidate: Candidate, recipe: Recipe, classes: int) -> tuple[int, int]:
    """Multiply-accumulates and parameters of a candidate, without computing anything.

    Raises:
        OctcError: E307 timm does not know the network, or does not build it so.
    """
    with torch.device("meta"):
        model = build_model(candidate.model, classes, **recipe.student.model_kwargs)
        check_answers(model, candidate.model, candidate.size, classes)
        return count_macs(model, candidate.size), sum(p.numel() for p in model.parameters())
