"""Timm networks without their classifier, and the five feature levels (strides 2 to 32) that the pyramids read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn

Levels = Callable[[Any, torch.Tensor], list[torch.Tensor]]


def make_trunk(name: str, **kwargs: Any) -> Any:
    """A timm network with random weights whose classifier parts do nothing; the other parameters keep timm's names."""
    network: Any = timm.create_model(name, pretrained=False, **kwargs)
    for part in ("pre_logits", "head", "fc", "classifier"):
        if hasattr(network, part):
            setattr(network, part, nn.Identity())
    return network


def vgg_levels(trunk: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """After each of the five max-pools."""
    levels = []
    for layer in trunk.features:
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            levels.append(x)
    return levels


def densenet_levels(trunk: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Stem, the norm and ReLU at the head of each transition, the last norm and ReLU."""
    levels = []
    for name, layer in trunk.features.named_children():
        if name.startswith("transition"):
            x = layer.norm(x)
            levels.append(x)
            x = layer.pool(layer.conv(x))
        else:
            x = layer(x)
            if name.startswith("norm"):
                levels.append(x)
    return levels


def resnet_levels(trunk: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Stem, and the four stages."""
    x = trunk.act1(trunk.bn1(trunk.conv1(x)))
    levels = [x]
    x = trunk.maxpool(x)
    for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
        x = stage(x)
        levels.append(x)
    return levels


def convnext_levels(trunk: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """The four stages, strides 4 to 32."""
    x = trunk.stem(x)
    levels = []
    for stage in trunk.stages:
        x = stage(x)
        levels.append(x)
    return levels


class Pooled(nn.Module):
    """The last level, global average pool, one Linear: the plain baseline of a trunk. [N, 3, H, W] -> logits [N, K]."""

    def __init__(self, classes: int, trunk: str, levels: Levels, width: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.levels = levels
        self.trunk = make_trunk(trunk)
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.drop(self.levels(self.trunk, x)[-1].mean((2, 3))))
        return logits
