"""What the optimiser is told: parameter groups, learning rates, frozen parts, accumulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from octc.core.errors import OctcError
from octc.train.distill.losses import learning_rate
from octc.train.recipes.config import Stage

HEADS = ("head", "fc", "classifier", "classif")  # the attributes that KD-OCT looks for, in its order
HALVE_AFTER = 3  # epochs without a better loss ("plateau")
HALVE_EVERY, HALVE_FROM = 5, 6  # bad epochs a halving, and the first epoch (index) that counts as one ("halving")
CONSTANT = "teacher"  # the part of an optimiser that keeps the peak rate: a teacher that learns beside its student


def head_names(model: nn.Module) -> set[str]:
    """Names of the classifier's parameters: of the module `head`, `fc`, `classifier` or `classif`, else `get_classifier()`.

    Raises:
        OctcError: E307 when the network shows no classifier.
    """
    for name in HEADS:
        module = getattr(model, name, None)
        if isinstance(module, nn.Module) and any(True for _ in module.parameters()):
            return {f"{name}.{inner}" for inner, _ in module.named_parameters()}
    getter: Any = getattr(model, "get_classifier", None)
    own = {id(p) for p in getter().parameters()} if getter is not None else set()
    names = {name for name, p in model.named_parameters() if id(p) in own}
    if not names:
        text = "the network has no classifier that could learn at its own rate"
        raise OctcError("OCT-E307", text, hint="a recipe with backbone = 1 and freeze = 0")
    return names


def classifier_of(model: nn.Module) -> str:
    """Name of the last linear layer: of the classifier, where the network shows one (a traced graph shows none).

    Raises:
        OctcError: E307 when the network shows no classifier, or none that is linear.
    """
    matrices = {name for name, p in model.named_parameters() if p.ndim == 2}
    named = [name for name in head_names(model) if name in matrices] if not isinstance(model, fx.GraphModule) else []
    ordered = [name for name, _ in model.named_parameters() if name in (named or matrices)]
    if not ordered:
        raise OctcError("OCT-E307", "the network has no linear classifier", hint="a network with one (octc list models)")
    return ordered[-1].removesuffix(".weight")


def parameter_groups(model: nn.Module, stage: Stage) -> list[dict[str, Any]]:
    """AdamW's groups: with and without weight decay, and the backbone and the head apart where the stage asks for it."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if stage.backbone == 1.0 and stage.freeze == 0:
        return _decayed([p for _, p in named], stage, "all")
    head = head_names(model)
    backbone = _decayed([p for name, p in named if name not in head], stage, "backbone")
    return backbone + _decayed([p for name, p in named if name in head], stage, "head")


def _decayed(parameters: list[nn.Parameter], stage: Stage, part: str) -> list[dict[str, Any]]:
    if stage.decay_all:
        return [{"params": parameters, "weight_decay": stage.decay, "part": part}]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": stage.decay, "part": part},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "part": part},
    ]


def _per_epoch(epoch: int, _step: int, _steps: int, stage: Stage, total: int) -> float:
    """Formula 9.1: (e + 1) / W, then the cosine of (e - W) / (E - W)."""
    if epoch < stage.warmup:
        return (epoch + 1) / stage.warmup
    return learning_rate(epoch, total, stage.warmup, stage.floor)


def _per_iteration(epoch: int, step: int, steps: int, stage: Stage, total: int) -> float:
    """Formula 9.3: from the floor, with s = i + 1."""
    done, warm = epoch * steps + step + 1, stage.warmup * steps
    if done <= warm:
        return stage.floor + (1 - stage.floor) * done / warm
    return learning_rate(done, total * steps, warm, stage.floor)


def _per_iteration_from_zero(epoch: int, step: int, steps: int, stage: Stage, total: int) -> float:
    """Formula 9.4: from zero, with i."""
    done, warm = max(0, epoch * steps + step), stage.warmup * steps
    return done / warm if done < warm else learning_rate(done, total * steps, warm, stage.floor)


def _in_fractions(epoch: int, step: int, steps: int, stage: Stage, total: int) -> float:
    return learning_rate(epoch + (step + 1) / steps, total, stage.warmup, stage.floor)


SCHEDULES: dict[str, Callable[[int, int, int, Stage, int], float]] = {
    "cosine": _in_fractions,
    "epoch": _per_epoch,
    "iteration": _per_iteration,
    "iteration-zero": _per_iteration_from_zero,
}


