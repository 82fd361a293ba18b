"""How long trainings take, from measured steps: what rounds are planned with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator

from octc.core.errors import OctcError, first_line
from octc.core.faults import out_of_memory
from octc.core.progress import Step, ignore
from octc.datasets.split import Split
from octc.export.search.own import network_failure
from octc.schemas.search import Candidate
from octc.train.batches.inputs import training_views
from octc.train.distill.loading import load_teacher
from octc.train.distill.teachers import fast
from octc.train.jobs.memory import LEAST, free_memory, half_of, too_large
from octc.train.loop.processes import named_failures, torch_lent
from octc.train.networks.macs import count_macs
from octc.train.networks.models import build_model, check_answers
from octc.train.recipes.config import Recipe, Stage
from octc.train.stages import preprocess_of

T = TypeVar("T")
STEPS = 2  # that are timed, after one that is not
FIXED = 5.0  # seconds of a run beside its epochs: start weights, the last evaluation, its files
TAIL = 60.0  # seconds of export, gate, bench and verification of the winner


@dataclass(frozen=True)
class Refusal:
    """Why no step of a candidate can be done. memory: there may be more of it later."""

    why: str
    memory: bool


@dataclass(frozen=True)
class Effort:
    """Seconds. per_epoch: of each candidate. teacher: of its logits, all sizes. tail: of tuning, export and test.

    out: candidates that no step can be done of, with the reason: memory that is too small, a network that does not train.
    """

    per_epoch: Mapping[str, float]
    teacher: float
    tail: float
    out: Mapping[str, Refusal] = field(default_factory=dict)


@dataclass(frozen=True)
class Steps:
    """How steps are timed: on which device, and whether a batch that memory has no room for is halved, as a training does."""

    accelerator: Accelerator
    auto_batch: bool


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


def fitting(stage: Stage, steps: Steps, work: Callable[[Stage], T]) -> T:
    """Work with a stage, whose batch is halved until memory has room for it, where a training would do that.

    Raises:
        OctcError: E302 with every batch that was tried; E303, E304 as a training.
    """
    tried: list[int] = []
    while True:
        try:
            with named_failures(steps.accelerator, stage.batch):
                return work(stage)
        except OctcError as error:
            if not out_of_memory(error):
                raise
            why = error.why or first_line(error)  # the error itself holds the frames that hold the memory
        tried.append(stage.batch)
        free_memory()
        if not steps.auto_batch or stage.batch <= LEAST:
            raise too_large(why, tried, auto=steps.auto_batch)
        stage = half_of(stage)


def teacher_seconds(folder: Path | None, split: Split, stages: Iterable[Stage], views: int, steps: Steps) -> float:
    """Seconds of the logits that the teacher's caches hold for these students: one cache for each size and normalisation."""
    if folder is None:
        return 0.0
    device, train = steps.accelerator.device, len(split.parts["train"])

    def ask(stage: Stage) -> float:
        net = fast(load_teacher(folder, split, preprocess_of(stage), device)[0], stage.size, device)
        x = torch.randn(stage.batch, 3, stage.size, stage.size).to(device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return timed(lambda: net(x), device) / stage.batch

    each = {(stage.size, stage.mean, stage.std): stage for stage in stages}
    return sum(fitting(stage, steps, ask) * train * views for stage in each.values())


@dataclass(frozen=True)
class Times:
    """Seconds of a step and of an image forward. stage: with the batch that memory has room for."""

    stage: Stage
    step: float
    image: float


def try_steps(recipe: Recipe, split: Split, steps: Steps) -> Times | Refusal:
    """Time the steps of a candidate. What is not its own failure is raised (`octc.export.search.own`)."""
    classes, device = len(split.classes), steps.accelerator.device
    try:
        return fitting(recipe.student, steps, lambda stage: Times(stage, *step_seconds(stage, classes, device)))
    except Exception as error:
        if (why := network_failure(error)) is None:
            raise
        return Refusal(why, out_of_memory(error))


def effort_of(
    recipes: Mapping[str, Recipe], split: Split, teacher: Path | None, views: int, steps: Steps, tell: Step = ignore
) -> Effort:
    """Time the steps of every candidate and of the teacher, in this process. A candidate that memory had no room for is tried
    again when all others were: what took the memory may have ended.

    Raises:
        OctcError: E302 of the teacher; E304 the GPU is lost; and what `load_teacher` raises.
    """
    counts, found = counts_of(split), dict[str, Times | Refusal]()
    with torch_lent(steps.accelerator):
        for name, recipe in recipes.items():
            found[name] = try_steps(recipe, split, steps)
            tell(1)
        for name in [name for name, one in found.items() if isinstance(one, Refusal) and one.memory]:
            free_memory()
            found[name] = try_steps(recipes[name], split, steps)
        times = {name: one for name, one in found.items() if isinstance(one, Times)}
        asked = teacher_seconds(teacher, split, [recipes[name].student for name in times], views, steps)
    per_epoch = {name: epoch_seconds(one.stage, counts, one.step, one.image) for name, one in times.items()}
    tails = [TAIL]
    for name, one in times.items():
        tuning = recipes[name].quantisation
        looks = tuning.calibration * 3 + counts["val"] * (len(tuning.observers) + 3)
        tails.append(tuning.epochs * 2 * per_epoch[name] + 2 * one.image * looks + TAIL)
    return Effort(per_epoch, asked, max(tails), {name: one for name, one in found.items() if isinstance(one, Refusal)})


def scaled_effort(
    recipes: Mapping[str, Recipe], macs: Mapping[str, int], split: Split, teacher: bool, views: int, steps: Steps
) -> Effort:
    """For a dry run: the candidate with the least arithmetic is timed (where no step can be done of it, the next one); the
    others, and the teacher, are taken to cost as much as their arithmetic."""
    out: dict[str, Refusal] = {}
    for least in sorted(macs, key=lambda name: macs[name]):
        with torch_lent(steps.accelerator):
            found = try_steps(recipes[least], split, steps)
        if isinstance(found, Refusal):
            out[least] = found
            continue
        small, counts = recipes[least], counts_of(split)
        base = epoch_seconds(found.stage, counts, found.step, found.image)
        per_epoch = {name: base * macs[name] / macs[least] for name in recipes if name not in out}
        asked = 0.0
        if teacher:
            stage = small.teacher
            size = count_macs(build_model(stage.model, len(split.classes), **stage.model_kwargs), stage.size)
            caches = len({(r.student.size, r.student.mean, r.student.std) for r in recipes.values()})
            asked = found.image * size / macs[least] * counts["train"] * views * caches
        return Effort(per_epoch, asked, small.quantisation.epochs * 2 * max(per_epoch.values()) + TAIL, out)
    return Effort({}, 0.0, TAIL, out)


def counts_of(split: Split) -> dict[str, int]:
    """Images of train and val."""
    return {part: len(split.parts[part]) for part in ("train", "val")}


def macs_of(candidate: Candidate, recipe: Recipe, classes: int) -> tuple[int, int]:
    """Multiply-accumulates and parameters of a candidate, without computing anything.

    Raises:
        OctcError: E307 timm does not know the network, or does not build it so.
    """
    with torch.device("meta"):
        model = build_model(candidate.model, classes, **recipe.student.model_kwargs)
        check_answers(model, candidate.model, candidate.size, classes)
        return count_macs(model, candidate.size), sum(p.numel() for p in model.parameters())
