"""SFNet: ConvNeXt-Tiny stages behind squeeze-and-excitation, fused with the next stage, max-pooled (compared in KD-OCT)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from octc.train.networks.trunk import convnext_levels, make_trunk

WIDTH = 384
SQUEEZE = 16


class Excitation(nn.Module):
    """Squeeze-and-excitation weights of a map [N, C, H, W]: [N, C, 1, 1] in (0, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Linear(channels, channels // SQUEEZE, bias=False)
        self.up = nn.Linear(channels // SQUEEZE, channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = torch.sigmoid(self.up(functional.relu(self.down(x.mean((2, 3))))))
        return weights[:, :, None, None]


class SfNet(nn.Module):
    """[N, 3, H, W] -> logits [N, K]. Each sum sees the raw next stage alone; this is no top-down cascade.

    The released code runs the next stage's conv and norm twice a step; here the map is used again.
    """

    def __init__(self, classes: int, trunk: str = "convnext_tiny", drop_rate: float = 0.3, **kwargs: Any) -> None:
        super().__init__()
        self.trunk = make_trunk(trunk, **kwargs)
        widths = [int(info["num_chs"]) for info in self.trunk.feature_info]
        self.excite = nn.ModuleList(Excitation(width) for width in widths)
        self.adapt = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH)) for width in widths
        )
        self.head = nn.Sequential(
            nn.Dropout(drop_rate),
            nn.Linear(WIDTH * len(widths), 512),
            nn.LayerNorm(512),
            nn.GELU(),
            nn.Dropout(drop_rate / 2),
            nn.Linear(512, classes),
        )
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the trunk's activations twice instead of keeping them."""
        self.trunk.set_grad_checkpointing(enable)

    def read_out(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The attention read-out: excitation weights [N, C] of each stage, in (0, 1)."""
        levels = convnext_levels(self.trunk, x)
        return [excite(level).flatten(1) for excite, level in zip(self.excite, levels, strict=True)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = convnext_levels(self.trunk, x)
        scaled = [level * excite(level) for excite, level in zip(self.excite, levels, strict=True)]
        maps = [adapt(level) for adapt, level in zip(self.adapt, scaled, strict=True)]
        fused = [
            own + functional.interpolate(following, size=own.shape[2:], mode="bilinear", align_corners=False)
            for own, following in pairwise(maps)
        ]
        pooled = [level.amax((2, 3)) for level in (*fused, maps[-1])]
        logits: torch.Tensor = self.head(torch.cat(pooled, 1))
        return logits
