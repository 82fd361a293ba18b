"""What the loop is told about cross-modal distillation: optimiser, step, judgement, and the module that is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from octc.imaging.preprocess import Preprocess
from octc.stats.multilabel import by_eye, mean_ap, sigmoid
from octc.train.batches.augment import augment, draw
from octc.train.crossmodal.losses import Side, cross_modal, mutual_divergence
from octc.train.crossmodal.pairs import Partners
from octc.train.distill.loading import SameView
from octc.train.loop.epoch import CRITERION, Judgement
from octc.train.loop.evaluate import network_input
from octc.train.loop.optim import CONSTANT, classifier_of
from octc.train.loop.training import Data
from octc.train.loop.ways import Batch, Forward, Ways
from octc.train.recipes.config import Augment, Stage
from octc.train.recipes.crossmodal import CrossModal, EyeStage

Tensor = torch.Tensor
Judge = Callable[[Stage, Tensor, Sequence[Any], Sequence[Any]], Judgement]
SALT = 0x7EAC  # the teacher's image is augmented by draws of its own


class Pair(nn.Module):
    """A student (which it answers as), its align MLP, and what learns beside them: an online teacher, a second student."""

    def __init__(self, student: nn.Module, align: nn.Module, teacher: nn.Module | None = None) -> None:
        super().__init__()
        self.student, self.align, self.teacher = student, align, teacher
        self.peer: nn.Module | None = None
        self.peer_align: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.student(x)
        return logits


@dataclass(frozen=True)
class Lesson:
    """A teacher's side. images uint8 [M, C, S, S] and labels [M, K] are its training images; views: their augmentation.

    own_teacher: of the student's modality, for the second student; own_preprocess: what that one was trained with.
    """

    how: CrossModal
    teacher: nn.Module
    preprocess: Preprocess
    images: npt.NDArray[np.uint8]
    labels: Tensor
    partners: Partners
    views: Augment
    seed: int
    own_teacher: nn.Module | None = None
    own_preprocess: Preprocess | None = None


def with_features(model: nn.Module, run: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """(features, logits) of `model`, which `run` calls once: the features are what its classifier (before dropout) reads."""
    seen: list[Tensor] = []
    names = dict(model.named_modules())
    wanted = getattr(model, "FEATURES", None)
    module = names[wanted if wanted in names else classifier_of(model)]
    handle = module.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        logits = run()
    finally:
        handle.remove()
    return seen[0].float(), logits.float()


def feature_width(model: nn.Module) -> int:
    """How many features a network has."""
    linear: Any = model.get_submodule(classifier_of(model))
    return int(linear.in_features)


def align_mlp(width: int, target: int) -> nn.Sequential:
    """Three linear layers with ReLU between them, from a student's features to the width of its teacher's."""
    return nn.Sequential(nn.Linear(width, target), nn.ReLU(), nn.Linear(target, target), nn.ReLU(), nn.Linear(target, target))


def make_optimiser(model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """SGD or AdamW as the stage says; an online teacher keeps the peak rate."""
    assert isinstance(stage, EyeStage)
    online = model.teacher if isinstance(model, Pair) else None
    teacher = [] if online is None else list(online.parameters())
    taken = {id(p) for p in teacher}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if stage.decay_all or p.ndim > 1], "weight_decay": stage.decay, "part": "all"},
        {"params": [p for p in rest if not stage.decay_all and p.ndim <= 1], "weight_decay": 0.0, "part": "all"},
        {"params": teacher, "weight_decay": stage.decay, "part": CONSTANT},
    ]
    groups = [group for group in groups if group["params"]]
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=stage.lr, momentum=stage.momentum)
    return torch.optim.AdamW(groups, lr=stage.lr)


def map_of(
    logits: Tensor, truth: npt.NDArray[np.bool_], eyes: Sequence[str], patients: Sequence[str | None], label: str
) -> float | None:
    """mAP over eyes (largest score of an eye's images) of logits [N, K]."""
    found = by_eye(sigmoid(logits.double().numpy()), truth, eyes, patients, label=label)
    return mean_ap(found.scores, found.truth)


def judge_by(known: tuple[list[str], list[str | None], str]) -> Judge:
    """The epoch with the largest mAP over eyes; nearly equal ones are told apart by the loss."""
    eyes, patients, label = known

    def judge(_stage: Stage, logits: Tensor, labels: Sequence[Any], _train: Sequence[Any]) -> Judgement:
        targets = torch.stack(list(labels))
        loss = float(functional.binary_cross_entropy_with_logits(logits, targets))
        accuracy = float(((logits > 0) == (targets > 0)).double().mean())
        found = map_of(logits, targets.numpy() > 0, eyes, patients, label) or 0.0
        criterion = (1 - found) + 1e-6 * min(loss, 100.0)
        return Judgement(loss, accuracy, criterion, {"val_map": found, CRITERION: criterion})

    return judge


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    return ((logits.detach() > 0) == (labels > 0)).float().mean()


def teacher_ways(judge: Judge) -> Ways:
    """Binary cross-entropy on the labels, mean over images and classes."""

    def step(forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = forward(batch.inputs)
        loss = functional.binary_cross_entropy_with_logits(logits, batch.labels)
        return loss, {"acc": _right(logits, batch.labels)}

    return Ways(make_optimiser, step, judge)


def student_ways(pair: Pair, lesson: Lesson, data: Data, judge: Judge) -> Ways:
    """BCE + CPM + CSA against a label-matched image of the other modality; BCE of an online teacher; mutual learning."""
    how, bce = lesson.how, functional.binary_cross_entropy_with_logits
    own_view = None
    if lesson.own_teacher is not None and lesson.own_preprocess is not None:
        own_view = SameView(lesson.own_teacher, data.preprocess, lesson.own_preprocess).eval()

    def step(forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        student, labels = pair.student, batch.labels
        chosen, matched = lesson.partners.draw(lesson.seed, batch.epoch, batch.indices)
        theirs = lesson.labels[chosen].to(labels)
        x = _partner_views(lesson, chosen, batch)
        features, logits = with_features(student, lambda: forward(batch.inputs))
        value = bce(logits, labels)
        parts = {"bce": value.detach(), "acc": _right(logits, labels)}
        if pair.teacher is not None:
            pair.teacher.train()
            learned = bce(pair.teacher(x), theirs)
            value, parts["teacher"] = value + learned, learned.detach()
        if batch.epoch >= how.start:
            target = Side(*_targets(pair.teacher or lesson.teacher, x, how.targets), theirs)
            mine = Side(pair.align(features), logits, labels)
            cpm, csa = cross_modal(mine, target, how.temperature, how.alpha, how.beta)
            value = value + cpm + csa
            parts |= {"cpm": cpm.detach(), "csa": csa.detach()}
        if pair.peer is not None and pair.peer_align is not None:
            more, found = _peer_loss(pair, lesson, own_view, (batch.inputs, x), (labels, theirs), logits, matched)
            value, parts = value + more, {**parts, **found}
        return value, parts

    return Ways(make_optimiser, step, judge)


def _partner_views(lesson: Lesson, chosen: Sequence[int], batch: Batch) -> Tensor:
    """Augmented, normalised images of the other modality."""
    images = torch.from_numpy(np.stack([lesson.images[i] for i in chosen])).to(batch.inputs.device)
    uniform = torch.from_numpy(draw(lesson.seed ^ SALT, batch.epoch, np.asarray(batch.indices)))
    return network_input(augment(images, uniform, lesson.views), lesson.preprocess)


@torch.no_grad()
def _targets(teacher: nn.Module, x: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    teacher.train(mode == "train")
    return with_features(teacher, lambda: teacher(x))


def _peer_loss(
    pair: Pair,
    lesson: Lesson,
    own_view: nn.Module | None,
    inputs: tuple[Tensor, Tensor],
    labels: tuple[Tensor, Tensor],
    logits: Tensor,
    matched: Sequence[bool],
) -> tuple[Tensor, dict[str, Tensor]]:
    """The second student's own loss on the partner's image, and what both students learn from each other."""
    how, peer = lesson.how, pair.peer
    assert peer is not None
    assert pair.peer_align is not None
    own, theirs = labels
    features, answers = with_features(peer, lambda: peer(inputs[1]))
    value = functional.binary_cross_entropy_with_logits(answers, theirs)
    if own_view is not None and lesson.own_teacher is not None:
        with torch.no_grad():
            target = Side(*with_features(lesson.own_teacher, lambda: own_view(inputs[0])), own)
        cpm, csa = cross_modal(Side(pair.peer_align(features), answers, theirs), target, how.temperature, how.alpha, how.beta)
        value = value + cpm + csa
    fits = torch.tensor(matched, device=logits.device)
    mutual = mutual_divergence(logits, answers, fits) + mutual_divergence(answers, logits, fits)
    return value + how.mutual * mutual, {"peer": value.detach(), "mutual": mutual.detach()}
