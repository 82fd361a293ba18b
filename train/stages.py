"""The three stages that make runs: a teacher, its student by distillation, and the student's quantisation-aware tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from octc.core.errors import OctcError
from octc.datasets.split import Split
from octc.imaging.preprocess import Preprocess
from octc.store.runs import Run
from octc.train.batches.images import cached_images
from octc.train.distill.cached_logits import Drawn, Logits
from octc.train.distill.loading import load_teacher
from octc.train.distill.precision import FP32, compared
from octc.train.distill.teachers import (
    Teacher,
    asked,
    cache_of,
    cached_ways,
    calibrated,
    check_distillation,
    distilled_loss,
    fast,
)
from octc.train.evaluation.assess import Reading, assess
from octc.train.evaluation.files import write_curves
from octc.train.loop.checkpoint import Checkpoint, load_strictly, write_checkpoint
from octc.train.loop.evaluate import network_input
from octc.train.loop.fit import FitOptions, fit
from octc.train.loop.label_losses import Loss, label_loss
from octc.train.loop.state import flat
from octc.train.loop.training import Data, Fitted, Report
from octc.train.loop.ways import Ways
from octc.train.networks.hog import HogSvm
from octc.train.networks.lent import check_lenders, is_lent
from octc.train.networks.macs import count_macs
from octc.train.networks.models import build_model, check_answers, parameter_count
from octc.train.networks.registry import NETWORKS
from octc.train.networks.starting import start_from_teacher, start_network
from octc.train.networks.svm import fit_svm
from octc.train.networks.weights import start_weights
from octc.train.recipes.config import Recipe, Stage, told

START_IMAGES, START_BATCH = 256, 32
LARGE = 20_000_000  # parameters above which a student is warned about (KD-OCT's limit)


@dataclass(frozen=True)
class Context:
    """What every stage is given.

    Attributes:
        root: of the data set. tick: called with the steps done. report: called with each epoch's row or a warning.
        weights: start weights instead of the recipe's source: a file, "none" (random) or "teacher" (the student's own); fetch:
            whether the hub may be asked.
        allow_change: whether a state that another configuration left may be resumed.
        teachers: checkpoint folders of a student's teachers; none: it learns from labels alone. second: that of the second
            student, which learns beside it (mutual learning across modalities).
        cached_views_on: Ray cluster that computes cached logits (`octc.train.distill.on_ray`); None: this process does.
    """

    run: Run
    root: Path
    split: Split
    data_digest: str
    recipe: Recipe
    seed: int
    accelerator: Accelerator
    tick: Callable[[int], None]
    report: Report
    decoding: Callable[[int, int], None]
    resume: bool = False
    weights: Path | None = None
    fetch: bool = False
    allow_change: bool = False
    teachers: tuple[Path, ...] = ()
    second: Path | None = None
    cached_views_on: str | None = None


def preprocess_of(stage: Stage) -> Preprocess:
    """The preprocessing that a stage's network is trained with."""
    return Preprocess(stage.size, resize=stage.resize, mean=stage.mean, std=stage.std, value_range=stage.value_range)


def load_data(ctx: Context, pre: Preprocess, canvas: Preprocess | None = None) -> Data:
    """Train (as `canvas` where it is given) and val, decoded once into the run folder's cache."""
    cache = ctx.run.path.parent / ".cache"
    train, val = ctx.split.parts["train"], ctx.split.parts["val"]
    with ctx.accelerator.main_process_first():  # one process decodes, the others find it done
        images = cached_images(cache, ctx.root, train, canvas or pre, ctx.decoding)
        val_images = cached_images(cache, ctx.root, val, pre, ctx.decoding)
    return Data(images, [s.label for s in train], val_images, [s.label for s in val], pre, [s.path for s in train])


def facts_of(ctx: Context, stage: Stage, role: str, extra: Any = None) -> dict[str, Any]:
    """Everything that decides a training's result, flat: {"stage.lr": 0.001, "seed": 0, ...}."""
    machine = {"processes": ctx.accelerator.num_processes, "precision": str(ctx.accelerator.mixed_precision)}
    made_of = {"role": role, "stage": told(stage), "recipe": told(ctx.recipe), "from": extra}
    return flat({**made_of, "seed": ctx.seed, "split": ctx.split.digest, **machine})


def fit_options(ctx: Context, folder: Path, facts: dict[str, Any]) -> FitOptions:
    """How the loop runs in this context, with the state in a folder of the run."""
    return FitOptions(
        folder, facts, ctx.seed, ctx.accelerator, ctx.tick, ctx.report, resume=ctx.resume, allow_change=ctx.allow_change
    )


def new_network(ctx: Context, stage: Stage) -> nn.Module:
    """The stage's network with random weights that the seed decides (the same ones in every process and at every resume)."""
    torch.manual_seed(ctx.seed)
    return build_model(stage.model, len(ctx.split.classes), **stage.model_kwargs)