def plateau(losses: Sequence[float], floor: float) -> float:
    """Factor of the rate after these val losses, one an epoch: halved after three epochs without a better one."""
    best, waited, factor = math.inf, 0, 1.0
    for loss in losses:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == HALVE_AFTER:
            factor, waited = factor / 2, 0
    return max(factor, floor)


def halving(values: Sequence[float], floor: float) -> float:
    """Factor of the rate after these values, one an epoch: halved at every fifth bad epoch in a row, from the seventh epoch on.

    The plateau rule of QD-RetNet, which counts on where the rate was halved.
    """
    best, waited, share = math.inf, 0, 1.0
    for epoch, value in enumerate(values):
        if value < best:
            best, waited = value, 0
        elif epoch >= HALVE_FROM:
            waited += 1
            share = share / 2 if waited % HALVE_EVERY == 0 else share
    return max(share, floor)


PATIENT: dict[str, Callable[[Sequence[float], float], float]] = {"plateau": plateau, "halving": halving}


def factor(stage: Stage, epoch: int, step: int, steps: int, losses: Sequence[float]) -> float:
    """Share of the peak rate in this step. losses: on val, of the epochs before."""
    if stage.schedule in PATIENT:
        return PATIENT[stage.schedule](losses, stage.floor)
    begin, total = 0, stage.epochs
    if stage.restart:
        begin, total = (0, stage.freeze) if epoch < stage.freeze else (stage.freeze, stage.epochs - stage.freeze)
    return SCHEDULES[stage.schedule](epoch - begin, step, steps, stage, total)


def rate(stage: Stage, part: str, epoch: int, step: int, steps: int, losses: Sequence[float]) -> float:
    """Learning rate of a group ("all", "backbone", "head", "teacher"). From swa.start on it anneals to swa.lr (formula 9.2)."""
    if part == CONSTANT:
        return stage.lr
    share = stage.backbone if part == "backbone" else 1.0
    swa = stage.swa
    if not swa.start or epoch < swa.start:
        return stage.lr * share * factor(stage, epoch, step, steps, losses)
    begun = stage.lr * share * factor(stage, swa.start, 0, steps, losses)
    done = 0.5 * (1 - math.cos(math.pi * min(1.0, (epoch - swa.start) / swa.anneal)))
    return done * swa.lr * (1.0 if swa.flat else share) + (1 - done) * begun


def set_rates(
    optimizer: torch.optim.Optimizer, stage: Stage, epoch: int, step: int, steps: int, losses: Sequence[float]
) -> None:
    """Give every group its rate of this step."""
    for group in optimizer.param_groups:
        group["lr"] = rate(stage, group.get("part", "all"), epoch, step, steps, losses)


def backbone_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters that stand still in the first `freeze` epochs."""
    return [p for group in optimizer.param_groups if group.get("part") == "backbone" for p in group["params"]]


def hold(parameters: Sequence[nn.Parameter], frozen: bool) -> None:
    """Switch the gradients of `parameters` off or on (one process: the backward pass is then shorter as well)."""
    for parameter in parameters:
        parameter.requires_grad_(not frozen)


def drop_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Several processes: the gradients were computed, since DDP waits for all of them, and are not used."""
    for parameter in parameters:
        parameter.grad = None


@dataclass(frozen=True)
class Group:
    """Micro-batches of one update: the loss is divided by `size`; `last` makes the step."""

    size: int
    last: bool


def updates_before(epoch: int, step: int, steps: int, accumulate: int) -> int:
    """Updates of the weights before the one that this step belongs to."""
    return epoch * -(-steps // accumulate) + step // accumulate


def accumulation(step: int, steps: int, accumulate: int, drop_rest: bool = False) -> Group:
    """The group of a step. An epoch's last group may be smaller; with `drop_rest` it makes no step."""
    first = step - step % accumulate
    size = min(accumulate, steps - first)
    if drop_rest and size < accumulate:
        return Group(accumulate, False)
    return Group(size, step == first + size - 1)


def scaler_tensors(scaler: Any) -> dict[str, torch.Tensor]:
    """The state of fp16's loss scaling; nothing without it."""
    return {} if scaler is None else {name: torch.as_tensor(value) for name, value in scaler.state_dict().items()}


def load_scaler(scaler: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Put it back."""
    if scaler is not None and tensors:
        scaler.load_state_dict({name: tensor.item() for name, tensor in tensors.items()})
