"""Multiply-accumulates of one image through a network."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_macs(model: nn.Module, size: int) -> int:
    """MACs of the convolutions, linear layers and attention of one [1, 3, size, size] input; works on the meta device."""
    device = next(model.parameters()).device
    trained = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, size, size, device=device))
    model.train(trained)
    return int(counter.get_total_flops()) // 2