def _start_images(ctx: Context, stage: Stage) -> Iterator[torch.Tensor]:
    """Training images that the seed draws, normalised float [<= 32, 3, S, S]: what a change of a network is told by."""
    data = load_data(ctx, preprocess_of(stage))
    rows = np.random.default_rng([ctx.seed, 0x57A7]).permutation(len(data.labels))[:START_IMAGES]
    for start in range(0, max(len(rows) - 1, 1), START_BATCH):  # no batch of one: it has no variance
        yield network_input(torch.from_numpy(np.array(data.images[rows[start : start + START_BATCH]])), data.preprocess)


def train_teacher(ctx: Context) -> Checkpoint:
    """Fine-tune the teacher on hard labels; writes train/model.safetensors and checkpoint.json."""
    stage = ctx.recipe.teacher
    model = new_network(ctx, stage)
    source = start_weights(model, stage, ctx.weights, ctx.fetch)
    _check_network(ctx, model, stage)
    fitted = _fit(ctx, model, stage, "teacher", _label_loss(ctx, stage), ctx.run.path / "train")
    return _write(ctx, "teacher", stage, model, fitted, source, None)


def train_student(ctx: Context) -> Checkpoint:
    """Distil the student from its frozen teachers (or train it on labels alone when there is none)."""
    stage = ctx.recipe.student
    model, source = _start_student(ctx, stage)
    _check_network(ctx, model, stage)
    if (count := parameter_count(model)) > LARGE and not ctx.resume:
        text = f"{stage.model} has {count / 1e6:.1f} million parameters: large for a student"
        ctx.report({"warning": text, "code": "OCT-W310"})
    loss: Loss | Ways = _label_loss(ctx, stage)
    parent: dict[str, Any] | None = None
    if ctx.teachers:
        loss, parent = taught(ctx, stage, ctx.teachers, _label_loss(ctx, stage))
    fitted = _fit(ctx, model, stage, "student", loss, ctx.run.path / "train", parent)
    return _write(ctx, "student", stage, model, fitted, source, parent)


def _check_network(ctx: Context, model: nn.Module, stage: Stage) -> None:
    """Refuse (E307) a network of timm that does not take the stage's pictures, or answers otherwise, before any work."""
    if not ctx.resume and stage.model not in NETWORKS:
        check_answers(model, stage.model, stage.size, len(ctx.split.classes))


