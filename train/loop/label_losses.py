"""Losses on labels: cross-entropy, focal loss in its textbook and its KD-OCT form, class weights.

Check values of every formula stand in tests/train/test_focal.py. Targets are class indices [N] or, where labels are
mixed (train/batches/mix.py), probabilities [N, K]; each loss is linear in them, so a mixed target is the mix of both losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from octc.train.recipes.config import Objective

Tensor = torch.Tensor
Loss = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


def balanced_weights(labels: Sequence[int], classes: int) -> Tensor:
    """N / (K n_c), float64 [K]; a class without images gets 0."""
    counts = torch.bincount(torch.as_tensor(list(labels)), minlength=classes).double()
    return torch.where(counts > 0, counts.sum() / (classes * counts.clamp_min(1)), 0.0)


def inverse_weights(labels: Sequence[int], classes: int) -> Tensor:
    """K (1 / (n_c + 1e-6)) / sum_j 1 / (n_j + 1e-6), float64 [K]: mean 1 (SFNet's). A class without images gets 0."""
    counts = torch.bincount(torch.as_tensor(list(labels)), minlength=classes).double()
    inverse = torch.where(counts > 0, 1 / (counts + 1e-6), 0.0)
    return inverse * (classes / inverse.sum())


WEIGHTS: dict[str, Callable[[Sequence[int], int], Tensor]] = {"balanced": balanced_weights, "inverse": inverse_weights}


def class_weights(kind: str, labels: Sequence[int], classes: int) -> Tensor | None:
    """Weights of the training labels, or None for "none"."""
    return None if kind == "none" else WEIGHTS[kind](labels, classes)


def as_probabilities(targets: Tensor, classes: int) -> Tensor:
    """Indices [N] or probabilities [N, K] -> probabilities [N, K]."""
    return targets if targets.ndim == 2 else functional.one_hot(targets, classes)


def smoothed(targets: Tensor, smoothing: float) -> Tensor:
    """Probabilities [N, K]: 1 - e on the true class, e / (K - 1) on each other one (not PyTorch's e / K)."""
    return targets * (1 - smoothing) + (1 - targets) * smoothing / (targets.shape[1] - 1)


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """PyTorch's, and its weighted mean (sum of w ce / sum of w) for probabilities as well, where PyTorch divides by N."""
    if weights is None:
        return functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    if targets.ndim == 1:
        return functional.cross_entropy(logits, targets, weight=weights.to(logits), label_smoothing=smoothing)
    q = targets * (1 - smoothing) + smoothing / targets.shape[1]
    weighted = targets * weights.to(logits)
    return -(q * weights.to(logits) * functional.log_softmax(logits, 1)).sum() / weighted.sum()


def focal(logits: Tensor, targets: Tensor, weights: Tensor | None = None, gamma: float = 2.0) -> Tensor:
    """Textbook form: mean of w_y (1 - p_y)^gamma (-log p_y). Lin et al. 2017."""
    return focal_each(logits, targets, weights, gamma).mean()


def focal_each(logits: Tensor, targets: Tensor, weights: Tensor | None, gamma: float) -> Tensor:
    """The textbook form of each sample [N]."""
    logs = functional.log_softmax(logits, 1)
    terms = -((1 - logs.exp()) ** gamma) * logs
    return (as_probabilities(targets, logits.shape[1]) * (terms if weights is None else terms * weights.to(logits))).sum(1)


def focal_seed(logits: Tensor, targets: Tensor, weights: Tensor | None = None, gamma: float = 2.0) -> Tensor:
    """KD-OCT's form: ce = -w_y log p_y; mean of (1 - exp(-ce))^gamma ce. The weight acts inside p_t too."""
    return focal_seed_each(logits, targets, weights, gamma).mean()


def focal_seed_each(logits: Tensor, targets: Tensor, weights: Tensor | None, gamma: float) -> Tensor:
    """KD-OCT's form of each sample [N]."""
    entropy = -functional.log_softmax(logits, 1)
    if weights is not None:
        entropy = entropy * weights.to(logits)
    return (as_probabilities(targets, logits.shape[1]) * (1 - torch.exp(-entropy)) ** gamma * entropy).sum(1)


def entropy_and_focal(logits: Tensor, targets: Tensor, weights: Tensor | None, gamma: float, smoothing: float) -> Tensor:
    """MedSigLIP's: 0.7 smoothed cross-entropy + 0.3 focal; mixed targets have the first part alone, whole."""
    q = smoothed(as_probabilities(targets, logits.shape[1]).to(logits), smoothing)
    entropy = -(q * functional.log_softmax(logits, 1)).sum(1).mean()
    return entropy if targets.ndim == 2 else 0.7 * entropy + 0.3 * focal(logits, targets, weights, gamma)


def objective(how: Objective, logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """The training loss of logits [N, K], a scalar. Label smoothing acts on the focal losses' targets as well."""
    if how.kind == "ce":
        return cross_entropy(logits, targets, weights, smoothing)
    if how.kind == "ce+focal":
        return entropy_and_focal(logits, targets, weights, how.gamma, smoothing)
    if smoothing:
        targets = smoothed(as_probabilities(targets, logits.shape[1]).to(logits), smoothing)
    return (focal if how.kind == "focal" else focal_seed)(logits, targets, weights, how.gamma)


def label_loss(how: Objective, smoothing: float, labels: Sequence[int], classes: int) -> Loss:
    """The loss on labels alone, with class weights from the training labels."""
    weights = class_weights(how.weights, labels, classes)

    def loss(logits: Tensor, _x: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return objective(how, logits, targets, weights, smoothing), {}

    return loss
