"""Stages of cross-modal distillation: a teacher of one modality, and a student of the other that learns from it.

Images of both modalities are unpaired and matched by label (train/crossmodal/pairs.py). The loop, its state and how it resumes
are those of every other training (train/loop); train/crossmodal/ways.py holds what is done differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from octc.core.clock import utc_now
from octc.core.errors import OctcError
from octc.core.files import write_bytes
from octc.datasets.base import Sample
from octc.datasets.layouts.paired import check_partners, targets_of
from octc.datasets.split import Split, read_split
from octc.imaging.preprocess import Preprocess
from octc.store.test_set_log import log_part
from octc.train.batches.images import cached_images
from octc.train.crossmodal.evaluation import evaluate_eyes
from octc.train.crossmodal.pairs import make_partners
from octc.train.crossmodal.ways import Lesson, Pair, align_mlp, feature_width, judge_by, map_of, student_ways, teacher_ways
from octc.train.evaluation.assess import Reading
from octc.train.evaluation.files import write_curves
from octc.train.loop.checkpoint import Checkpoint, load_strictly, read_checkpoint, tensors_as_bytes
from octc.train.loop.evaluate import logits_of
from octc.train.loop.fit import fit
from octc.train.loop.training import Data, Fitted
from octc.train.networks.macs import count_macs
from octc.train.networks.models import build_model, parameter_count, rebuilt
from octc.train.networks.weights import start_weights
from octc.train.recipes.crossmodal import OTHER, EyeRecipe, EyeStage
from octc.train.stages import Context, built_with, facts_of, fit_options, new_network, parent_of, written

ALIGN = "align.safetensors"  # beside a student's checkpoint: what quantisation-aware tuning goes on with; never exported
CLOSE = 0.02  # mAP that a teacher may differ from what its checkpoint says, before it is taken for another network


@dataclass(frozen=True)
class Taught:
    """A teacher as a student meets it. folder: of its checkpoint; split: of its run (its own modality)."""

    folder: Path
    split: Split


def taught_by(folder: Path | None) -> Taught | None:
    """The teacher whose checkpoint lies in this folder of its run."""
    return None if folder is None else Taught(folder, read_split(folder.parent / "split.json"))


def recipe_of(ctx: Context) -> EyeRecipe:
    """The recipe of a context that the commands of this scheme made."""
    return cast(EyeRecipe, ctx.recipe)


def preprocess_for(stage: EyeStage, modality: str) -> Preprocess:
    """Grey for OCT; three channels, and contrast equalisation where the stage has it, for fundus."""
    fundus = modality == "fundus"
    plain = Preprocess(stage.size, 3 if fundus else 1, stage.resize, stage.mean, stage.std, value_range=stage.value_range)
    return replace(plain, clahe=stage.clahe, clahe_grid=stage.clahe_grid) if fundus and stage.clahe else plain


def label_vectors(samples: Sequence[Sample], classes: int) -> list[torch.Tensor]:
    """A float32 vector [K] of zeros and ones for each image."""
    rows = torch.zeros(len(samples), classes)
    for row, sample in zip(rows, samples, strict=True):
        row[list(targets_of(sample))] = 1.0
    return list(rows)


def eyes_of(samples: Sequence[Sample]) -> list[str]:
    """The eye of each image; an image without one is its own."""
    return [s.eye or s.path for s in samples]


def load_eye_data(ctx: Context, stage: EyeStage, split: Split, modality: str) -> Data:
    """Training images and those that choose the epoch, of one modality, decoded once into the run folder's cache."""
    pre, cache = preprocess_for(stage, modality), ctx.run.path.parent / ".cache"
    train, judged = split.parts["train"], split.parts[recipe_of(ctx).select]
    log_part(ctx.run.path, split, recipe_of(ctx).select, {}, "train", utc_now(), chooses="the epoch", modality=modality)
    images, others = (cached_images(cache, ctx.root, part, pre, ctx.decoding) for part in (train, judged))
    classes = len(split.classes)
    names = [s.path for s in train]
    return Data(images, label_vectors(train, classes), others, label_vectors(judged, classes), pre, names)