def _start_student(ctx: Context, stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    """The student's network with its start weights, and where these came from."""
    classes, images = len(ctx.split.classes), lambda: _start_images(ctx, stage)
    torch.manual_seed(ctx.seed)
    if not is_lent(ctx.weights):
        return start_network(stage, classes, ctx.weights, ctx.fetch, images)
    check_lenders(len(ctx.teachers))
    return start_from_teacher(stage, classes, ctx.teachers[0], images)


def taught(ctx: Context, stage: Stage, folders: Sequence[Path], on_labels: Loss) -> tuple[Loss | Ways, dict[str, Any]]:
    """How a stage learns from the teachers in these folders, by `ctx.recipe.distillation`; and who they are, for the lineage.

    Raises:
        OctcError: of `load_teacher` and `cache_of`; E104 what cannot be had together.
    """
    how, device = ctx.recipe.distillation, ctx.accelerator.device
    check_distillation(how, stage)
    data = stage_data(ctx, stage) if how.views or how.calibrate or how.teacher_precision != FP32 else None
    teachers: list[Teacher] = []
    lineage: list[dict[str, Any]] = []
    for folder in folders:
        net, known = load_teacher(folder, ctx.split, preprocess_of(stage), device)
        frozen = fast(net, stage.size, device)
        facts: dict[str, Any] = {"model": known.model, "sha256": known.sha256, "weights": known.weights}
        if how.teacher_precision != FP32 and data is not None:
            frozen, facts["asked_in"] = compared(frozen, how.teacher_precision, data, device)
        teacher = Teacher(frozen, known.sha256)
        if how.calibrate and data is not None:
            teacher, facts["temperature"] = calibrated(teacher, data, device)
        teachers.append(teacher)
        lineage.append(facts)
    parent = parent_of(lineage)
    if not how.views or data is None:
        return distilled_loss(asked(teachers, ctx.accelerator.autocast), how, on_labels), parent
    caches = cached_logits(ctx, stage, teachers, data, folders)
    return cached_ways(caches, [t.temperature for t in teachers], how, on_labels), parent


def parent_of(teachers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The teachers of a student as its checkpoint keeps them: model, checksum and start weights of each."""
    return teachers[0] if len(teachers) == 1 else {**teachers[0], "teachers": list(teachers)}


def cached_logits(ctx: Context, stage: Stage, teachers: Sequence[Teacher], data: Data, folders: Sequence[Path]) -> list[Logits]:
    """What each teacher, of these folders, says of the views that the stage's epochs show; computed where no run beside this
    one has, by this process or by the cluster of `ctx.cached_views_on`."""
    how, accelerator = ctx.recipe.distillation, ctx.accelerator
    views = min(how.views, stage.epochs)
    precision = str(accelerator.mixed_precision)
    drawn = Drawn(stage, views, how.view_seed, accelerator.device.type, precision, how.teacher_precision)
    cache = ctx.run.path.parent / ".cache"
    if ctx.cached_views_on is not None and accelerator.is_main_process:
        from octc.train.distill.on_ray import Order, fill_on_ray

        images = str(Path(data.images.filename).resolve())  # type: ignore[attr-defined]
        split, place = str(ctx.run.split.resolve()), str(cache.resolve())
        keys = [drawn.key(teacher.sha256, ctx.split.digest) for teacher in teachers]
        orders = [
            Order(str(folder.resolve()), split, images, place, data.preprocess, drawn, key)
            for folder, key in zip(folders, keys, strict=True)
        ]
        fill_on_ray(orders, ctx.cached_views_on, ctx.decoding)
    accelerator.wait_for_everyone()
    return [cache_of(t, ctx.split.digest, data, drawn, cache, accelerator, ctx.decoding) for t in teachers]


def stage_data(ctx: Context, stage: Stage) -> Data:
    """Train and val as a stage is shown them: train on a larger canvas where its views are cut from one."""
    return load_data(
        ctx,
        preprocess_of(stage),
        Preprocess(round(stage.size * stage.canvas), value_range=stage.value_range) if stage.views else None,
    )


def _fit(ctx: Context, model: nn.Module, stage: Stage, role: str, loss: Loss | Ways, folder: Path, extra: Any = None) -> Fitted:
    data = stage_data(ctx, stage)
    if isinstance(model, HogSvm):
        return fit_svm(model, stage, data, folder=folder, seed=ctx.seed, tick=ctx.tick, report=ctx.report)
    _checkpoint_activations(model, stage)
    return fit(model, stage, data, loss, fit_options(ctx, folder, facts_of(ctx, stage, role, extra)))


def _label_loss(ctx: Context, stage: Stage) -> Loss:
    return label_loss(stage.objective, stage.smoothing, [s.label for s in ctx.split.parts["train"]], len(ctx.split.classes))


def _checkpoint_activations(model: nn.Module, stage: Stage) -> None:
    """Gradient checkpointing, where the recipe asks for it (E307 where the network cannot)."""
    if not stage.checkpointing:
        return
    switch = getattr(model, "set_grad_checkpointing", None)
    if switch is None:
        text = f"{stage.model} has no gradient checkpointing"
        raise OctcError("OCT-E307", text, hint="a recipe with checkpointing = False")
    switch(True)


def _write(
    ctx: Context,
    role: str,
    stage: Stage,
    model: nn.Module,
    fitted: Fitted,
    source: dict[str, Any],
    parent: dict[str, Any] | None,
) -> Checkpoint:
    """The checkpoint, the curves, and the evaluation on val; `model` is given the kept weights."""
    folder = ctx.run.path / "train"
    size = {"parameters": parameter_count(model), "macs": count_macs(model, stage.size)}
    checkpoint = Checkpoint(
        role=role,
        model=stage.model,
        model_kwargs=built_with(stage),
        classes=ctx.split.classes,
        preprocess=preprocess_of(stage),
        recipe=asdict(ctx.recipe),
        dataset=ctx.split.dataset,
        split_digest=ctx.split.digest,
        data_digest=ctx.data_digest,
        metrics={**fitted.metrics, **size},
        weights=source,
        parent=parent,
    )
    made = written(ctx, folder, fitted.state, checkpoint)
    if ctx.accelerator.is_main_process:
        write_curves(folder, f"{ctx.run.id} · {stage.model}")
        load_strictly(model, fitted.state, str(folder))
        assess(model, made, ctx.split, ctx.run, ctx.root, Reading("val", device=ctx.accelerator.device))
    return made


def written(ctx: Context, folder: Path, state: dict[str, torch.Tensor], checkpoint: Checkpoint) -> Checkpoint:
    """Written by the main process; all go on when it is there."""
    made = write_checkpoint(folder, state, checkpoint) if ctx.accelerator.is_main_process else checkpoint
    ctx.accelerator.wait_for_everyone()
    return made


def built_with(stage: Stage) -> dict[str, Any]:
    """Keyword arguments that shape the network; drop rates act in training only and are left out."""
    return {name: value for name, value in stage.model_kwargs.items() if not name.startswith("drop_")}
