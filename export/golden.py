"""Golden images: training images of every class with the logits of the torch network that the file was made from."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image
from torch import nn

from octc.compress.finetune import calibration_indices
from octc.datasets.base import Sample
from octc.datasets.synthetic.bscans import draw_phantom
from octc.imaging.preprocess import Float32, Preprocess, UInt8
from octc.store.artifacts import Golden
from octc.train.loop.evaluate import logits_of

LEAST = 8
SEED = 0x601D
CLEAR = 0.1  # of the mean logit range: a top two closer than this says nothing about agreement


APART = 5  # times as much as their sums rows of percents differ
SUM_AWAY = 2e-3  # of the sum of probabilities: those of a softmax in float16


def are_probabilities(logits: Float32) -> bool:
    """Whether rows [N, K] are what a softmax gives: none is negative, each adds up to 1; or to any one number (percent), where
    rows differ by much more than their sums do. (Logits of a network that learned nothing are all nearly alike.)"""
    sums = logits.sum(axis=1, dtype=np.float64)
    if bool((logits < 0).any()) or not np.isfinite(sums).all():
        return False
    if (np.abs(sums - 1) <= SUM_AWAY).all():
        return True
    total = float(sums.mean())
    away, moved = float(np.abs(sums - total).max()), float(np.ptp(logits, axis=0).max())
    return total > 0 and away <= SUM_AWAY * total and moved > APART * away and moved > 0


def golden_candidates(train: Sequence[Sample], classes: int) -> list[Sample]:
    """Training images of every class to choose golden ones from, the same for every artifact of a split."""
    chosen = calibration_indices([s.label for s in train], 2 * max(LEAST, 2 * classes), SEED)
    return [train[int(i)] for i in chosen]


def choose_golden(labels: Sequence[int], logits: Float32) -> list[int]:
    """Half of the candidates, as many of each class: clear ones first, else those with the widest margin. Indices, sorted.

    Args:
        logits: float32 [N, K] of the float network on the candidates.
    """
    ordered = np.sort(logits, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    clear = margin >= CLEAR * float((ordered[:, -1] - ordered[:, 0]).mean())
    rank = {i: (not clear[i], 0.0 if clear[i] else -float(margin[i]), i) for i in range(len(labels))}
    kept: list[int] = []
    for label in sorted(set(labels)):
        own = sorted((i for i in range(len(labels)) if labels[i] == label), key=rank.__getitem__)
        kept += own[: (len(own) + 1) // 2]
    return sorted(kept)


@cache
def _picture() -> bytes:
    """A PNG file."""
    stream = io.BytesIO()
    draw_phantom("NORMAL", 1, 1).save(stream, format="PNG")
    return stream.getvalue()


def make_golden(reference: nn.Module | None, pre: Preprocess, images: UInt8, logits: Float32 | None = None) -> Golden:
    """Golden record of a reference network; the picture that proves decoding and resizing is a drawn one.

    Args:
        logits: float32 [N, K] of the images where the reference is no torch network (it may be None then).
    """
    data = _picture()
    source = pre.prepare(Image.open(io.BytesIO(data)))
    if logits is None:
        assert reference is not None  # one of the two is given
        logits = logits_of(reference, images, pre, "cpu", batch=8).numpy()
    return Golden(images, logits, np.frombuffer(data, dtype=np.uint8), source)
