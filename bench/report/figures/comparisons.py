"""Metrics of a report that compare: reliability, paired differences, latencies, accuracy against latency, layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from octc.figures.canvas import COLOURS, GREY, INK, Axes, Box, Figure, Line, Words, ticks
from octc.figures.pareto import dot, log_ticks
from octc.figures.plots import Parts, legend

BINS = 10
FIRST, SECOND = COLOURS[0], COLOURS[1]


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram: mean confidence, share that is right, images."""

    confidence: float
    right: float
    n: int


def reliability_bins(confidence: npt.ArrayLike, right: npt.ArrayLike, bins: int = BINS) -> list[Bin]:
    """Bins of equal mass over the confidence, lowest first; empty ones are left out."""
    order = np.argsort(np.asarray(confidence, np.float64), kind="stable")
    conf, hit = np.asarray(confidence, np.float64)[order], np.asarray(right, np.float64)[order]
    parts = zip(np.array_split(conf, bins), np.array_split(hit, bins), strict=True)
    return [Bin(float(c.mean()), float(h.mean()), len(c)) for c, h in parts if len(c)]


def reliability_figure(sides: Sequence[tuple[str, Sequence[Bin]]], title: str) -> Figure:
    """Share that is right over mean confidence, of each side; on the diagonal a model is as sure as it is right."""
    low = min([0.95, *(min(b.confidence, b.right) for _, bins in sides for b in bins)])
    low = math.floor(low * 10) / 10
    axes = Axes(80, 60, 420, 420, (low, 1.0), (low, 1.0))
    parts: Parts = [*axes.frame("mean confidence", "share that is right", title), axes.curve((low, 1), (low, 1), GREY, 1)]
    for colour, (_, bins) in zip(COLOURS, sides, strict=False):
        parts.append(axes.curve([b.confidence for b in bins], [b.right for b in bins], colour))
        parts += [dot(*axes.place(b.confidence, b.right), colour) for b in bins]
    parts += legend(90, 545, [name for name, _ in sides])
    return Figure(540, 555 + 20 * len(sides), tuple(parts))


@dataclass(frozen=True)
class Difference:
    """A paired difference with its interval, percentage points; `margin` is what it was judged against."""

    name: str
    value: float
    low: float
    high: float
    margin: float


def forest_figure(rows: Sequence[Difference], title: str) -> Figure:
    """Differences with their intervals below each other; dashed: the margins that they were judged against."""
    least = min([-1.0, *(min(r.low, -r.margin) for r in rows)]) * 1.1
    most = max([1.0, *(r.high for r in rows)]) * 1.1
    left, step = 200, 34
    axes = Axes(left, 60, 460, step * len(rows), (least, most), (0.0, float(len(rows))))
    parts: Parts = [Words(left + 230, 26, title, 15)]
    parts.append(Line((axes.place(0, 0), axes.place(0, len(rows))), INK, 1))
    for k, row in enumerate(rows):
        y = 60 + step * (k + 0.5)
        colour = FIRST if row.low > -row.margin else SECOND
        parts += [
            Words(left - 10, y, row.name, 13, "end"),
            Line(((axes.place(row.low, 0)[0], y), (axes.place(row.high, 0)[0], y)), colour, 3),
            dot(axes.place(row.value, 0)[0], y, colour, 9),
            Words(left + 475, y, f"{row.value:+.2f} [{row.low:+.2f}, {row.high:+.2f}]", 12, "start"),
        ]
        x = axes.place(-row.margin, 0)[0]
        parts.append(Line(((x, y - step / 2 + 2), (x, y + step / 2 - 2)), SECOND, 1))
    bottom = 60 + step * len(rows)
    for value in ticks(least, most):
        parts.append(Words(axes.place(value, 0)[0], bottom + 14, f"{value:g}", 12))
    parts.append(Words(left + 230, bottom + 36, "difference to the reference, percentage points (short lines: -margin)"))
    return Figure(left + 640, bottom + 56, tuple(parts))


