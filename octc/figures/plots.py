"""The figures of an evaluation and of a training, from stored numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.figures.canvas import COLOURS, GREY, ON_DARK, ON_LIGHT, PAPER, Axes, Box, Figure, Line, Words, shade
from octc.stats.metrics import ClassMetrics
from octc.stats.roc import Roc

Parts = list[Box | Line | Words]


def confusion_figure(matrix: npt.ArrayLike, classes: Sequence[str], title: str) -> Figure:
    """Counts [true, predicted] with the share of each row; the colour is the share."""
    table = np.asarray(matrix, np.int64)
    cell, left, top, count = 110, 140, 60, len(table)
    parts: Parts = [Words(left + cell * count / 2, 24, title, 15)]
    for i, row in enumerate(table):
        middle = top + cell * (i + 0.5)
        parts.append(Words(left - 10, middle, classes[i], anchor="end"))
        for j, value in enumerate(row):
            share = float(value / row.sum()) if row.sum() else 0.0
            ink = ON_DARK if share > 0.5 else ON_LIGHT
            centre = left + cell * (j + 0.5)
            parts += [
                Box(left + cell * j + 1, top + cell * i + 1, cell - 2, cell - 2, shade(share)),
                Words(centre, middle - 9, f"{value:,}", 17, colour=ink),
                Words(centre, middle + 14, f"{100 * share:.1f} %" if row.sum() else "no image", 12, colour=ink),
            ]
    for j, name in enumerate(classes):
        parts.append(Words(left + cell * (j + 0.5), top + cell * count + 16, name))
    parts += [
        Words(left + cell * count / 2, top + cell * count + 42, "predicted"),
        Words(24, top + cell * count / 2, "true", upright=True),
    ]
    return Figure(left + cell * count + 30, top + cell * count + 64, tuple(parts))


def curves_figure(history: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Loss and accuracy of train and val over the epochs, side by side."""
    epochs = [float(row["epoch"]) for row in history]
    span = (min(epochs), max(*epochs, min(epochs) + 1))
    parts: Parts = [Words(640, 22, title, 15)]
    for place, (name, label) in enumerate((("loss", "loss"), ("acc", "accuracy"))):
        lines = [(part, [float(row[f"{part}_{name}"]) for row in history]) for part in ("train", "val")]
        known = [value for _, values in lines for value in values if np.isfinite(value)]
        top = 1.0 if name == "acc" else max(known, default=1.0) * 1.05 or 1.0
        axes = Axes(80 + 620 * place, 70, 520, 290, span, (0.0, top))
        parts += axes.frame("epoch", label, label)
        for colour, (_, values) in zip(COLOURS, lines, strict=False):
            points = [(x, y) for x, y in zip(epochs, values, strict=True) if np.isfinite(y)]
            parts.append(axes.curve([x for x, _ in points], [y for _, y in points], colour))
        parts += legend(axes.x + axes.width - 90, axes.y + 16, [part for part, _ in lines])
    return Figure(1240, 430, tuple(parts))


def legend(x: float, y: float, names: Sequence[str]) -> Parts:
    """Names beside their colours, one below another."""
    parts: Parts = [Box(x - 8, y - 14, 24 + 8 * max(map(len, names)) + 16, 20 * len(names) + 10, PAPER)]
    for k, name in enumerate(names):
        height = y + 20 * k
        line = Line(((x, height), (x + 22, height)), COLOURS[k % len(COLOURS)], 3)
        parts += [line, Words(x + 30, height, name, 12, "start")]
    return parts


BARS = ("precision", "sensitivity", "specificity", "f1")


def per_class_figure(figures: Sequence[ClassMetrics], classes: Sequence[str], title: str) -> Figure:
    """Precision, sensitivity (recall), specificity and F1 of each class as bars; what is not defined has none."""
    width = max(560, 60 + 150 * len(classes))
    axes = Axes(70, 60, width, 280, (0.0, float(len(classes))), (0.0, 1.0))
    parts: Parts = [Words(70 + width / 2, 22, title, 15)]
    for k in range(6):
        left, height = axes.place(0, k / 5)
        parts += [Line(((left, height), (left + width, height)), GREY, 1), Words(left - 6, height, f"{k / 5:.1f}", 12, "end")]
    for i, (one, name) in enumerate(zip(figures, classes, strict=True)):
        for j, bar in enumerate(BARS):
            value = getattr(one, bar)
            x0, base = axes.place(i + 0.1 + 0.2 * j, 0)
            x1, top = axes.place(i + 0.28 + 0.2 * j, value or 0.0)
            parts.append(Box(x0, top, x1 - x0, base - top, COLOURS[j]))
            parts.append(Words((x0 + x1) / 2, top - 8, "n/a" if value is None else f"{100 * value:.1f}", 10))
        parts.append(Words(axes.place(i + 0.49, 0)[0], axes.y + axes.height + 16, f"{name} (n {one.support:,})"))
    for j, bar in enumerate(BARS):
        x = 80 + 150 * j
        parts += [
            Box(x, axes.y + axes.height + 40, 14, 14, COLOURS[j]),
            Words(x + 22, axes.y + axes.height + 47, bar, 12, "start"),
        ]
    return Figure(width + 100, 420, tuple(parts))


def roc_figure(curves: Sequence[Roc | None], classes: Sequence[str], title: str) -> Figure:
    """One class against the rest, with the area."""
    axes = Axes(80, 60, 460, 460, (0.0, 1.0), (0.0, 1.0))
    parts: Parts = [*axes.frame("1 - specificity", "sensitivity", title), axes.curve((0, 1), (0, 1), GREY, 1)]
    names = []
    for k, (curve, name) in enumerate(zip(curves, classes, strict=True)):
        names.append(f"{name}, AUC {'n/a' if curve is None else f'{curve.area:.4f}'}")
        if curve is not None:
            parts.append(axes.curve(curve.false_positive.tolist(), curve.true_positive.tolist(), COLOURS[k % len(COLOURS)]))
    parts += legend(90, 590, names)
    return Figure(580, 600 + 20 * len(names), tuple(parts))


def bars_figure(values: Mapping[str, int], title: str) -> Figure:
    """Counts by name as lying bars, each with its number and its share of all."""
    total, most = sum(values.values()), max(values.values(), default=0)
    parts: Parts = [Words(340, 22, title, 15)]
    for place, (name, count) in enumerate(values.items()):
        y = 44 + 26 * place
        parts.append(Words(150, y + 9, name if len(name) <= 22 else name[:21] + "…", 12, "end"))
        parts.append(Box(158, y, 380 * count / most if most else 0, 18, COLOURS[0]))
        share = f"{count:,} ({100 * count / total:.1f} %)" if total else "0"
        parts.append(Words(164 + (380 * count / most if most else 0), y + 9, share, 12, "start"))
    return Figure(680, 60 + 26 * len(values), tuple(parts))
