"""Golden images: training images of every class with the logits of the torch network that the file was made from."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from octc.compress.qat import calibration_indices
from octc.train.data import eval_batches
from octc.train.models import WithInput
from PIL import Image
from torch import nn

from octc.artifact import Golden
from octc.datasets.base import Sample
from octc.datasets.phantom import draw_phantom
from octc.image import Float32, Preprocess, UInt8

LEAST = 8
SEED = 0x601D


def golden_samples(train: Sequence[Sample], classes: int) -> list[Sample]:
    """At least eight training images, two or more of every class, the same ones for every artifact of a split."""
    chosen = calibration_indices([s.label for s in train], max(LEAST, 2 * classes), SEED)
    return [train[int(i)] for i in chosen]


def logits_of(model: nn.Module, pre: Preprocess, images: UInt8, batch: int = 8) -> Float32:
    """Logits float32 [N, K] of a network (normalised input) on prepared images uint8 [N, C, S, S]."""
    wrapped = WithInput(model, pre).cpu().eval()
    with torch.no_grad():
        rows = [wrapped(chunk).float().numpy() for chunk in eval_batches(images, batch)]
    out: Float32 = np.concatenate(rows)
    return out


def make_golden(reference: nn.Module, pre: Preprocess, images: UInt8) -> Golden:
    """Golden record of a reference network; the picture that proves decoding and resizing is a drawn one."""
    picture = draw_phantom("NORMAL", 1, 1)
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    data = stream.getvalue()
    source = pre.prepare(Image.open(io.BytesIO(data)))
    return Golden(images, logits_of(reference, pre, images), np.frombuffer(data, dtype=np.uint8), source)
