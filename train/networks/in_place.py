"""Activations that cost a copy where they work in place."""

from __future__ import annotations

from torch import nn

# their derivative needs the input, so autograd copies what they overwrite: `torch.nn.ReLU` needs its result alone
COPIED = (nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Mish)


def without_copies(net: nn.Module) -> nn.Module:
    """The same network, whose activations write to new memory where that saves a copy in training.

    Values and gradients are the same to the bit (benchmarks/activations.py, which has the times too).
    """
    for module in net.modules():
        if isinstance(module, COPIED):
            module.inplace = False
    return net
