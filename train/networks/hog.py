"""HOG and a linear SVM as a network: the descriptor has no parameters, the SVM is its last layer.

So it is trained by scikit-learn (train/networks/svm.py), and stored, evaluated and compared like every other network.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

ORIENTATIONS, CELL, BLOCK = 9, 16, 2
EPS, CLIP = 1e-5, 0.2
GREY = (0.299, 0.587, 0.114)


def hog(images: torch.Tensor) -> torch.Tensor:
    """Histogram of oriented gradients [N, F] of grey images [N, H, W] (Dalal and Triggs 2005), as scikit-image computes it.

    Central differences, zero at the border; unsigned directions in 9 bins without interpolation; cells of 16 x 16 pixels
    (mean magnitude); overlapping blocks of 2 x 2 cells with L2-Hys norm. F = 6084 at 224 px.
    """
    rows, columns = torch.zeros_like(images), torch.zeros_like(images)
    rows[:, 1:-1] = images[:, 2:] - images[:, :-2]
    columns[:, :, 1:-1] = images[:, :, 2:] - images[:, :, :-2]
    magnitude = torch.sqrt(rows**2 + columns**2)  # torch.hypot has no ONNX operator
    degrees = torch.remainder(torch.rad2deg(torch.atan2(rows, columns)), 180.0)
    place = (degrees / (180.0 / ORIENTATIONS)).floor().long() % ORIENTATIONS  # 180 itself, by rounding, is 0
    parts = functional.one_hot(place, ORIENTATIONS).to(images.dtype) * magnitude[..., None]
    cells = functional.avg_pool2d(parts.permute(0, 3, 1, 2), CELL)  # [N, 9, h, w]
    blocks = cells.unfold(2, BLOCK, 1).unfold(3, BLOCK, 1)  # [N, 9, h - 1, w - 1, 2, 2]
    blocks = blocks.permute(0, 2, 3, 4, 5, 1).flatten(3)
    blocks = _unit(_unit(blocks).clamp_max(CLIP))
    return blocks.flatten(1)


def _unit(blocks: torch.Tensor) -> torch.Tensor:
    return blocks / torch.sqrt((blocks**2).sum(-1, keepdim=True) + EPS**2)


def hog_length(size: int) -> int:
    """Number of features of a square image."""
    blocks = size // CELL - BLOCK + 1
    return blocks * blocks * BLOCK * BLOCK * ORIENTATIONS


class HogSvm(nn.Module):
    """[N, 3, S, S] -> margins of the one-against-rest SVMs [N, K]; the largest is the prediction, no probability."""

    def __init__(self, classes: int, size: int = 224) -> None:
        super().__init__()
        self.head = nn.Linear(hog_length(size), classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """HOG [N, F] of [N, 3, S, S]."""
        weights = torch.tensor(GREY, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
        return hog((x * weights).sum(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        margins: torch.Tensor = self.head(self.features(x))
        return margins
