"""The files of a cross-validation: KD-OCT's two tables and its figure, the summary, out-of-fold and ensemble evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from octc.core.csv_files import csv_bytes
from octc.core.files import publishing, write_bytes, write_json
from octc.figures.canvas import COLOURS, GREY, INK, Axes, Box, Figure, Line, Words
from octc.stats.folds import spread_of
from octc.train.crossval.combine import Fold, Summary, summarise, summary_json
from octc.train.evaluation.files import write_evaluation, write_figure
from octc.train.evaluation.outcome import evaluate

RESULTS = (
    "fold",
    "test_accuracy",
    "test_loss",
    "best_val_acc",
    "best_val_loss",
    "epochs_trained",
    "training_time_hours",
    "run",
    "n",
)
TOTALS = (
    "student_backbone",
    "teacher_backbone",
    "image_size",
    "temperature",
    "alpha",
    "beta",
    "mean_test_acc",
    "std_test_acc",
    "mean_val_acc",
    "std_val_acc",
    "mean_test_loss",
    "std_test_loss",
    "ensemble_accuracy",
    "total_training_time_hours",
    "mean_epochs",
    "n_folds",
    "std_test_acc_ddof1",
    "out_of_fold_accuracy",
    "out_of_fold_low_95",
    "out_of_fold_high_95",
)
SCHEMA = "1.0"


def write_summary(folder: Path, folds: Sequence[Fold]) -> dict[str, Any]:
    """Write the folder of a job, whole or not at all; one that is there is replaced. Returns summary.json.

    summary.json, cv_results.csv, training_summary.csv (columns of KD-OCT, and some behind them; fractions; std_... with ddof
    0, as published), cv_summary.svg and .png, out-of-fold/ and ensemble/ as `write_evaluation`, where there are any.
    """
    found = summarise(folds)
    document = {"schema_version": SCHEMA, **summary_json(found)}
    with publishing(folder, force=True) as new:
        write_json(new / "summary.json", document)
        write_bytes(new / "cv_results.csv", csv_bytes(RESULTS, [results_row(fold) for fold in folds]))
        totals = totals_row(found)
        write_bytes(new / "training_summary.csv", csv_bytes(TOTALS, [[totals[name] for name in TOTALS]]))
        write_figure(new / "cv_summary", summary_figure(found))
        if found.held is not None:
            write_evaluation(new / "out-of-fold", found.held)
        if found.together is not None:
            write_evaluation(new / "ensemble", found.together)
    return document


def results_row(fold: Fold) -> tuple[Any, ...]:
    """A line of cv_results.csv."""
    metrics = fold.checkpoint.metrics
    return (
        fold.number,
        fold.found.figures.accuracy,
        fold.found.loss,
        metrics.get("val_accuracy"),
        metrics.get("val_loss"),
        metrics.get("epochs"),
        fold.hours,
        fold.run,
        fold.found.figures.n,
    )


def totals_row(found: Summary) -> dict[str, Any]:
    """The line of training_summary.csv. alpha is the weight of the soft part of the loss, beta that of the hard one."""
    first = found.folds[0].checkpoint
    taught = first.parent if first.role == "student" else None
    how: dict[str, Any] = first.recipe.get("distillation", {}) if taught else {}
    accuracy, losses = found.spread.spreads["accuracy"], found.losses
    val = spread_of([fold.checkpoint.metrics.get("val_accuracy") for fold in found.folds])
    epochs = spread_of([fold.checkpoint.metrics.get("epochs") for fold in found.folds])
    interval = found.intervals.get("accuracy") or (None, None)
    alpha = how.get("alpha")
    cells = (
        first.model,
        (taught or {}).get("model"),
        first.preprocess.size,
        how.get("temperature"),
        alpha,
        None if alpha is None else round(1 - alpha, 12),
        accuracy.mean,
        accuracy.std_population,
        val.mean,
        val.std_population,
        losses.mean,
        losses.std_population,
        None if found.together is None else evaluate(found.together).figures.accuracy,
        sum(fold.hours for fold in found.folds),
        epochs.mean,
        len(found.folds),
        accuracy.std_sample,
        None if found.held is None else found.spread.pooled.accuracy,
        *interval,
    )
    return dict(zip(TOTALS, cells, strict=True))


def summary_figure(found: Summary) -> Figure:
    """Accuracy with its mean (and the ensemble's), loss, epochs and hours of each fold, as bars."""
    folds = found.folds
    first = folds[0]
    title = f"{first.checkpoint.model} · {first.checkpoint.dataset} · {len(folds)} folds"
    parts: list[Box | Line | Words] = [Words(620, 22, f"{title} · {first.note}" if first.note else title, 15)]
    together = None if found.together is None else evaluate(found.together).figures.accuracy
    panels = (
        ("test accuracy", [fold.found.figures.accuracy or 0.0 for fold in folds], "{:.3f}", together),
        ("test loss", [fold.found.loss for fold in folds], "{:.3f}", None),
        ("epochs", [float(fold.checkpoint.metrics.get("epochs", 0)) for fold in folds], "{:.0f}", None),
        ("hours", [fold.hours for fold in folds], "{:.3g}", None),
    )
    for place, (name, values, style, line) in enumerate(panels):
        top = 1.0 if name == "test accuracy" else max(values) * 1.15 or 1.0
        axes = Axes(80 + 600 * (place % 2), 70 + 400 * (place // 2), 500, 280, (0.5, len(folds) + 0.5), (0.0, top))
        parts += _panel(axes, name, values, style, line)
    return Figure(1240, 840, tuple(parts))


def _panel(axes: Axes, name: str, values: Sequence[float], style: str, line: float | None) -> list[Box | Line | Words]:
    base = axes.y + axes.height
    parts: list[Box | Line | Words] = [Words(axes.x + axes.width / 2, axes.y - 14, name, 14)]
    parts.append(Line(((axes.x, base), (axes.x + axes.width, base)), GREY, 1))
    for fold, value in enumerate(values, 1):
        x0, top = axes.place(fold - 0.35, value)
        x1, _ = axes.place(fold + 0.35, value)
        parts += [Box(x0, top, x1 - x0, base - top, COLOURS[0]), Words((x0 + x1) / 2, top - 9, style.format(value), 11)]
        parts.append(Words((x0 + x1) / 2, base + 16, f"fold {fold}", 12))
    mean = sum(values) / len(values)
    lines = [("mean", mean, COLOURS[1]), *([("ensemble", line, COLOURS[2])] if line is not None else [])]
    for k, (label, value, colour) in enumerate(lines):
        _, height = axes.place(1, value)
        parts.append(Line(((axes.x, height), (axes.x + axes.width, height)), colour, 2))
        left = axes.x + 170 * k
        parts += [Line(((left, base + 42), (left + 22, base + 42)), colour, 3)]
        parts.append(Words(left + 30, base + 42, f"{label} {style.format(value)}", 12, "start", INK))
    return parts
