"""The losses of distillation, and the learning-rate schedule. Logits are [N, K]; every loss is a scalar.

Teacher logits get no gradient here: who calls has computed them without.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from octc.train.recipes.config import Distillation

Tensor = torch.Tensor
TINY = 1e-8


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over the batch. Logits [N, K] -> scalar (Hinton 2015)."""
    return temperature**2 * functional.kl_div(
        functional.log_softmax(student / temperature, dim=1),
        functional.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def standardised(logits: Tensor) -> Tensor:
    """Each row less its mean, over its standard deviation (of the K logits, ddof 0): Z(z) of Sun et al., CVPR 2024.

    Teacher and student then need not agree in scale, only in what stands above what, and by how much of it.
    """
    centred = logits - logits.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True).sqrt() + 1e-7)


def pearson_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - Pearson's correlation of each row of [N, M] with the same row of the other: [N]. A constant row has correlation 0."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return 1 - functional.cosine_similarity(a, b, dim=1, eps=TINY)


def dist_loss(student: Tensor, teacher: Tensor, temperature: float, inter: float, intra: float) -> Tensor:
    """DIST (Huang et al., NeurIPS 2022): T^2 * (inter * mean over images + intra * mean over classes of 1 - correlation).

    Of the probabilities at temperature T: along an image's classes, and along a class's images of the batch.
    """
    p, q = functional.softmax(student / temperature, dim=1), functional.softmax(teacher / temperature, dim=1)
    return temperature**2 * (inter * pearson_distance(p, q).mean() + intra * pearson_distance(p.T, q.T).mean())


def dkd_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, target: float, others: float) -> Tensor:
    """Decoupled distillation (Zhao et al., CVPR 2022): T^2 * (target * TCKD + others * NCKD), means over the batch.

    TCKD: KL of (p_true, 1 - p_true). NCKD: KL among the other classes alone, which KL would weigh by the teacher's doubt.
    labels: indices [N].
    """
    true = functional.one_hot(labels, student.shape[1]).bool()
    parts = []
    for logits in (teacher, student):
        logs = functional.log_softmax(logits / temperature, dim=1)
        own, rest = logs[true], torch.logsumexp(logs.masked_fill(true, -math.inf), dim=1)
        other = functional.log_softmax((logits / temperature)[~true].view(len(logits), -1), dim=1)
        parts.append((torch.stack([own, rest], dim=1), other))
    (pair_t, other_t), (pair_s, other_s) = parts
    tckd = functional.kl_div(pair_s, pair_t, reduction="batchmean", log_target=True)
    nckd = functional.kl_div(other_s, other_t, reduction="batchmean", log_target=True)
    return temperature**2 * (target * tckd + others * nckd)


# what Distillation.kind names: (student, teacher, labels, how) -> the loss against the teacher
KINDS: dict[str, Callable[[Tensor, Tensor, Tensor, Distillation], Tensor]] = {
    "kl": lambda s, t, _y, how: soft_loss(s, t, how.temperature),
    "dist": lambda s, t, _y, how: dist_loss(s, t, how.temperature, how.inter, how.intra),
    "dkd": lambda s, t, y, how: dkd_loss(s, t, y, how.temperature, how.target, how.others),
}


def teacher_loss(student: Tensor, teacher: Tensor, labels: Tensor, how: Distillation) -> Tensor:
    """The loss against the teacher that `how` names, of standardised logits where it says so."""
    if how.standardise:
        student, teacher = standardised(student), standardised(teacher)
    return KINDS[how.kind](student, teacher, labels, how)


def learning_rate(done: float, total: float, warmup: float, floor: float) -> float:
    """Factor in (0, 1]: linear warm-up, then a cosine from 1 to `floor`.

    Args:
        done: epochs done (may be a fraction). total, warmup: epochs. floor: last factor.
    """
    if done < warmup:
        return max(done, 1e-3) / warmup
    share = min(1.0, (done - warmup) / max(total - warmup, 1e-9))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))
