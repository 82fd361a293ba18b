"""Averages of weights: exponential over steps (EMA), equal over epochs (SWA), and the batch norms of an average."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def average_steps(kept: nn.Module, model: nn.Module, decay: float, step: int, *, warmup: bool = True) -> None:
    """Exponential moving average of weights and buffers; with `warmup` the decay is at most (1 + step) / (10 + step)."""
    rate = 1 - (min(decay, (1 + step) / (10 + step)) if warmup else decay)
    for mean, live in zip(kept.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(live, rate)
        else:
            mean.copy_(live)


@torch.no_grad()
def average_epochs(kept: nn.Module, model: nn.Module, count: int) -> None:
    """Equal-weight mean of `count` models so far, and this one (Izmailov et al. 2018). count 0 copies."""
    for mean, live in zip(kept.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point and count:
            mean.lerp_(live, 1 / (count + 1))
        else:
            mean.copy_(live)


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The norms whose statistics an average of weights leaves wrong."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@torch.no_grad()
def refresh_norms(model: nn.Module, inputs: Iterable[torch.Tensor]) -> None:
    """Compute the running statistics anew over `inputs` [N, 3, H, W], each batch with equal weight. Needed after SWA."""
    norms = batch_norms(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        norm.train()
    for batch in inputs:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