def train_eye_teacher(ctx: Context) -> Checkpoint:
    """A teacher on labels alone; writes train/."""
    recipe = recipe_of(ctx)
    stage = recipe.teacher
    model = new_network(ctx, stage)
    source = start_weights(model, stage, ctx.weights, ctx.fetch)
    data = load_eye_data(ctx, stage, ctx.split, recipe.modality)
    fitted = _fit(ctx, model, stage, data, teacher_ways(judge_by(choosing_eyes(ctx))), "teacher", None)
    return write_eyes(ctx, "teacher", stage, model, fitted, fitted.state, source, None)


def train_eye_student(ctx: Context) -> Checkpoint:
    """A student from a teacher of the other modality, or (where there is none) on labels alone; writes train/.

    The second student, which learns beside it (`mutual`), learns from `ctx.second`, a teacher of the student's modality.
    """
    taught, own = taught_by(next(iter(ctx.teachers), None)), taught_by(ctx.second)
    recipe = recipe_of(ctx)
    stage = recipe.student
    student = new_network(ctx, stage)
    source = start_weights(student, stage, ctx.weights, ctx.fetch)
    data = load_eye_data(ctx, stage, ctx.split, recipe.modality)
    judge = judge_by(choosing_eyes(ctx))
    if taught is None:
        fitted = _fit(ctx, student, stage, data, teacher_ways(judge), "student", None)
        return write_eyes(ctx, "student", stage, student, fitted, fitted.state, source, None)
    lesson, known, teacher = make_lesson(ctx, taught)
    parent = {"model": known.model, "sha256": known.sha256, "weights": known.weights, "modality": OTHER[recipe.modality]}
    everyone = [parent]
    pair = make_pair(ctx, student, teacher, online=recipe.cross.teacher == "online")
    if recipe.cross.mutual and own is not None:
        check_partners(ctx.split, own.split)
        torch.manual_seed(ctx.seed + 1)
        pair.peer = build_model(stage.model, len(ctx.split.classes), **stage.model_kwargs)
        start_weights(pair.peer, stage, ctx.weights, ctx.fetch)
        second, pre, other = load_eye_teacher(own, ctx, recipe.modality)
        pair.peer_align = align_mlp(feature_width(pair.peer), feature_width(second))
        lesson = replace(lesson, own_teacher=second, own_preprocess=pre)
        everyone.append({"model": other.model, "sha256": other.sha256, "weights": other.weights, "modality": recipe.modality})
    fitted = _fit(ctx, pair, stage, data, student_ways(pair, lesson, data, judge), "student", parent)
    folder = ctx.run.path / "train"
    write_bytes(folder / ALIGN, tensors_as_bytes(_part(fitted.state, "align")))
    return write_eyes(ctx, "student", stage, student, fitted, _part(fitted.state, "student"), source, parent_of(everyone))


def make_lesson(ctx: Context, taught: Taught) -> tuple[Lesson, Checkpoint, nn.Module]:
    """A teacher with its training images, what its checkpoint says, and its network."""
    recipe = recipe_of(ctx)
    other = OTHER[recipe.modality]
    check_partners(ctx.split, taught.split)
    teacher, pre, known = load_eye_teacher(taught, ctx, other)
    train = taught.split.parts["train"]
    images = cached_images(ctx.run.path.parent / ".cache", ctx.root, train, pre, ctx.decoding)
    partners = make_partners([targets_of(s) for s in ctx.split.parts["train"]], [targets_of(s) for s in train])
    labels = torch.stack(label_vectors(train, len(ctx.split.classes)))
    views = recipe.teacher.augment
    return Lesson(recipe.cross, teacher, pre, images, labels, partners, views, ctx.seed), known, teacher


def make_pair(ctx: Context, student: nn.Module, teacher: nn.Module, *, online: bool) -> Pair:
    """A student with its align MLP, and the teacher where that learns too."""
    torch.manual_seed(ctx.seed + 2)
    align = align_mlp(feature_width(student), feature_width(teacher))
    return Pair(student, align, teacher.requires_grad_(True) if online else None)


