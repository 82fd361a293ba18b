"""Parts of a mask that hang together with its border."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from octc.core.grouping import roots_of

Mask = npt.NDArray[np.bool_]


def border_parts(mask: Mask, least: int) -> Mask:
    """The parts of a mask, connected by their sides, that touch the border and have at least so many places.

    Runs of places in a row are joined with those that lie below them (union-find), so that the work is that of the runs.
    """
    height, width = mask.shape
    wide = np.zeros((height, width + 2), np.int8)  # no run goes over the end of a row
    wide[:, 1:-1] = mask
    step = np.diff(wide.ravel())
    first, last = np.flatnonzero(step > 0) + 1, np.flatnonzero(step < 0) + 1
    if not len(first):
        return np.zeros_like(mask)
    below = np.searchsorted(last, first + width + 2, side="right"), np.searchsorted(first, last + width + 2)
    starts, stops = (one.tolist() for one in below)
    touch = ((run, other) for run, (start, stop) in enumerate(zip(starts, stops, strict=True)) for other in range(start, stop))
    roots = np.array(roots_of(len(first), touch), np.intp)
    size = np.bincount(roots, last - first, len(roots))
    column, row = first % (width + 2), first // (width + 2)
    touching = (row == 0) | (row == height - 1) | (column == 1) | (last % (width + 2) == width + 1)
    kept = ((np.bincount(roots, touching, len(roots)) > 0) & (size >= least))[roots]
    wide = np.zeros_like(wide)
    wide.ravel()[first[kept]] = 1
    wide.ravel()[last[kept]] -= 1
    return np.cumsum(wide.ravel(), dtype=np.int8).reshape(wide.shape)[:, 1:-1].astype(np.bool_)