def latency_figure(rows: Sequence[tuple[str, npt.NDArray[np.float64]]], title: str) -> Figure:
    """Share of the samples that are done by a time, of each row (milliseconds, logarithmic)."""
    least = min(float(t.min()) for _, t in rows)
    most = max(float(np.quantile(t, 0.999)) for _, t in rows)
    span = (math.log10(least), max(math.log10(most), math.log10(least) + 0.1))
    axes = Axes(80, 60, 560, 320, span, (0.0, 1.0))
    parts: Parts = [Words(360, 26, title, 15)]
    for share in (0.0, 0.25, 0.5, 0.75, 0.9, 1.0):
        x, y = axes.place(span[0], share)
        parts += [Line(((x, y), (x + axes.width, y)), GREY, 1), Words(x - 6, y, f"{share:g}", 12, "end")]
    for value in log_ticks(*span):
        parts.append(Words(axes.place(math.log10(value), 0)[0], 396, f"{value:g}", 12))
    for k, (_, times) in enumerate(rows):
        ordered = np.sort(times)
        picked = np.unique(np.linspace(0, len(ordered) - 1, 200).astype(int))
        xs = np.clip(np.log10(ordered[picked]), *span)
        parts.append(axes.curve(xs.tolist(), ((picked + 1) / len(ordered)).tolist(), COLOURS[k % len(COLOURS)]))
    parts += [Words(360, 418, "milliseconds"), Words(30, 220, "share of samples", upright=True)]
    parts += legend(90, 450, [f"{name} (n={len(times):,})" for name, times in rows])
    return Figure(680, 460 + 20 * len(rows), tuple(parts))


def series_figure(
    starts: npt.NDArray[np.float64],
    times: npt.NDArray[np.float64],
    beside: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
) -> Figure:
    """Durations (ms) over the time of a row (s): the largest and the median of each of at most 200 stretches.

    beside: readings over the same time, each drawn on a scale of its own from its smallest to its largest value.
    """
    stretches = [part for part in np.array_split(np.arange(len(times)), min(200, len(times))) if len(part)]
    at = [float(starts[part].mean()) for part in stretches]
    most, middle = ([float(f(times[part])) for part in stretches] for f in (np.max, np.median))
    axes = Axes(80, 60, 560, 240, (0.0, max(float(starts[-1]), 1e-3)), (0.0, max(most) * 1.05))
    parts: Parts = axes.frame("seconds", "ms", title)
    parts += [axes.curve(at, most, COLOURS[4], 1), axes.curve(at, middle, FIRST)]
    keys = [("median", FIRST), ("largest", COLOURS[4])]
    for k, (name, readings) in enumerate(beside.items()):
        if len(readings) > 1:
            low, high = min(v for _, v in readings), max(v for _, v in readings)
            scale = Axes(
                axes.x, axes.y, axes.width, axes.height, axes.x_range, (low, high) if high > low else (low - 1, high + 1)
            )
            inside = [(t, v) for t, v in readings if 0 <= t <= axes.x_range[1]]
            parts.append(scale.curve([t for t, _ in inside], [v for _, v in inside], COLOURS[2 + k], 1))
            keys.append((f"{name}: {low:.0f} to {high:.0f}", COLOURS[2 + k]))
    for k, (name, colour) in enumerate(keys):
        parts += [Line(((90, 360 + 20 * k), (112, 360 + 20 * k)), colour, 3), Words(120, 360 + 20 * k, name, 12, "start")]
    return Figure(680, 370 + 20 * len(keys), tuple(parts))


def bars_figure(rows: Sequence[tuple[str, float]], label: str, title: str, mark: float | None = None) -> Figure:
    """One bar for each name, the largest first as given; above `mark` in the second colour."""
    left, step = 300, 20
    most = max([value for _, value in rows] + [1e-12])
    parts: Parts = [Words(left + 180, 22, title, 15)]
    for k, (name, value) in enumerate(rows):
        y = 50 + step * k
        colour = SECOND if mark is not None and value > mark else FIRST
        parts += [
            Words(left - 8, y + 7, name if len(name) <= 44 else f"…{name[-43:]}", 11, "end"),
            Box(left, y, 300 * max(0.0, value) / most, 14, colour),
            Words(left + 310, y + 7, f"{value:.3g}", 11, "start"),
        ]
    parts.append(Words(left + 150, 62 + step * len(rows), label))
    return Figure(left + 400, 80 + step * len(rows), tuple(parts))
