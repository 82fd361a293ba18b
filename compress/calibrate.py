"""Calibration: ranges of the activations from images of the training part, by one of several observers.

Two passes, so that nothing is drawn at random: the largest magnitude of each tensor, then a histogram of magnitudes up to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from octc.compress.fake_quant import BINS, ActivationQuantiser
from octc.compress.placement import quantisers, set_mode
from octc.errors import OctcError

PERCENTILE = 99.99
LEVELS = 127


def observe(module: nn.Module, batches: Callable[[], Iterable[torch.Tensor]]) -> None:
    """Run the images (normalised float [N, 3, H, W]) twice and keep range and histogram in each quantiser.

    Raises:
        OctcError: E214 no images, E701 an activation that is not finite.
    """
    module.eval()
    for quantiser in quantisers(module).values():
        quantiser.amax = 0.0
        quantiser.histogram.zero_()
    seen = 0
    with torch.no_grad():
        for mode in ("range", "histogram"):
            set_mode(module, mode)
            for batch in batches():
                module(batch)
                seen += len(batch)
            set_mode(module, "off")
            if seen == 0:
                raise OctcError("OCT-E214", "no calibration images", mend="give the calibration images of the training part")
            for name, quantiser in quantisers(module).items():
                if not math.isfinite(quantiser.amax):
                    text = f"activation {name} is not finite in calibration"
                    raise OctcError("OCT-E701", text, mend="train the student again", place=name)


def set_ranges(module: nn.Module, observer: str) -> None:
    """Scales from what was observed: "max", "percentile" (99.99) or "mse" (least squared error of the codes).

    A tensor that stayed zero gets a scale of 1 / 127: zero is exact on every grid.
    """
    for quantiser in quantisers(module).values():
        top = OBSERVERS[observer](quantiser) if quantiser.amax > 0 else 1.0
        quantiser.scale.fill_(max(top, 1e-6) / LEVELS)


def _max(quantiser: ActivationQuantiser) -> float:
    return quantiser.amax


def _percentile(quantiser: ActivationQuantiser) -> float:
    share = torch.cumsum(quantiser.histogram, 0) / quantiser.histogram.sum()
    return float(torch.searchsorted(share, PERCENTILE / 100) + 1) * quantiser.amax / BINS


def _mse(quantiser: ActivationQuantiser) -> float:
    """The clipping value, of 1 % steps, whose 8-bit codes have the least squared error on the histogram."""
    centres = (torch.arange(BINS, dtype=torch.float64) + 0.5) * quantiser.amax / BINS
    best, best_error = quantiser.amax, float("inf")
    for percent in range(30, 101):
        top = quantiser.amax * percent / 100
        step = top / LEVELS
        codes = torch.clamp(torch.round(centres / step), max=LEVELS)
        error = float(((centres - codes * step) ** 2 * quantiser.histogram).sum())
        if error < best_error:
            best, best_error = top, error
    return best


OBSERVERS: dict[str, Callable[[ActivationQuantiser], float]] = {"max": _max, "percentile": _percentile, "mse": _mse}
