"""Calibration: ranges of the activations from images of the training part, by one of several observers.

Two passes, so that nothing is drawn at random: the largest magnitude of each tensor, then a histogram of magnitudes up to it.
Names and defaults are those of NVIDIA's pytorch-quantization (`compute_amax`): 2048 bins, percentile 99.99, and searches that
begin at bin 128 in steps of one. Where that library takes the lower edge of the percentile's bin, the upper one is taken here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from octc.compress.fake_quant import BINS, ActivationQuantiser
from octc.compress.placement import quantisers, set_mode
from octc.core.errors import OctcError

PERCENTILE = 99.99
LEVELS = 127  # of INT8 on either side of zero, which is a level itself
FIRST = 128  # bins below which nothing is clipped


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
                raise OctcError("OCT-E214", "no calibration images", hint="give the calibration images of the training part")
            for name, quantiser in quantisers(module).items():
                if not math.isfinite(quantiser.amax):
                    text = f"activation {name} is not finite in calibration"
                    raise OctcError("OCT-E701", text, hint="train the student again", place=name)


def set_ranges(module: nn.Module, observer: str) -> None:
    """Set the scales from the observed ranges and histograms, by one of `OBSERVERS`.

    max         the largest magnitude
    percentile  the magnitude below which 99.99 % lie
    entropy     the clipping value whose 128 levels keep most of the distribution (least Kullback-Leibler divergence)
    mse         the clipping value whose codes have the least squared error

    A tensor that stayed zero gets a scale of 1 / 127: zero is exact on every grid.

    Raises:
        OctcError: E104 an observer that is not one of these.
    """
    if observer not in OBSERVERS:
        raise OctcError("OCT-E104", f"unknown calibrator {observer!r}", hint=f"one of: {', '.join(OBSERVERS)}")
    for quantiser in quantisers(module).values():
        top = OBSERVERS[observer](quantiser) if quantiser.amax > 0 else 1.0
        quantiser.scale.detach().fill_(max(top, 1e-6) / LEVELS)


def _max(quantiser: ActivationQuantiser) -> float:
    return quantiser.amax


def _percentile(quantiser: ActivationQuantiser) -> float:
    share = torch.cumsum(quantiser.histogram, 0) / quantiser.histogram.sum()
    return float(torch.searchsorted(share, PERCENTILE / 100) + 1) * quantiser.amax / BINS


def _mse(quantiser: ActivationQuantiser) -> float:
    """The bin centre whose 8-bit codes have the least squared error on the histogram."""
    errors = _squared_errors() @ quantiser.histogram
    return (FIRST + int(errors.argmin()) + 0.5) * quantiser.amax / BINS


@cache
def _squared_errors() -> torch.Tensor:
    """Of every bin centre (a column) when the range ends at each centre from `FIRST` on (a row), in bins squared: float64
    [BINS - FIRST, BINS], 30 MiB, the same for every tensor."""
    centres = torch.arange(BINS, dtype=torch.float64) + 0.5
    steps = (centres[FIRST:] / LEVELS)[:, None]
    codes = torch.clamp(torch.round(centres / steps), max=LEVELS)
    return (centres - codes * steps) ** 2


def _entropy(quantiser: ActivationQuantiser) -> float:
    """The number of bins, from 128 on, whose merging into 128 levels diverges least from the clipped histogram.

    p: the first `kept` bins, with all that lies beyond counted in the last of them. q: every level's counts spread evenly over
    its filled bins. KL(p || q) = sum p log p - sum p log q, and q is the same in a whole level, so that sums of levels do.
    The first bin, which holds the zeros of a ReLU, counts as the second does. Of equal divergences the widest range is taken.
    """
    counts = quantiser.histogram.numpy().copy()
    counts[0] = counts[1]
    filled = counts > 0
    sums, fills = (np.concatenate([[0.0], np.cumsum(values)]) for values in (counts, filled))
    if not sums[-1]:  # everything lies in the first bin
        return quantiser.amax
    kept = np.arange(FIRST, BINS + 1)
    edges = -(-np.arange(FIRST + 1) * kept[:, None] // FIRST)  # where each level begins
    level, width = np.diff(sums[edges], axis=1), np.diff(fills[edges], axis=1)
    beyond = sums[-1] - sums[kept]
    last = counts[kept - 1] + beyond
    own = np.concatenate([[0.0], np.cumsum(_xlogx(counts))])[kept - 1] + _xlogx(last)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.where(width > 0, np.log(level / width / sums[kept][:, None]), 0.0)
        level[:, -1] += beyond
        divergence = (own - (level * log_q).sum(axis=1)) / sums[-1] - np.log(sums[-1])
    possible = (last == 0) | filled[kept - 1]
    divergence = np.where(possible & np.isfinite(divergence), divergence, np.inf)
    best = kept[len(kept) - 1 - int(np.argmin(divergence[::-1]))]
    return float(best) * quantiser.amax / BINS


def _xlogx(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(values > 0, values * np.log(np.maximum(values, 1e-300)), 0.0)


OBSERVERS: dict[str, Callable[[ActivationQuantiser], float]] = {
    "max": _max,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
