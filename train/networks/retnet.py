"""QD-RetNet's network: it keeps its ImageNet classifier, whose 1000 outputs are the features, with a new classifier on top."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

WIDTH = 1000  # outputs of the classifier that is kept


class KeptClassifier(nn.Module):
    """[N, 3, H, W] -> logits [N, K]: trunk with its classifier -> features [N, 1000] -> Dropout -> Linear."""

    FEATURES = "drop"  # the module whose input is the features

    def __init__(self, trunk: str, classes: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.trunk: Any = timm.create_model(trunk, pretrained=False, num_classes=WIDTH)
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.drop(self.trunk(x)))
        return logits
