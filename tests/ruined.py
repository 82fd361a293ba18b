"""A run whose float network is as good as ever and whose INT8 network is not: one layer is ruined on purpose."""

from __future__ import annotations

from dataclasses import replace

import torch

from octc.store.runs import Run
from octc.train.loop.checkpoint import read_checkpoint, write_checkpoint

LAYER = "conv1.3"  # the second convolution of test_resnet's stem: all that is seen goes through it
FACTOR = 3e4


def ruin(run: Run) -> str:
    """Every second channel in front of the layer is made very large, and its weights as much smaller.

    ReLU keeps the float network the same. In INT8 the small channels fall under the step of the activations, and the large
    ones under the step of the weights. Returns the layer's name.
    """
    checkpoint, state = read_checkpoint(run.path / "train")
    changed = {name: tensor.clone() for name, tensor in state.items()}
    channels = torch.arange(0, len(changed["conv1.1.weight"]), 2)
    changed["conv1.1.weight"][channels] *= FACTOR
    changed["conv1.1.bias"][channels] *= FACTOR
    changed[f"{LAYER}.weight"][:, channels] /= FACTOR
    write_checkpoint(run.path / "train", changed, replace(checkpoint, sha256=""))
    return LAYER
