"""Logits of prepared images, in eval mode, on one process or shared out among many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from octc.imaging.preprocess import Preprocess
from octc.train.batches.images import eval_batches
from octc.train.networks.models import normalise


def network_input(images: torch.Tensor, pre: Preprocess) -> torch.Tensor:
    """uint8 or float [N, C, H, W] in 0..255 -> normalised float32 [N, 3, H, W], channels last."""
    return normalise(images, pre).contiguous(memory_format=torch.channels_last)


def answer(model: nn.Module, images: torch.Tensor) -> Any:
    """What a network gives for images, channels last; for such ones channels first whose `view` asks for that order."""
    try:
        return model(images)
    except RuntimeError:
        if images.is_contiguous():
            raise
        return model(images.contiguous())


@torch.inference_mode()
def logits_of(
    model: nn.Module,
    images: npt.NDArray[np.uint8],
    pre: Preprocess,
    device: Any,
    batch: int = 64,
    stop: Callable[[], object] | None = None,
) -> torch.Tensor:
    """Logits float32 [N, K] of prepared images, in eval mode. `stop` is asked between batches; then fewer rows come back."""
    model.eval()
    rows = []
    for chunk in eval_batches(images, batch):
        rows.append(answer(model, network_input(chunk.to(device), pre)).float().cpu())
        if stop is not None and stop():
            break
    return torch.cat(rows)
