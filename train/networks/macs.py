"""Multiply-accumulates of one image through a network."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_macs(model: nn.Module, size: int) -> int:
    """MACs of the convolutions, linear layers and attention of one [1, 3, size, size] input; works on the meta device."""
    return int(_counted(model, size).get_total_flops()) // 2


def layer_macs(model: nn.Module, size: int) -> dict[str, int]:
    """The same for each module that has any, by its name: those of a block are the sum of its layers'."""
    found = _counted(model, size).get_flop_counts()
    whole = type(model).__name__
    return {
        name.removeprefix(f"{whole}."): sum(each.values()) // 2 for name, each in found.items() if name.startswith(f"{whole}.")
    }


def _counted(model: nn.Module, size: int) -> FlopCounterMode:
    device = next(model.parameters()).device
    trained, learned = model.training, [one for one in model.parameters() if one.requires_grad]
    model.eval()
    counter = FlopCounterMode(display=False)
    for one in learned:  # the counter minds gradients of what is passed to a module, without them too
        one.requires_grad_(False)
    try:
        with torch.no_grad(), counter:
            model(torch.zeros(1, 3, size, size, device=device))
    finally:
        for one in learned:
            one.requires_grad_(True)
        model.train(trained)
    return counter
