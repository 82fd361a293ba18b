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

from octc.imaging.border import border_parts

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
ORDER, ORDER_SIDE = ("edges_down", "edges_across"), 32  # of a monitor: the 16 hardly change when a picture is mirrored


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
    """How far a picture is from the training images. distance: None for a blank one. unusual: what differs most, in words.
    values: the 16 statistics, then those of ORDER where they were asked for; empty for a blank one."""

    distance: float | None
    limit: float
    unusual: tuple[str, ...]
    values: tuple[float, ...] = ()

    @property
    def unlike(self) -> bool:
        return self.distance is None or self.distance > self.limit


def order_of(picture: Image.Image) -> tuple[float, ...]:
    """Whether edges rise more steeply than they fall, from the top down and from left to right, -1 to 1: the sign turns where a
    picture is turned or mirrored."""
    grey = np.asarray(picture.convert("L").resize((ORDER_SIDE, ORDER_SIDE), Image.Resampling.BOX), np.float64) / 255
    cubes = [np.diff(grey, axis=axis) ** 3 for axis in (0, 1)]
    return tuple(float(cube.sum() / (np.abs(cube).sum() + 1e-9)) for cube in cubes)


def describe(picture: Image.Image) -> Floats | None:
    """The 16 statistics of a decoded picture (mode L or RGB), or None when there is nothing but white."""
    how = Image.Resampling.BOX if min(picture.size) >= SIDE else Image.Resampling.BILINEAR
    small = picture.resize((SIDE, SIDE), how)
    colour = 0.0
    if small.mode != "L":
        rgb = np.asarray(small.convert("RGB"), np.float64) / 255
        colour = float((rgb.max(axis=2) - rgb.min(axis=2)).mean())
    levels = np.asarray(small.convert("L"))
    grey = levels.astype(np.float64) / 255
    padding = _padding(grey)
    ordered = _sorted(levels if padding is None else levels[~padding])
    if padding is not None:
        if padding.mean() > MOST_WHITE:
            return None
        fill = _quantiles(ordered, 0.2)
        grey = np.where(padding, fill, grey)
        place = np.searchsorted(ordered, fill)
        ordered = np.concatenate([ordered[:place], np.full(np.count_nonzero(padding), fill), ordered[place:]])
    p5, p50, p95 = _quantiles(ordered, np.array((0.05, 0.5, 0.95)))
    variance = float(grey.var()) + 1e-4
    rows, columns = grey.mean(axis=1), grey.mean(axis=0)
    down, across = (float(np.abs(np.diff(grey, axis=axis)).mean()) + 1e-3 for axis in (0, 1))
    of_five = _filtered(grey, 0, 5)
    fine = float((grey - _filtered(of_five, 1, 5)).var()) / variance
    smooth = _filtered(of_five, 1, 9)
    course = smooth.argmax(axis=0) / SIDE
    profiles = mean_filter(grey, (3, 5))
    profiles = (profiles - profiles.mean(axis=0)) / (profiles.std(axis=0) + 1e-3)
    depths = np.sort(smooth.T, axis=1)
    middle = (depths[:, -1] + depths[:, SIDE // 2 - 1 : SIDE // 2 + 1].mean(axis=1)) / 2
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


def _padding(grey: Floats) -> npt.NDArray[np.bool_] | None:
    """White parts that touch the border, as registered scans have them, with their soft edge; None where there are none."""
    bright = grey >= WHITE
    if np.count_nonzero(bright) < LEAST_WHITE or not any(
        edge.any() for edge in (bright[0], bright[-1], bright[:, 0], bright[:, -1])
    ):
        return None
    white = border_parts(bright, LEAST_WHITE)
    if not white.any():
        return None
    for _ in range(2):  # its soft edge
        wide = np.pad(white, 1)
        white = wide[1:-1, 1:-1] | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
    return white


def _sorted(levels: npt.NDArray[np.uint8]) -> Floats:
    """Grey 0 to 1 of levels 0 to 255, sorted: the numbers of sorting the grey itself, sooner."""
    found: Floats = np.sort(levels, axis=None, kind="stable").astype(np.float64) / 255
    return found


def _quantiles(ordered: Floats, where: Any) -> Any:
    """Of sorted numbers, as np.quantile has them."""
    place = np.asarray(where) * (len(ordered) - 1)
    low = np.floor(place).astype(np.intp)
    high = np.minimum(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def mean_filter(grey: Floats, sizes: tuple[int, int]) -> Floats:
    """The mean of each place's neighbourhood of odd height and width, the border mirrored (the numbers of
    scipy.ndimage.uniform_filter)."""
    for axis, size in enumerate(sizes):
        grey = _filtered(grey, axis, size)
    return grey


def _filtered(grey: Floats, axis: int, size: int) -> Floats:
    return _sum_of(_mirrored(grey, axis, size // 2), axis, size) / size


def _mirrored(grey: Floats, axis: int, by: int) -> Floats:
    count = grey.shape[axis]
    return np.take(grey, [*range(by)[::-1], *range(count), *range(count - by, count)[::-1]], axis)


def _sum_of(wide: Floats, axis: int, size: int) -> Floats:
    """Sums of `size` neighbours, from those of half as many."""
    if size == 1:
        return wide
    half = _sum_of(wide, axis, size // 2)
    ends = np.s_[: -(size // 2)], np.s_[size // 2 :]
    first, last = (half[one] if axis == 0 else half[:, one] for one in ends)
    twice = first + last
    if size % 2 == 0:
        return twice
    return (twice[:-1] + wide[size - 1 :]) if axis == 0 else (twice[:, :-1] + wide[:, size - 1 :])


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


def compare_picture(picture: Image.Image, known: InputStatistics, *, order: bool = True) -> Likeness:
    """How like the training images a decoded picture is. order: with the values of ORDER, which only a monitor keeps."""
    values = describe(picture)
    if values is None:
        return Likeness(None, known.limit, ("white nearly everywhere",))
    mean, spread, inverse = (np.array(part) for part in (known.mean, known.spread, known.inverse))
    distance = float(_distances(values[None], mean, spread, inverse)[0])
    away = np.abs((values - mean) / spread)
    words = list(STATISTICS.values())
    unusual = tuple(words[i] for i in np.argsort(-away)[:3] if away[i] > 3)
    return Likeness(distance, known.limit, unusual, (*map(float, values), *(order_of(picture) if order else ())))
