"""The loss of distillation, and the learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def soft_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over the batch. Logits [N, K] -> scalar (Hinton 2015)."""
    return temperature**2 * functional.kl_div(
        functional.log_softmax(student / temperature, dim=1),
        functional.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def learning_rate(done: float, total: float, warmup: float, floor: float) -> float:
    """Factor in (0, 1]: linear warm-up, then a cosine from 1 to `floor`.

    Args:
        done: epochs done (may be a fraction). total, warmup: epochs. floor: last factor.
    """
    if done < warmup:
        return max(done, 1e-3) / warmup
    share = min(1.0, (done - warmup) / max(total - warmup, 1e-9))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))
