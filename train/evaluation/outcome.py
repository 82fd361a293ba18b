"""What a network said of every image of a set, as a file; every table and figure of an evaluation comes out of that file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.csv_files import csv_bytes, read_csv
from octc.core.errors import OctcError
from octc.core.files import read_json, sha256_file
from octc.datasets.patients import before_fields
from octc.schemas.common import convert
from octc.schemas.evaluation import EvaluationFile
from octc.stats.cluster_bootstrap import bootstrap_sums, cluster_index, percentile_interval
from octc.stats.metrics import (
    Float64,
    Metrics,
    combine_views,
    confidence_order,
    confusion_matrix,
    ece_mass,
    find_normal,
    log_softmax,
    metrics_of,
    nll_scores,
)
from octc.stats.multilabel import harmonic_mean
from octc.stats.patients import NOT_RECORDED, PatientIds, patient_ids
from octc.stats.proportions import Interval, wilson
from octc.stats.roc import Roc, average_precision, roc
from octc.store.runs import alone

PREDICTIONS, FACTS = "predictions.csv", "figures.json"
FOLDER = "eval"  # of a run: PART-TTA is its first evaluation, PART-TTA-2 the next; none is overwritten
RESAMPLES, SEED = 2000, 0
COLUMNS = ("path", "sha256", "patient", "label")


@dataclass(frozen=True)
class Predictions:
    """Logits of every image.

    Attributes:
        labels: index into classes. patients: id, or None. logits: float32 [n, views, K]; views: names of
            octc.imaging.preprocess.VIEWS.
        facts: where they come from (run, part, checkpoint, split), as they are to stand beside every figure.
    """

    paths: tuple[str, ...]
    sums: tuple[str, ...]
    patients: tuple[str | None, ...]
    labels: tuple[int, ...]
    logits: npt.NDArray[np.float32]
    views: tuple[str, ...]
    classes: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


def combined(predictions: Predictions, how: str = "probabilities") -> tuple[Float64, Float64]:
    """Probabilities [n, K] and their logarithms: the mean of the views' probabilities, or (as KD-OCT) of their logits."""
    if how == "probabilities":
        return combine_views(predictions.logits)
    logs = log_softmax(predictions.logits.astype(np.float64).mean(axis=1))
    return np.exp(logs), logs


def predictions_csv(predictions: Predictions) -> bytes:
    """One row an image: path, sum, patient, label, and "logit VIEW CLASS" of each view and class, exactly."""
    names = [f"logit {view} {name}" for view in predictions.views for name in predictions.classes]
    flat = predictions.logits.reshape(len(predictions.labels), -1).astype(np.float64)
    who = zip(predictions.paths, predictions.sums, predictions.patients, predictions.labels, flat, strict=True)
    rows = ([path, sha, patient, predictions.classes[k], *row.tolist()] for path, sha, patient, k, row in who)
    return csv_bytes([*COLUMNS, *names], rows)


def read_predictions(folder: Path) -> Predictions:
    """Read an evaluation's folder (OctcError E107 there is none, E501 the file is not the one that was written)."""
    if not (folder / FACTS).is_file() or not (folder / PREDICTIONS).is_file():
        raise OctcError("OCT-E107", f"no evaluation in {folder}", hint="evaluate the run again", place=str(folder))
    try:
        head = convert(read_json(folder / FACTS), EvaluationFile, folder / FACTS)
    except ValueError as error:
        text = f"{FACTS} cannot be read: {error}"
        raise OctcError("OCT-E501", text, hint="evaluate the run again", place=str(folder / FACTS)) from error
    if sha256_file(folder / PREDICTIONS) != head.predictions_sha256:
        text = f"{PREDICTIONS} does not match its sha256"
        raise OctcError("OCT-E501", text, hint="evaluate the run again", place=str(folder / PREDICTIONS))
    rows = read_csv(folder / PREDICTIONS)[1:]
    classes, views = tuple(head.classes), tuple(head.views)
    logits = np.array([[float(v) for v in row[len(COLUMNS) :]] for row in rows], np.float32)
    columns = list(zip(*rows, strict=True))
    people = [p or None for p in columns[2]]
    if "dataset" in head.facts and "leakage" not in head.facts:  # written when dates and running numbers could be patients
        written = [(path, name, who, None) for path, name, who in zip(columns[0], columns[3], people, strict=True)]
        people = before_fields(str(head.facts.get("dataset")), written, classes)
    return Predictions(
        columns[0],
        columns[1],
        tuple(people),
        tuple(classes.index(name) for name in columns[3]),
        logits.reshape(len(rows), len(views), len(classes)),
        views,
        classes,
        head.facts,
    )


