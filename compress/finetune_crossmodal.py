"""Quantisation-aware tuning of a cross-modal student: the fake quantisation of every student here, under its own loss.

BatchNorm is folded before the first step (its statistics are frozen by that), ranges come from calibration on training images
and stay as they are. Features and logits that CPM and CSA read are float; the align MLP is neither quantised nor exported.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from octc.compress.finetune import calibrated, calibration_indices, check_calibration
from octc.compress.placement import set_mode
from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.train.crossmodal.stages import (
    ALIGN,
    Taught,
    eyes_of,
    load_eye_data,
    make_lesson,
    make_pair,
    recipe_of,
    taught_by,
)
from octc.train.crossmodal.ways import Pair, judge_by, map_of, student_ways, teacher_ways
from octc.train.loop.checkpoint import Checkpoint, load_strictly, read_checkpoint, read_weights
from octc.train.loop.evaluate import logits_of
from octc.train.loop.fit import fit
from octc.train.loop.state import made_from
from octc.train.loop.training import Data
from octc.train.loop.ways import Ways
from octc.train.networks.models import build_model
from octc.train.recipes.crossmodal import CrossModal, EyeStage
from octc.train.stages import Context, facts_of, written


def decision_closeness(reference: torch.Tensor, logits: torch.Tensor) -> dict[str, float]:
    """Share of equal decisions (logit above 0, every class of every image) and mean Bernoulli KL, nats, of logits [N, K]."""
    a, b = reference.double(), logits.double()
    p = torch.sigmoid(a)
    kl = p * (functional.logsigmoid(a) - functional.logsigmoid(b))
    kl = kl + (1 - p) * (functional.logsigmoid(-a) - functional.logsigmoid(-b))
    return {"agreement": float(((a > 0) == (b > 0)).double().mean()), "kl": float(kl.mean())}


def quantise_eye_student(ctx: Context) -> Checkpoint:
    """The qat stage of a cross-modal student: reads train/, writes qat/; the better of PTQ and QAT by mAP on val is kept."""
    recipe, taught = recipe_of(ctx), taught_by(next(iter(ctx.teachers), None))
    stage, how = cast(EyeStage, recipe.student), recipe.quantisation
    folder, device = ctx.run.path / "train", ctx.accelerator.device
    checkpoint, state = read_checkpoint(folder)
    student = build_model(checkpoint.model, len(checkpoint.classes), **checkpoint.model_kwargs)
    load_strictly(student, state, str(folder))
    student.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    train = ctx.split.parts["train"]
    strata = [s.label for s in train]
    chosen = [train[int(i)] for i in calibration_indices(strata, how.calibration, ctx.seed)]
    check_calibration(chosen, {part: ctx.split.parts[part] for part in ("val", "test")})
    data = load_eye_data(ctx, stage, ctx.split, recipe.modality)
    by_stratum = replace(data, labels=strata)  # calibration draws by class
    quantised, facts = calibrated(student, how, by_stratum, stage.size, ctx.seed, device, near=decision_closeness)
    facts["calibration"] = [s.sha256 for s in chosen]
    ptq = {name: tensor.clone() for name, tensor in quantised.state_dict().items()}
    reference = logits_of(student, data.val_images, data.preprocess, device)
    samples = ctx.split.parts[recipe.select]
    known = (eyes_of(samples), [s.patient for s in samples], recipe.truth)
    kept, chosen_by = ptq, "ptq"
    judged = {"ptq": _judge(reference, quantised, data, known, device)}
    if how.epochs:
        ways, model, plain = _lesson(ctx, stage, quantised, taught, data, known)
        align = sha256_file(folder / ALIGN) if (folder / ALIGN).is_file() else "none"
        parent = f"{checkpoint.sha256} align {align}"
        same = ctx.resume and made_from(ctx.run.path / "qat") in (None, parent)
        fitted = fit(
            model, plain, data, ways, folder=ctx.run.path / "qat", facts=facts_of(ctx, plain, "qat", parent),
            seed=ctx.seed + 1, accelerator=ctx.accelerator, resume=same, allow_change=ctx.allow_change, tick=ctx.tick,
            report=ctx.report, exact=True,
        )  # fmt: skip
        prefix = "student." if isinstance(model, Pair) else ""
        state = {k.removeprefix(prefix): v for k, v in fitted.state.items() if k.startswith(prefix)}
        load_strictly(quantised, state, str(ctx.run.path / "qat"))
        judged["qat"] = _judge(reference, quantised, data, known, device)
        if _rank(judged["qat"]) >= _rank(judged["ptq"]):
            kept, chosen_by = state, "qat"
    parent_facts = {
        "model": checkpoint.model,
        "sha256": checkpoint.sha256,
        "weights": checkpoint.weights,
        "teacher": checkpoint.parent,
    }
    thresholds = checkpoint.metrics.get("thresholds")
    new = replace(
        checkpoint, quantisation={**asdict(how), **facts}, parent=parent_facts, recipe=asdict(recipe),
        metrics={**judged, "chosen": chosen_by, **judged[chosen_by], "val_n": len(samples), "thresholds": thresholds},
    )  # fmt: skip
    return written(ctx, ctx.run.path / "qat", kept, new)


def _lesson(
    ctx: Context, stage: EyeStage, quantised: nn.Module, taught: Taught | None, data: Data, known: Any
) -> tuple[Ways, nn.Module, EyeStage]:
    """The student's own loss with a frozen teacher, on the quantised network; gentle views, a small constant-shape rate."""
    how = recipe_of(ctx).quantisation
    views = replace(
        stage.augment, rotate=min(stage.augment.rotate, 5), shear=0.0, scale=min(stage.augment.scale, 0.1), brightness=0.0,
        contrast=0.0, gamma=0.0, noise=0.0, blur=0.0, erase=0.0, border=0.0,
    )  # fmt: skip
    plain = replace(
        stage, epochs=how.epochs, lr=how.lr, batch=how.batch, warmup=0.5, decay=0.0, ema=0.0, schedule="cosine",
        optimizer="adamw", patience=how.epochs + 1, clip=5.0, augment=views,
    )  # fmt: skip
    if taught is None:
        return teacher_ways(judge_by(known)), quantised, plain
    lesson, _, teacher = make_lesson(ctx, taught)
    calm = CrossModal(lesson.how.temperature, lesson.how.alpha, lesson.how.beta)  # from the first epoch, frozen, in eval mode
    pair = make_pair(ctx, quantised, teacher, online=False)
    place = ctx.run.path / "train" / ALIGN
    if not place.is_file():
        text = "the align MLP of this student is not on disk: quantisation-aware tuning goes on with it"
        raise OctcError("OCT-E310", text, hint="octc train retnet-student again", place=str(place))
    load_strictly(pair.align, read_weights(place), str(place))
    return student_ways(pair, replace(lesson, how=calm), data, judge_by(known)), pair, plain


def _judge(reference: torch.Tensor, quantised: nn.Module, data: Data, known: Any, device: Any) -> dict[str, float]:
    set_mode(quantised, "on")
    logits = logits_of(quantised, data.val_images, data.preprocess, device)
    truth = torch.stack(list(data.val_labels)).numpy() > 0
    return {**decision_closeness(reference, logits), "val_map": map_of(logits, truth, *known) or 0.0}


def _rank(metrics: dict[str, float]) -> tuple[float, float, float]:
    return metrics["val_map"], metrics["agreement"], -metrics["kl"]
