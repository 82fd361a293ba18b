"""A network whose classes do not exclude each other, on a part of its split, by eye: tables as CSV, JSON and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from octc.core.csv_files import csv_bytes
from octc.core.files import publishing, sha256_bytes, write_bytes, write_json
from octc.datasets.base import Sample, ids_of
from octc.datasets.layouts.paired import targets_of
from octc.datasets.split import Split
from octc.imaging.preprocess import VIEWS
from octc.stats.average_precision import RESAMPLES, map_interval
from octc.stats.multilabel import (
    COLUMNS,
    Eyes,
    by_eye,
    chance_map,
    figures,
    overall,
    target_matrix,
    tuned_thresholds,
    view_scores,
)
from octc.stats.patients import patient_ids
from octc.store.runs import Run
from octc.store.test_set_log import PARTS as HELD_OUT
from octc.train.evaluation.assess import Reading, answers
from octc.train.evaluation.outcome import FACTS, PREDICTIONS, next_evaluation
from octc.train.loop.checkpoint import Checkpoint

HALF = 0.5


def evaluate_eyes(model: nn.Module, checkpoint: Checkpoint, split: Split, run: Run, root: Path, how: Reading) -> dict[str, Any]:
    """Evaluate a network with its weights in on a part of its split; writes eval/PART-TTA/ (-2, -3, ... where it was evaluated
    before; its "folder"), and a row of the test-set log before a test image is read. Thresholds are tuned on val, and taken
    from there elsewhere.

    Raises:
        OctcError: E201... a picture, E109 a reading of test cannot be logged.
    """
    part, tta, pool, samples = how.part, how.tta, how.pool, split.parts[how.part]
    logits = answers(model, checkpoint, split, run, root, how)
    truth = str(checkpoint.recipe.get("truth", "union"))
    eyes = eyes_of(samples, logits, len(checkpoint.classes), pool, truth)
    stated = checkpoint.metrics.get("thresholds")
    thresholds = tuned_thresholds(eyes) if part == "val" or stated is None else tuple(float(value) for value in stated)
    facts = {
        "run": run.id,
        "part": part,
        "tta": tta,
        "pool": pool,
        "truth": truth,
        "warning": split.note,
        "thresholds_from": "val" if part == "val" or stated is not None else part,
        "model": checkpoint.model,
        "modality": checkpoint.recipe.get("modality"),
        "dataset": checkpoint.dataset,
        "checkpoint_sha256": checkpoint.sha256,
        "split_digest": checkpoint.split_digest,
        "leakage": split.leakage,
        "chose_the_epoch": part == checkpoint.recipe.get("select", "val"),
    }
    whose = {**ids_of(samples).to_json(), "leakage": split.leakage}
    found = {**document(eyes, checkpoint.classes, thresholds, facts), **whose}
    with next_evaluation(run.path, part, tta) as folder:
        write_eye_evaluation(folder, found, samples, logits, VIEWS[tta])
    if part in HELD_OUT:
        run.log_stage("evaluated", part=part, tta=tta, sha256=checkpoint.sha256, map=found["overall"]["ap"])
    return {**found, "folder": str(folder)}


def eyes_of(samples: Sequence[Sample], logits: npt.NDArray[np.float32], classes: int, pool: str, truth: str) -> Eyes:
    """Scores and labels by eye from logits [n, views, K]; an image without an eye is its own."""
    matrix = target_matrix([targets_of(s) for s in samples], classes)
    names, patients = [s.eye or s.path for s in samples], [s.patient for s in samples]
    return by_eye(view_scores(logits), matrix, names, patients, pool=pool, label=truth)


def document(eyes: Eyes, classes: Sequence[str], thresholds: Sequence[float], facts: dict[str, Any]) -> dict[str, Any]:
    """The figures with their conditions: at the tuned thresholds, at one half, the mAP with its interval: a bootstrap over
    patients, over eyes where no patient is known."""
    tuned, half = figures(eyes, classes, thresholds), figures(eyes, classes, [HALF] * len(classes))
    known, interval = patient_ids(eyes.patients), map_interval(eyes)
    return {
        "task": "multilabel",
        "facts": facts,
        "classes": list(classes),
        "eyes": len(eyes.names),
        "patients": known.count,
        "patient_ids": known.state,
        "thresholds": [float(value) for value in thresholds],
        "per_class": tuned,
        "overall": overall(tuned),
        "per_class_at_half": half,
        "overall_at_half": overall(half),
        "map_bootstrap_95": interval,
        "drawn": "eyes" if known.count is None else "patients",
        "map_patient_bootstrap_95": None if known.count is None else interval,
        "resamples": RESAMPLES,
        "map_of_chance": chance_map(eyes.truth),
    }


def write_eye_evaluation(
    folder: Path, found: dict[str, Any], samples: Sequence[Sample], logits: npt.NDArray[np.float32], views: Sequence[str]
) -> None:
    """Write an evaluation into a new folder, whole or not at all: predictions.csv, figures.json, per_class.csv, report.txt."""
    classes = found["classes"]
    head = ["path", "sha256", "eye", "patient", "labels", *(f"logit {view} {name}" for view in views for name in classes)]
    flat = logits.reshape(len(samples), -1).astype(np.float64)
    rows = [
        [s.path, s.sha256, s.eye, s.patient, " ".join(classes[k] for k in targets_of(s)), *row.tolist()]
        for s, row in zip(samples, flat, strict=True)
    ]
    with publishing(folder) as new:
        data = csv_bytes(head, rows)
        (new / PREDICTIONS).write_bytes(data)
        write_json(new / FACTS, {"predictions_sha256": sha256_bytes(data), "views": list(views), **found})
        table = ([row[name] for name in COLUMNS] for row in found["per_class"])
        write_bytes(new / "per_class.csv", csv_bytes(COLUMNS, table))
        write_bytes(new / "report.txt", eye_report(found).encode())


def eye_report(found: dict[str, Any]) -> str:
    """The table of the classes, the mean in the last row, as text; fractions, "n/a" where a figure is not defined."""
    width = max(8, *(len(name) for name in found["classes"]))
    lines = [f"{'':{width}} " + " ".join(f"{name[:11]:>11}" for name in COLUMNS[1:])]
    for row in found["per_class"]:
        lines.append(f"{row['class']:{width}} " + " ".join(_cell(row[name]) for name in COLUMNS[1:]))
    mean = found["overall"]
    lines.append(
        f"{'mean':{width}} " + " ".join(_cell(mean.get(name)) if name in mean else f"{'':>11}" for name in COLUMNS[1:])
    )
    limits = found["map_bootstrap_95"]
    interval = "" if limits is None else f" [{100 * limits[0]:.2f}, {100 * limits[1]:.2f}]"
    value = "n/a" if mean["ap"] is None else f"{100 * mean['ap']:.2f}"
    lines.append(f"mAP {value}{interval} over {found['eyes']} eyes; chance {100 * found['map_of_chance']:.2f}")
    if mean["without_positives"]:
        lines.append(f"no positive eye, left out of the means of AUC and AP: {', '.join(mean['without_positives'])}")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return f"{'n/a':>11}"
    return f"{value:>11}" if isinstance(value, int) else f"{value:>11.4f}"
