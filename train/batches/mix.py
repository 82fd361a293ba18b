"""MixUp and CutMix of a batch. The draw depends on (seed, epoch, step, rank) alone, so a resumed run mixes alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from octc.train.recipes.config import Mix


@dataclass(frozen=True)
class Mixing:
    """How one batch is mixed.

    Attributes:
        partner: index [N] of the image that each one is mixed with.
        share: of the image itself; 1 - share is its partner's.
        box: rows and columns (y0, y1, x0, x1) that CutMix takes from the partner; None for MixUp.
    """

    partner: tuple[int, ...]
    share: float
    box: tuple[int, int, int, int] | None


def draw_mixing(how: Mix, key: tuple[int, int, int, int], count: int, size: int) -> Mixing | None:
    """Draw for a batch of `count` images of side `size`; None: this batch is not mixed. key: seed, epoch, step, rank."""
    rng = np.random.default_rng([*key, 0x3313])
    if not how.on or rng.random() >= how.prob:
        return None
    cut = how.cutmix > 0 and (how.mixup == 0 or rng.random() < how.switch)
    alpha = how.cutmix if cut else how.mixup
    share = float(rng.beta(alpha, alpha))
    box = None
    if cut:
        side = int(size * np.sqrt(1 - share))
        y, x = (int(v) for v in rng.integers(0, size, 2))
        box = (max(y - side // 2, 0), min(y + side // 2, size), max(x - side // 2, 0), min(x + side // 2, size))
        share = 1 - (box[1] - box[0]) * (box[3] - box[2]) / size**2  # what was really cut off
    backwards = np.arange(count)[::-1]
    partner = rng.permutation(count) if how.partner == "permutation" else backwards
    return Mixing(tuple(int(i) for i in partner), share, box)


def mix_images(images: torch.Tensor, mixing: Mixing | None) -> torch.Tensor:
    """Images [N, C, H, W], mixed; the input is left as it was."""
    if mixing is None:
        return images
    other = images[list(mixing.partner)]
    if mixing.box is None:
        return torch.lerp(other, images, mixing.share)
    y0, y1, x0, x1 = mixing.box
    mixed = images.clone()
    mixed[:, :, y0:y1, x0:x1] = other[:, :, y0:y1, x0:x1]
    return mixed


def mix_targets(labels: torch.Tensor, mixing: Mixing | None, classes: int) -> torch.Tensor:
    """Labels [N] -> the same where nothing is mixed, else probabilities float32 [N, classes]."""
    if mixing is None:
        return labels
    own = functional.one_hot(labels, classes).float()
    return own * mixing.share + own[list(mixing.partner)] * (1 - mixing.share)
