"""Is a picture like those that a network was trained on? Sixteen plain statistics and their spread over training images.

A picture is reduced to 128 x 128, white padding at its border is taken away, and what is left is described by brightness,
contrast, colour, the share of its variance that lies between rows (layers) and between columns, the direction and fineness of
its detail, and how well neighbouring and distant columns resemble each other. The Mahalanobis distance of these numbers from
the training images is compared with a limit that held-out training images set. It finds photographs, fundus pictures, text,
noise and plain patterns. It does not find what looks like a B-scan but comes from another scanner, organ or disease, and it
says nothing about whether the label is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float64]

# name -> what it means for people
STATISTICS = {
    "colour": "colour", "mean": "brightness", "p5": "blackest parts", "p50": "middle brightness", "p95": "brightest parts",
    "contrast": "contrast", "rows": "layers across the picture", "columns": "unevenness from left to right",
    "direction": "direction of the detail", "fineness": "fineness of the detail", "ends": "darkness at top and bottom",
    "band": "course of the brightest layer", "jumps": "breaks in the brightest layer", "near": "likeness of close columns",
    "far": "likeness of distant columns", "bright": "area of the bright part",
}  # fmt: skip
SIDE = 128
WHITE, LEAST_WHITE, MOST_WHITE = 0.96, 32, 0.8  # of 1; pixels of a padding; share of the picture beyond which it is no scan
FLOOR = 0.01  # spread that every statistic is granted
SHRINK = 0.2  # of the correlations towards none
FOLDS, QUANTILE, SLACK = 5, 0.99, 1.5  # limit: 1.5 times what 99 % of held-out training images stay below
FEWEST = 24


@dataclass(frozen=True)
class InputStatistics:
    """What training images look like: of the 16 statistics the mean, the spread and the inverse of their correlations."""

    images: int
    limit: float
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    inverse: tuple[tuple[float, ...], ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: Any) -> InputStatistics:
        """Raises ValueError, KeyError or TypeError where the value is none."""
        count = len(STATISTICS)
        mean, spread = (np.asarray(value[name], np.float64) for name in ("mean", "spread"))
        inverse, limit = np.asarray(value["inverse"], np.float64), float(value["limit"])
        if mean.shape != (count,) or spread.shape != (count,) or inverse.shape != (count, count):
            raise ValueError(f"input statistics are not {count} numbers each")
        if not all(np.isfinite(part).all() for part in (mean, spread, inverse)) or not limit > 0 or spread.min() <= 0:
            raise ValueError("input statistics out of range")
        rows = tuple(tuple(map(float, row)) for row in inverse)
        return InputStatistics(int(value["images"]), limit, tuple(map(float, mean)), tuple(map(float, spread)), rows)


@dataclass(frozen=True)
class Likeness:
    """How far a picture is from the training images. distance: None for a blank one. unusual: what differs most, in words."""

    distance: float | None
    limit: float
    unusual: tuple[str, ...]

    @property
    def unlike(self) -> bool:
        return self.distance is None or self.distance > self.limit


def describe(picture: Image.Image) -> Floats | None:
    """The 16 statistics of a decoded picture (mode L or RGB), or None when there is nothing but white."""
    from scipy import ndimage

    how = Image.Resampling.BOX if min(picture.size) >= SIDE else Image.Resampling.BILINEAR
    small = picture.resize((SIDE, SIDE), how)
    colour = 0.0
    if small.mode != "L":
        rgb = np.asarray(small.convert("RGB"), np.float64) / 255
        colour = float((rgb.max(axis=2) - rgb.min(axis=2)).mean())
    grey = np.asarray(small.convert("L"), np.float64) / 255
    padding = _padding(grey)
    if padding.mean() > MOST_WHITE:
        return None
    if padding.any():
        grey = np.where(padding, np.quantile(grey[~padding], 0.2), grey)
    p5, p50, p95 = np.quantile(grey, (0.05, 0.5, 0.95))
    variance = float(grey.var()) + 1e-4
    rows, columns = grey.mean(axis=1), grey.mean(axis=0)
    down, across = (float(np.abs(np.diff(grey, axis=axis)).mean()) + 1e-3 for axis in (0, 1))
    fine = float((grey - ndimage.uniform_filter(grey, 5)).var()) / variance
    smooth = ndimage.uniform_filter(grey, (5, 9))
    course = smooth.argmax(axis=0) / SIDE
    profiles = ndimage.uniform_filter(grey, (3, 5))
    profiles = (profiles - profiles.mean(axis=0)) / (profiles.std(axis=0) + 1e-3)
    middle = (smooth.max(axis=0) + np.median(smooth, axis=0)) / 2
    values = (
        colour,
        grey.mean(),
        p5,
        p50,
        p95,
        math.sqrt(variance),
        rows.var() / variance,
        columns.var() / variance,
        math.log(down / across),
        math.log(fine + 1e-3),
        min(rows[:16].mean(), rows[-16:].mean()),
        course.std(),
        (np.abs(np.diff(course)) > 0.06).mean(),
        (profiles[:, :-16] * profiles[:, 16:]).mean(),
        (profiles[:, :-64] * profiles[:, 64:]).mean(),
        (smooth > middle).mean(),
    )
    return np.array(values, np.float64)


def _padding(grey: Floats) -> npt.NDArray[np.bool_]:
    """White parts that touch the border, as registered scans have them, with their soft edge."""
    from scipy import ndimage

    parts, _ = ndimage.label(grey >= WHITE)
    sizes = np.bincount(parts.ravel())
    border = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    white = np.isin(parts, [part for part in border if part > 0 and sizes[part] >= LEAST_WHITE])
    return np.asarray(ndimage.binary_dilation(white, iterations=2) if white.any() else white)


def fit_statistics(rows: Sequence[Floats]) -> InputStatistics | None:
    """Statistics of training images from what `describe` said of each; None for fewer than 24 of them."""
    data = np.array(rows, np.float64)
    if len(data) < FEWEST:
        return None
    folds = np.arange(len(data)) % FOLDS
    held = np.concatenate([_distances(data[folds == fold], *_fit(data[folds != fold])) for fold in range(FOLDS)])
    mean, spread, inverse = _fit(data)
    rows_of = tuple(tuple(map(float, row)) for row in inverse)
    limit = SLACK * float(np.quantile(held, QUANTILE))
    return InputStatistics(len(data), limit, tuple(map(float, mean)), tuple(map(float, spread)), rows_of)


def _fit(data: Floats) -> tuple[Floats, Floats, Floats]:
    mean, spread = data.mean(axis=0), data.std(axis=0) + FLOOR
    scaled = (data - mean) / spread
    covariance = (1 - SHRINK) * np.cov(scaled.T) + SHRINK * np.eye(data.shape[1])
    return mean, spread, np.asarray(np.linalg.inv(covariance), np.float64)


def _distances(data: Floats, mean: Floats, spread: Floats, inverse: Floats) -> Floats:
    scaled = (data - mean) / spread
    return np.asarray(np.sqrt(np.einsum("ni,ij,nj->n", scaled, inverse, scaled)), np.float64)


def compare_picture(picture: Image.Image, known: InputStatistics) -> Likeness:
    """How like the training images a decoded picture is."""
    values = describe(picture)
    if values is None:
        return Likeness(None, known.limit, ("white nearly everywhere",))
    mean, spread, inverse = (np.array(part) for part in (known.mean, known.spread, known.inverse))
    distance = float(_distances(values[None], mean, spread, inverse)[0])
    away = np.abs((values - mean) / spread)
    words = list(STATISTICS.values())
    unusual = tuple(words[i] for i in np.argsort(-away)[:3] if away[i] > 3)
    return Likeness(distance, known.limit, unusual)
