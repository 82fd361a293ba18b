"""What octc's preprocessing changes of a foreign network's answers, measured on ten pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from octc.imaging.foreign import Foreign
from octc.imaging.preprocess import Float32

PICTURES = 10
Run = Callable[[Float32], Float32]  # normalised float32 [N, 3, S, S] -> logits float32 [N, K]


def measure(foreign: Foreign, pictures: Sequence[Image.Image], run: Run) -> dict[str, Any]:
    """The same pictures prepared as the source states and as octc does.

    Returns: pictures; levels_mean, levels_max: how far the pixels are apart (0 to 255); delta_over_s: the largest difference of
    a logit over the mean range of the logits (None where there is no range); changed: pictures with another class.
    """
    pre = foreign.preprocess
    theirs = np.stack([foreign.picture(one) for one in pictures])
    ours = np.stack([foreign.middle(pre.prepare(one)[0]) for one in pictures])
    away = np.abs(theirs.astype(np.int16) - ours.astype(np.int16))
    before, after = run(foreign.normalised(theirs)), run(foreign.normalised(ours))
    spread = float(np.ptp(before, axis=1).mean())
    return {
        "pictures": len(pictures), "levels_mean": float(away.mean()), "levels_max": int(away.max()),
        "delta_over_s": float(np.abs(before - after).max()) / spread if spread > 0 else None,
        "changed": int((before.argmax(axis=1) != after.argmax(axis=1)).sum()),
    }  # fmt: skip


def words(found: dict[str, Any]) -> str:
    """One line."""
    delta = "n/a" if found["delta_over_s"] is None else f"{found['delta_over_s']:.3g}"
    return (
        f"on {found['pictures']} images pixels differ by {found['levels_mean']:.2f} grey levels on average, logits by up to "
        f"{delta} of their range, {found['changed']} answers are others"
    )
