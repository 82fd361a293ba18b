"""The input of a network from training images: augmented by its stage's ranges or pipeline, and normalised."""

from __future__ import annotations

import torch

from octc.imaging.preprocess import Preprocess
from octc.train.batches.augment import augment, draw
from octc.train.batches.pipelines import picture_views
from octc.train.loop.evaluate import network_input
from octc.train.recipes.config import Stage


def training_views(
    images: torch.Tensor, indices: torch.Tensor, stage: Stage, pre: Preprocess, seed: int, epoch: int
) -> torch.Tensor:
    """Augmented, normalised input [N, 3, size, size] of training images uint8 [N, C, side, side] with these indices."""
    if stage.views:
        return network_input(picture_views(images, indices, stage, seed, epoch), pre)
    uniform = torch.from_numpy(draw(seed, epoch, indices.cpu().numpy()))
    return network_input(augment(images, uniform, stage.augment), pre)
