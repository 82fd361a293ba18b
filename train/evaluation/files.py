"""The files of an evaluation: predictions, figures, report, confusion matrix, classes, ROC; CSV, JSON, SVG and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from octc.core.csv_files import csv_bytes
from octc.core.files import publishing, sha256_bytes, write_bytes, write_json
from octc.figures.canvas import Figure, to_png, to_svg
from octc.figures.plots import confusion_figure, curves_figure, per_class_figure, roc_figure
from octc.train.evaluation.outcome import (
    CLASS_COLUMNS,
    FACTS,
    PREDICTIONS,
    Evaluation,
    Predictions,
    class_rows,
    evaluate,
    figures_json,
    predictions_csv,
)
from octc.train.loop.history import read_history


def write_evaluation(folder: Path, predictions: Predictions, how: str = "probabilities") -> Evaluation:
    """Write an evaluation, whole or not at all, into a folder that is not there yet (E106).

    predictions.csv, figures.json, report.txt, confusion.csv, per_class.csv, roc.csv, and confusion, per_class and roc as svg
    and png. Everything but the first follows from it.
    """
    found = evaluate(predictions, how)
    title = title_of(predictions.facts)
    with publishing(folder) as new:
        data = predictions_csv(predictions)
        (new / PREDICTIONS).write_bytes(data)
        write_json(new / FACTS, {"predictions_sha256": sha256_bytes(data), **figures_json(predictions, found, how)})
        write_bytes(new / "report.txt", report_text(found, predictions.classes).encode())
        write_bytes(new / "confusion.csv", confusion_csv(found, predictions.classes))
        rows = class_rows(found, predictions.classes)
        write_bytes(new / "per_class.csv", csv_bytes(CLASS_COLUMNS, ([row[name] for name in CLASS_COLUMNS] for row in rows)))
        write_bytes(new / "roc.csv", roc_csv(found, predictions.classes))
        write_figure(new / "confusion", confusion_figure(found.matrix, predictions.classes, title))
        write_figure(new / "per_class", per_class_figure(found.figures.per_class, predictions.classes, title))
        write_figure(new / "roc", roc_figure(found.rocs, predictions.classes, title))
    return replace(found, folder=folder)


def write_curves(folder: Path, title: str) -> None:
    """curves.svg and curves.png of a training, from its history.csv."""
    write_figure(folder / "curves", curves_figure(read_history(folder), title))


def write_figure(path: Path, figure: Figure) -> None:
    """path.svg and path.png."""
    write_bytes(path.with_name(f"{path.name}.svg"), to_svg(figure))
    write_bytes(path.with_name(f"{path.name}.png"), to_png(figure))


def title_of(facts: dict[str, Any]) -> str:
    """Run, part and, where they are not clean, the word for it."""
    words = [str(facts[key]) for key in ("run", "model", "dataset", "part") if facts.get(key)]
    return " · ".join([*words, *([str(facts["warning"])] if facts.get("warning") else [])])


def report_text(found: Evaluation, classes: Sequence[str]) -> str:
    """The classification report: precision, recall, F1 and support of each class, accuracy, macro and weighted means."""
    one = found.figures.per_class
    width = max(12, *(len(name) for name in classes))
    lines = [f"{'':{width}}  precision     recall   f1-score    support", ""]
    for name, row in zip(classes, one, strict=True):
        lines.append(f"{name:{width}} {_cell(row.precision)} {_cell(row.sensitivity)} {_cell(row.f1)} {row.support:>10}")
    lines += ["", f"{'accuracy':{width}} {'':>10} {'':>10} {_cell(found.figures.accuracy)} {found.figures.n:>10}"]
    macro = (found.figures.macro_precision, found.figures.macro_sensitivity, found.figures.macro_f1)
    weighted = [_weighted(one, name) for name in ("precision", "sensitivity", "f1")]
    for name, means in (("macro avg", macro), ("weighted avg", weighted)):
        lines.append(f"{name:{width}} {' '.join(_cell(mean) for mean in means)} {found.figures.n:>10}")
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return f"{'n/a':>10}" if value is None else f"{value:>10.4f}"


def _weighted(rows: Sequence[Any], name: str) -> float | None:
    known = [(getattr(row, name), row.support) for row in rows if row.support]
    if not known or any(value is None for value, _ in known):
        return None
    return float(sum(value * n for value, n in known) / sum(n for _, n in known))


def confusion_csv(found: Evaluation, classes: Sequence[str]) -> bytes:
    """Rows are the true classes, columns the predicted ones."""
    rows = ([name, *row] for name, row in zip(classes, found.matrix.tolist(), strict=True))
    return csv_bytes(["true", *classes], rows)


def roc_csv(found: Evaluation, classes: Sequence[str]) -> bytes:
    """Every point of every curve: class, threshold, false positive rate, true positive rate."""
    rows: list[tuple[str, float, float, float]] = []
    for name, curve in zip(classes, found.rocs, strict=True):
        if curve is not None:
            points = zip(curve.threshold, curve.false_positive, curve.true_positive, strict=True)
            rows += [(name, float(t), float(x), float(y)) for t, x, y in points]
    return csv_bytes(("class", "threshold", "false_positive_rate", "true_positive_rate"), rows)
