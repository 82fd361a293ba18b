"""Cross-modal distillation as pure functions: class prototypes, their matching (CPM), class similarity (CSA), mutual learning.

From the formulas of FDDM (MICCAI 2023) and QD-RetNet (MIUA 2025). FDDM (fundus teacher, OCT student) and ODDM (the reverse)
are the same loss. An empty set of classes, and an empty half of the features, give zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

Tensor = torch.Tensor


@dataclass(frozen=True)
class Side:
    """One network on its own batch: features [B, D] (a student's are aligned), logits [B, K], labels 0 or 1 [B, K]."""

    features: Tensor
    logits: Tensor
    labels: Tensor


def class_set(student: Tensor, teacher: Tensor) -> Tensor:
    """Indices of the classes that have a positive in both label matrices [B, K]; may be empty."""
    return torch.nonzero((student > 0).any(0) & (teacher > 0).any(0)).flatten()


def prototypes(values: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
    """Mean of the values [B, D] over the images of each class: [C, D]. Every class has a positive."""
    weights = labels[:, classes].to(values.dtype).T
    return weights @ values / weights.sum(1, keepdim=True)


def row_divergence(student: Tensor, teacher: Tensor, temperature: float, weight: float) -> Tensor:
    """weight * T^2 * mean over rows [R, D] of KL(softmax(teacher / T) || softmax(student / T)); zero where one is empty."""
    if student.numel() == 0:
        return student.new_zeros(())
    own, other = (functional.log_softmax(values / temperature, dim=1) for values in (student, teacher))
    return weight * temperature**2 * functional.kl_div(own, other, reduction="batchmean", log_target=True)


def major_dims(prototype: Tensor) -> Tensor:
    """Boolean [D]: dimensions whose mean over the prototypes [C, D] is above the mean of these means. The student's decide."""
    means = prototype.mean(0)
    return means > means.mean()


def prototype_matching(student: Tensor, teacher: Tensor, temperature: float, alpha: float) -> Tensor:
    """CPM of prototypes [C, D]: the divergence of the major dimensions plus that of the minor ones."""
    major = major_dims(student)
    halves = (major, ~major)
    parts = [row_divergence(student[:, half], teacher[:, half], temperature, alpha) for half in halves]
    return parts[0] + parts[1]


def similarities(logits: Tensor) -> Tensor:
    """Cosine similarity of the rows [C, K] with each other: [C, C]."""
    rows = functional.normalize(logits, dim=1)
    return rows @ rows.T


def similarity_alignment(student: Tensor, teacher: Tensor, temperature: float, beta: float) -> Tensor:
    """CSA of the mean logits of each class [C, K]; zero for one class."""
    return row_divergence(similarities(student), similarities(teacher), temperature, beta)


def cross_modal(student: Side, teacher: Side, temperature: float, alpha: float, beta: float) -> tuple[Tensor, Tensor]:
    """(CPM, CSA) of a student's batch against a teacher's batch of the other modality. Gradients reach the student alone."""
    classes = class_set(student.labels, teacher.labels)
    if len(classes) == 0:
        zero = student.features.new_zeros(())
        return zero, zero
    other = Side(teacher.features.detach(), teacher.logits.detach(), teacher.labels)
    feature, logit = (
        (prototypes(a, student.labels, classes), prototypes(b, other.labels, classes))
        for a, b in ((student.features, other.features), (student.logits, other.logits))
    )
    return prototype_matching(*feature, temperature, alpha), similarity_alignment(*logit, temperature, beta)


def mutual_divergence(own: Tensor, other: Tensor, matched: Tensor) -> Tensor:
    """Mean over the matched pairs and the classes of KL(Bernoulli(other) || Bernoulli(own)), from logits [B, K].

    Deep mutual learning for labels that do not exclude each other (a softmax over them has no meaning). No gradient reaches
    `other`. matched: boolean [B], the pairs whose images have the same labels; zero without any.
    """
    if not bool(matched.any()):
        return own.new_zeros(())
    mine, theirs = own[matched], other[matched].detach()
    p = torch.sigmoid(theirs)
    kl = p * (functional.logsigmoid(theirs) - functional.logsigmoid(mine))
    kl = kl + (1 - p) * (functional.logsigmoid(-theirs) - functional.logsigmoid(-mine))
    return kl.mean()