def load_eye_teacher(taught: Taught, ctx: Context, modality: str) -> tuple[nn.Module, Preprocess, Checkpoint]:
    """A teacher's network, frozen, in eval mode, once it has shown on its own val images that it is the network it says.

    Raises:
        OctcError: E104 it is of another modality, E309 other classes, E307 its mAP is not that of its checkpoint, and as the
            checkpoint's reader.
    """
    known, state = read_checkpoint(taught.folder)
    found = known.recipe.get("modality")
    if found != modality:
        text = f"the teacher is one of {found} images, one of {modality} images is needed"
        raise OctcError("OCT-E104", text, hint=f"octc train retnet-teacher --modality {modality}", place=str(taught.folder))
    if known.classes != ctx.split.classes:
        text = f"class order differs: teacher {', '.join(known.classes)}; data {', '.join(ctx.split.classes)}"
        raise OctcError("OCT-E309", text, hint="train a teacher on this data set", place=str(taught.folder))
    model = rebuilt(known, state, str(taught.folder))
    model.to(ctx.accelerator.device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    judged = taught.split.parts[str(known.recipe.get("select", "val"))]
    images = cached_images(ctx.run.path.parent / ".cache", ctx.root, judged, known.preprocess, ctx.decoding)
    shown = map_of(logits_of(model, images, known.preprocess, ctx.accelerator.device), *_truth(judged, known))
    stated = known.metrics.get("val_map")
    if stated is None or shown is None or abs(shown - float(stated)) > CLOSE:
        text = (
            f"the teacher reaches mAP {shown} on its val images, its checkpoint says {stated}: another network or other images"
        )
        raise OctcError("OCT-E307", text, hint="octc train retnet-teacher again", place=str(taught.folder))
    return model, known.preprocess, known


def _truth(samples: Sequence[Sample], known: Checkpoint) -> tuple[Any, ...]:
    labels = np.stack([row.numpy() for row in label_vectors(samples, len(known.classes))]) > 0
    return labels, eyes_of(samples), [s.patient for s in samples], str(known.recipe.get("truth", "union"))


def choosing_eyes(ctx: Context) -> tuple[list[str], list[str | None], str]:
    """Eyes and patients of the images that choose the epoch, and how an eye gets its label."""
    recipe = recipe_of(ctx)
    samples = ctx.split.parts[recipe.select]
    return eyes_of(samples), [s.patient for s in samples], recipe.truth


def _part(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def _fit(ctx: Context, model: nn.Module, stage: EyeStage, data: Data, ways: Any, role: str, parent: Any) -> Fitted:
    return fit(model, stage, data, ways, fit_options(ctx, ctx.run.path / "train", facts_of(ctx, stage, role, parent)))


def write_eyes(
    ctx: Context,
    role: str,
    stage: EyeStage,
    model: nn.Module,
    fitted: Fitted,
    state: dict[str, torch.Tensor],
    source: dict[str, Any],
    parent: dict[str, Any] | None,
) -> Checkpoint:
    """The checkpoint with its figures on val, the curves, the evaluation of val; `model` is given the kept weights."""
    recipe, folder = recipe_of(ctx), ctx.run.path / "train"
    load_strictly(model, state, str(folder))
    row = fitted.history[fitted.metrics["epoch"] - 1]
    size = {"parameters": parameter_count(model), "macs": count_macs(model, stage.size)}
    checkpoint = Checkpoint(
        role=role,
        model=stage.model,
        model_kwargs=built_with(stage),
        classes=ctx.split.classes,
        preprocess=preprocess_for(stage, recipe.modality),
        recipe=asdict(recipe),
        dataset=ctx.split.dataset,
        split_digest=ctx.split.digest,
        data_digest=ctx.data_digest,
        metrics={**fitted.metrics, "val_map": row["val_map"], **size},
        weights=source,
        parent=parent,
    )
    how = Reading("val", device=ctx.accelerator.device)
    found = evaluate_eyes(model, checkpoint, ctx.split, ctx.run, ctx.root, how)
    made = written(ctx, folder, state, replace(checkpoint, metrics={**checkpoint.metrics, "thresholds": found["thresholds"]}))
    write_curves(folder, f"{ctx.run.id} · {stage.model}")
    return made
