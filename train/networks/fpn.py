"""Feature-pyramid classifiers: FPN-VGG16, FPN-DenseNet121, FPN-ResNet50 (the NEH data set's authors, 2022).

Written from the description of the networks that KD-OCT was compared with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from octc.train.networks.trunk import Levels, make_trunk

WIDTH = 256


def _smoothing() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU())


class Pyramid(nn.Module):
    """Five levels meet top-down, each is pooled, and a small head reads them all. [N, 3, H, W] -> logits [N, K].

    widths: channels of the levels, strides 2 to 32. H and W must be multiples of 32.
    """

    def __init__(self, classes: int, trunk: str, levels: Levels, widths: Sequence[int], drop_rate: float = 0.5) -> None:
        super().__init__()
        self.levels = levels
        self.trunk = make_trunk(trunk)
        self.lateral = nn.ModuleList(nn.Sequential(nn.Conv2d(width, WIDTH, 1), nn.ReLU()) for width in widths)
        self.smooth = nn.ModuleList(_smoothing() for _ in widths)
        self.head = nn.Sequential(
            nn.Linear(WIDTH * len(widths), 512), nn.ReLU(), nn.Dropout(drop_rate), nn.Linear(512, classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sides = [conv(level) for conv, level in zip(self.lateral, self.levels(self.trunk, x), strict=True)]
        top = sides[-1]
        merged = [top]
        for side in reversed(sides[:-1]):
            top = side + functional.interpolate(top, scale_factor=2.0, mode="nearest")
            merged.append(top)
        pooled = [smooth(level).mean((2, 3)) for smooth, level in zip(reversed(self.smooth), merged, strict=True)]
        logits: torch.Tensor = self.head(torch.cat(pooled, 1))  # P5 first
        return logits
