"""Accuracy against latency: one square an artifact or candidate, its interval, and the line of those that nobody beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from octc.figures.canvas import COLOURS, GREY, Axes, Box, Figure, Line, Words
from octc.figures.plots import Parts, legend


def dot(x: float, y: float, colour: str, size: float = 7) -> Box:
    """A square about a point, pixels."""
    return Box(x - size / 2, y - size / 2, size, size, colour)


def log_ticks(low: float, high: float) -> list[float]:
    """Round values of a logarithmic axis from 10^low to 10^high."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    return [v for p in powers for k in (1, 1.5, 2, 3, 5, 7) if low - 1e-9 <= math.log10(v := k * 10.0**p) <= high + 1e-9]


@dataclass(frozen=True)
class Point:
    """An artifact: latency ms (p50), accuracy % with its interval, size MiB."""

    name: str
    ms: float
    accuracy: float
    low: float
    high: float
    mib: float


def best_points(points: Sequence[Point]) -> list[Point]:
    """Those that no other point beats: none is as quick and as accurate and better in one of both. Quickest first."""

    def beaten(p: Point) -> bool:
        return any(q.ms <= p.ms and q.accuracy >= p.accuracy and (q.ms, q.accuracy) != (p.ms, p.accuracy) for q in points)

    return sorted((p for p in points if not beaten(p)), key=lambda p: p.ms)


def pareto_figure(points: Sequence[Point], title: str) -> Figure:
    """Accuracy with its interval over latency (logarithmic); the area of a square is the size of the files."""
    span = (math.log10(min(p.ms for p in points)) - 0.1, math.log10(max(p.ms for p in points)) + 0.25)
    low = min(p.low for p in points)
    high = max(p.high for p in points)
    room = max(0.2, (high - low) * 0.1)
    axes = Axes(80, 60, 560, 320, span, (low - room, min(100.0, high + room) if high <= 100 else high + room))
    parts: Parts = [w for w in axes.frame("", "accuracy, %", title) if not (isinstance(w, Words) and w.y == 394)]
    for value in log_ticks(*span):
        parts.append(Words(axes.place(math.log10(value), 0)[0], 396, f"{value:g}", 12))
    parts.append(Words(360, 418, "p50 at batch 1, milliseconds"))
    front = best_points(points)
    parts.append(axes.curve([math.log10(p.ms) for p in front], [p.accuracy for p in front], GREY, 2))
    largest = max(p.mib for p in points) or 1.0
    for k, point in enumerate(points):
        x, y = axes.place(math.log10(point.ms), point.accuracy)
        colour = COLOURS[k % len(COLOURS)]
        top, bottom = (axes.place(0, v)[1] for v in (point.high, point.low))
        parts += [Line(((x, bottom), (x, top)), colour, 1), dot(x, y, colour, 6 + 14 * math.sqrt(point.mib / largest))]
    names = [f"{p.name}: {p.ms:.3g} ms, {p.accuracy:.2f} % [{p.low:.2f}, {p.high:.2f}], {p.mib:.2f} MiB" for p in points]
    parts += legend(90, 450, names)
    return Figure(680, 460 + 20 * len(points), tuple(parts))