def scan_evaluations(run: Path, part: str, tta: str) -> list[Path]:
    """Finished evaluations of a part with these views, the oldest first."""
    stem = f"{part}-{tta}"
    found = [(_number(path.name, stem), path) for path in (run / FOLDER).glob(f"{stem}*") if (path / FACTS).is_file()]
    return [path for number, path in sorted(found) if number]


def _number(name: str, stem: str) -> int:
    """Which evaluation a folder holds; 0 where it is none of these."""
    rest = name.removeprefix(stem)
    return 1 if not rest else int(rest[1:]) if rest[0] == "-" and rest[1:].isdigit() and name.startswith(stem) else 0


def newest_evaluation(run: Path, part: str, tta: str = "none", sha256: str | None = None) -> Path:
    """The newest finished evaluation of a part, of these weights where a sum is given; where there is none, the name that the
    first one would have (reading it is refused with E107)."""
    for path in reversed(scan_evaluations(run, part, tta)):
        if sha256 is None or weights_of(path) == sha256:
            return path
    return run / FOLDER / f"{part}-{tta}"


def weights_of(folder: Path) -> str | None:
    """The sum of the weights that an evaluation is of, or None where it does not say."""
    try:
        return str(read_json(folder / FACTS)["facts"]["checkpoint_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def next_evaluation(run: Path, part: str, tta: str) -> Iterator[Path]:
    """The folder for a new evaluation, which nothing has yet; no other process is given it meanwhile."""
    place = run / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    with alone(place):
        names = (f"{part}-{tta}" if number == 1 else f"{part}-{tta}-{number}" for number in range(1, 100_000))
        taken = {path.name.removesuffix("-maps") for path in place.iterdir()}
        yield place / next(name for name in names if name not in taken)


@dataclass(frozen=True)
class Evaluation:
    """Everything that the tables and figures say. rocs, precisions: one class against the rest, None where undefined.

    folder: where it was written, None where it was not.
    """

    matrix: npt.NDArray[np.int64]
    figures: Metrics
    loss: float
    ece: float
    rocs: tuple[Roc | None, ...]
    precisions: tuple[float | None, ...]
    accuracy_wilson: Interval | None
    accuracy_patients: Interval | None
    recall_patients: Interval | None
    note: str = ""  # what must be said of the split
    known: PatientIds = field(default_factory=lambda: patient_ids(()))  # whether it is known whose the images are
    leakage: str = "none"  # of the split, or why it cannot be excluded
    folder: Path | None = None


def evaluate(predictions: Predictions, how: str = "probabilities") -> Evaluation:
    """All figures of stored predictions; the loss is the sample mean of the negative log likelihood, nats."""
    probabilities, logs = combined(predictions, how)
    labels = np.asarray(predictions.labels, np.int64)
    said = probabilities.argmax(1)
    matrix = confusion_matrix(labels, said, len(predictions.classes))
    confidence, right = probabilities.max(1), said == labels
    order = confidence_order(
        confidence, [f"{sha} {path}" for sha, path in zip(predictions.sums, predictions.paths, strict=True)]
    )
    accuracy, recall = _intervals(predictions, said)
    known = patient_ids(predictions.patients)
    classes = range(len(predictions.classes))
    return Evaluation(
        matrix=matrix,
        figures=metrics_of(matrix, find_normal(predictions.classes)),
        loss=float(nll_scores(logs, labels).mean()),
        ece=ece_mass(confidence[order], right[order]),
        rocs=tuple(roc(probabilities[:, k], labels == k) for k in classes),
        precisions=tuple(average_precision(probabilities[:, k], labels == k) for k in classes),
        accuracy_wilson=wilson(int(right.sum()), len(labels)),
        accuracy_patients=accuracy,
        recall_patients=recall,
        note=str(predictions.facts.get("warning") or ""),
        known=known,
        leakage=str(predictions.facts.get("leakage") or known.leakage or NOT_RECORDED),
    )


def _intervals(predictions: Predictions, said: npt.NDArray[np.int64]) -> tuple[Interval | None, Interval | None]:
    """95 % bootstrap intervals over patients of accuracy and macro recall; None where no patient is known, or only one is."""
    clusters = cluster_index(predictions.patients)
    if clusters is None or int(clusters.max()) == 0:
        return None, None
    classes, labels = len(predictions.classes), np.asarray(predictions.labels)
    truth = np.eye(classes)[labels]
    sums = np.zeros((int(clusters.max()) + 1, 2 * classes))
    np.add.at(sums, clusters, np.concatenate([truth, truth * (said == labels)[:, None]], axis=1))
    drawn = bootstrap_sums(sums, lambda total: total, RESAMPLES, SEED)
    support, hits = drawn[:, :classes], drawn[:, classes:]
    present = np.unique(labels)
    with np.errstate(invalid="ignore"):
        recalls = (hits / support)[:, present].mean(1)
    recalls = recalls[np.isfinite(recalls)]
    enough = len(recalls) >= 0.99 * len(drawn) and len(present) > 1
    accuracy = percentile_interval(hits.sum(1) / support.sum(1), 0.05)
    return accuracy, percentile_interval(recalls, 0.05) if enough else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


CLASS_COLUMNS = ("class", "precision", "recall", "specificity", "f1", "f1_ss", "accuracy", "auc", "ap", "support", "predicted")


def class_rows(found: Evaluation, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row a class. f1_ss is the harmonic mean of sensitivity and specificity; accuracy is that of one class or not."""
    rows = []
    for k, (name, one) in enumerate(zip(classes, found.figures.per_class, strict=True)):
        curve = found.rocs[k]
        right = (one.tp + one.tn) / found.figures.n if found.figures.n else None
        cells = (
            name,
            one.precision,
            one.sensitivity,
            one.specificity,
            one.f1,
            harmonic_mean(one.sensitivity, one.specificity),
            right,
            None if curve is None else curve.area,
            found.precisions[k],
            one.support,
            one.predicted,
        )
        rows.append(dict(zip(CLASS_COLUMNS, cells, strict=True)))
    return rows


def figures_json(predictions: Predictions, found: Evaluation, how: str) -> dict[str, Any]:
    """The figures with their conditions, as fractions; what is not defined is null."""
    figures = asdict(found.figures)
    del figures["per_class"]
    present = [k for k, one in enumerate(found.figures.per_class) if one.support]
    curves = [found.rocs[k] for k in present]
    areas = [None if curve is None else curve.area for curve in curves]
    return {
        "facts": predictions.facts,
        "classes": predictions.classes,
        "views": predictions.views,
        "combine": how,
        "patients": found.known.count,
        **found.known.to_json(),
        "leakage": found.leakage,
        "figures": {
            **figures,
            "loss": found.loss,
            "ece_mass_15": found.ece,
            "macro_auc": _mean(areas),
            "map": _mean([found.precisions[k] for k in present]),
            "accuracy_wilson_95": found.accuracy_wilson,
            "accuracy_patient_bootstrap_95": found.accuracy_patients,
            "macro_sensitivity_patient_bootstrap_95": found.recall_patients,
        },
        "per_class": class_rows(found, predictions.classes),
        "confusion": found.matrix.tolist(),
    }
