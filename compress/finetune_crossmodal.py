"""Quantisation-aware tuning of a cross-modal student: the fake quantisation of every student here, under its own loss.

BatchNorm is folded before the first step (its statistics are frozen by that), ranges come from calibration on training images
and stay as they are. Features and logits that CPM and CSA read are float; the align MLP is neither quantised nor exported.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional

from octc.compress.finetune import Lesson, Subject, Tuning, quantise
from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.train.crossmodal.stages import (
    ALIGN,
    choosing_eyes,
    load_eye_data,
    make_lesson,
    make_pair,
    recipe_of,
    taught_by,
)
from octc.train.crossmodal.ways import judge_by, map_of, student_ways, teacher_ways
from octc.train.loop.checkpoint import Checkpoint, load_strictly, read_weights
from octc.train.loop.training import Data
from octc.train.recipes.crossmodal import CrossModal
from octc.train.stages import Context


def decision_closeness(reference: torch.Tensor, logits: torch.Tensor) -> dict[str, float]:
    """Share of equal decisions (logit above 0, every class of every image) and mean Bernoulli KL, nats, of logits [N, K]."""
    a, b = reference.double(), logits.double()
    p = torch.sigmoid(a)
    kl = p * (functional.logsigmoid(a) - functional.logsigmoid(b))
    kl = kl + (1 - p) * (functional.logsigmoid(-a) - functional.logsigmoid(-b))
    return {"agreement": float(((a > 0) == (b > 0)).double().mean()), "kl": float(kl.mean())}


def quantise_eye_student(ctx: Context) -> Checkpoint:
    """`quantise` of a cross-modal student; the better of PTQ and QAT by mAP is kept, and the thresholds stay."""
    return quantise(ctx, Tuning(_data, decision_closeness, "val_map", _map, _lesson, ("thresholds",)))


def _data(ctx: Context) -> Data:
    recipe = recipe_of(ctx)
    return load_eye_data(ctx, recipe.student, ctx.split, recipe.modality)


def _map(ctx: Context, logits: torch.Tensor, data: Data) -> float:
    return map_of(logits, torch.stack(list(data.val_labels)).numpy() > 0, *choosing_eyes(ctx)) or 0.0


def _lesson(ctx: Context, subject: Subject, quantised: nn.Module) -> Lesson:
    """The student's own loss with a frozen teacher, on the quantised network; gentle views, a small constant-shape rate."""
    recipe, taught = recipe_of(ctx), taught_by(next(iter(ctx.teachers), None))
    stage, how, judge = recipe.student, recipe.quantisation, judge_by(choosing_eyes(ctx))
    views = replace(
        stage.augment,
        rotate=min(stage.augment.rotate, 5),
        shear=0.0,
        scale=min(stage.augment.scale, 0.1),
        brightness=0.0,
        contrast=0.0,
        gamma=0.0,
        noise=0.0,
        blur=0.0,
        erase=0.0,
        border=0.0,
    )
    plain = replace(
        stage,
        epochs=how.epochs,
        lr=how.lr,
        batch=how.batch,
        warmup=0.5,
        decay=0.0,
        ema=0.0,
        schedule="cosine",
        optimizer="adamw",
        patience=how.epochs + 1,
        clip=5.0,
        augment=views,
    )
    place = ctx.run.path / "train" / ALIGN
    made_of = f"{subject.checkpoint.sha256} align {sha256_file(place) if place.is_file() else 'none'}"
    if taught is None:
        return Lesson(quantised, plain, teacher_ways(judge), made_of)
    lesson, _, teacher = make_lesson(ctx, taught)
    calm = CrossModal(lesson.how.temperature, lesson.how.alpha, lesson.how.beta)  # from the first epoch, frozen, in eval mode
    pair = make_pair(ctx, quantised, teacher, online=False)
    if not place.is_file():
        text = "the align MLP of this student is not on disk: quantisation-aware tuning goes on with it"
        raise OctcError("OCT-E310", text, hint="octc train retnet-student again", place=str(place))
    load_strictly(pair.align, read_weights(place), str(place))
    return Lesson(pair, plain, student_ways(pair, replace(lesson, how=calm), subject.data, judge), made_of, "student.")
