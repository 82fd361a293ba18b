"""A cross-validation from the stored answers of its folds: spread, out-of-fold figures, ensemble on held-out data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from octc.core.errors import OctcError, shorten
from octc.core.files import parse_json
from octc.datasets.split import OFFICIAL, read_split
from octc.stats.cluster_bootstrap import clusters_of
from octc.stats.folds import Folds, Spread, bootstrap_figures, spread_of, summarise_folds
from octc.stats.metrics import find_normal
from octc.stats.patients import NOT_RECORDED, PatientIds, patient_ids
from octc.store.runs import Run
from octc.train.evaluation.outcome import Evaluation, Predictions, combined, evaluate, newest_evaluation, read_predictions
from octc.train.loop.checkpoint import Checkpoint, read_checkpoint
from octc.train.loop.history import read_history

RESAMPLES, SEED = 2000, 0


@dataclass(frozen=True)
class Fold:
    """One fold: its network, and what that said of images that it never saw.

    Attributes:
        held: answers on what the fold holds out; official: on the fixed official test, where the data set has one.
        known, leakage, left_out: of the split.
        epochs: that were trained; hours: that they took (of an interrupted epoch, the last part).
    """

    number: int
    of: int
    run: str
    facts: dict[str, Any]
    checkpoint: Checkpoint
    held: Predictions
    official: Predictions | None
    found: Evaluation
    history: list[dict[str, float]]
    hours: float
    note: str
    known: PatientIds = field(default_factory=lambda: patient_ids(()))
    leakage: str = NOT_RECORDED
    left_out: str = ""


def read_fold(run: Run) -> Fold:
    """Read a fold's run (E107 where it lacks its evaluation, E501 where that is not the one that was written)."""
    split = read_split(run.split)
    assert split.fold is not None
    checkpoint, _ = read_checkpoint(run.path / "train")
    held = read_predictions(newest_evaluation(run.path, "test", sha256=checkpoint.sha256))
    official = None
    if OFFICIAL in split.parts:
        official = read_predictions(newest_evaluation(run.path, OFFICIAL, sha256=checkpoint.sha256))
    return Fold(
        split.fold[0],
        split.fold[1],
        run.id,
        run.read(),
        checkpoint,
        held,
        official,
        evaluate(held),
        read_history(run.path / "train"),
        _hours(run, checkpoint.model),
        split.note,
        split.patient_ids,
        split.leakage,
        split.left_out,
    )


def _hours(run: Run, stage: str) -> float:
    """From metrics.jsonl, where an epoch that was done twice stands twice."""
    seconds: dict[int, float] = {}
    path = run.path / "metrics.jsonl"
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else (), 1):
        try:
            row = parse_json(line)
            if row.get("stage") == stage:
                seconds[int(row["epoch"])] = float(row.get("seconds") or 0.0)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            text = f"{path.name}, line {number}, is no row of a training: {error}"
            raise OctcError("OCT-E501", text, hint="restore the file, or train anew", place=str(path)) from error
    return sum(seconds.values()) / 3600


def out_of_fold(folds: Sequence[Fold]) -> Predictions | None:
    """Every image once, by the network that did not see it; None where folds hold out the same images (a fixed test).

    Raises:
        OctcError: E210 folds share a part of what they hold out.
    """
    sums = [set(fold.held.sums) for fold in folds]
    if all(one == sums[0] for one in sums[1:]) and len(folds) > 1:
        return None
    total = sum(len(set(zip(fold.held.sums, fold.held.paths, strict=True))) for fold in folds)
    everything = {pair for fold in folds for pair in zip(fold.held.sums, fold.held.paths, strict=True)}
    if len(everything) != total:
        text = f"{total - len(everything)} images are held out by more than one fold"
        raise OctcError("OCT-E210", text, hint="train the folds again, from one split of one data set")
    return _joined(folds, [fold.held for fold in folds], "out-of-fold")


def _joined(folds: Sequence[Fold], answers: Sequence[Predictions], part: str) -> Predictions:
    def all_of(name: str) -> tuple[Any, ...]:
        return tuple(value for one in answers for value in getattr(one, name))

    return Predictions(
        all_of("paths"),
        all_of("sums"),
        all_of("patients"),
        all_of("labels"),
        np.concatenate([one.logits for one in answers]),
        answers[0].views,
        answers[0].classes,
        _facts(folds, part),
    )


def ensemble(folds: Sequence[Fold]) -> Predictions | None:
    """Every fold's answers on a test that no fold trained or chose on, as views of one picture: their probabilities are
    averaged. None where there is no such test: of any other image, all folds but one have seen the patient."""
    answers = [fold.official for fold in folds]
    if any(one is None for one in answers):
        answers = [fold.held for fold in folds] if out_of_fold(folds) is None else []
    known = [one for one in answers if one is not None]
    if not known:
        return None
    orders = [{pair: i for i, pair in enumerate(zip(one.sums, one.paths, strict=True))} for one in known]
    if any(set(order) != set(orders[0]) for order in orders):
        text = "the folds were not judged on the same official test"
        raise OctcError("OCT-E706", text, hint="octc eval RUN --split official, for every fold")
    logits = [one.logits[[order[pair] for pair in orders[0]]] for one, order in zip(known, orders, strict=True)]
    views = tuple(f"fold-{fold.number}-{view}" for fold in folds for view in known[0].views)
    first = known[0]
    return Predictions(
        first.paths,
        first.sums,
        first.patients,
        first.labels,
        np.concatenate(logits, axis=1),
        views,
        first.classes,
        _facts(folds, f"ensemble of {len(folds)} folds, {first.facts['part']}"),
    )


def _facts(folds: Sequence[Fold], part: str) -> dict[str, Any]:
    first = folds[0].checkpoint
    return {
        "run": folds[0].facts.get("job"),
        "part": part,
        "runs": [fold.run for fold in folds],
        "model": first.model,
        "role": first.role,
        "dataset": first.dataset,
        "data_digest": first.data_digest,
        "warning": folds[0].note or None,
        "leakage": folds[0].leakage,
        "checkpoint_sha256": [fold.checkpoint.sha256 for fold in folds],
        "weights": first.weights,
        "chose_the_epoch": False,
    }


def check_folds(folds: Sequence[Fold]) -> None:
    """Refuse folds that are not of one job (E706), by what they say of themselves."""
    facts = [
        {"data": one.data_digest, "classes": one.classes, "network": one.model, "number of folds": fold.of}
        for fold, one in ((fold, fold.checkpoint) for fold in folds)
    ]
    odd = [name for name in facts[0] if any(other[name] != facts[0][name] for other in facts)]
    if odd:
        text = f"the folds differ in {shorten(odd)}"
        raise OctcError("OCT-E706", text, hint="train the folds again with one command")


@dataclass(frozen=True)
class Summary:
    """Everything that the files of a cross-validation say."""

    folds: Sequence[Fold]
    spread: Folds
    losses: Spread
    held: Predictions | None
    together: Predictions | None
    intervals: dict[str, tuple[float, float] | None]


def summarise(folds: Sequence[Fold]) -> Summary:
    """The summary of all folds of one job."""
    check_folds(folds)
    normal = find_normal(folds[0].checkpoint.classes)
    held = out_of_fold(folds)
    intervals: dict[str, tuple[float, float] | None] = {}
    if held is not None:
        said = combined(held)[0].argmax(1).astype(np.int64)
        labels = np.asarray(held.labels, np.int64)
        intervals = bootstrap_figures(labels, said, clusters_of(held.patients), held.classes, RESAMPLES, SEED)
    return Summary(
        folds,
        summarise_folds([fold.found.matrix for fold in folds], normal),
        spread_of([f.found.loss for f in folds]),
        held,
        ensemble(folds),
        intervals,
    )


def summary_json(found: Summary) -> dict[str, Any]:
    """The summary as a document; fractions, not percent."""
    first = found.folds[0]
    together = None if found.together is None else evaluate(found.together)
    held = patient_ids(() if found.held is None else found.held.patients)
    return {
        "kind": first.checkpoint.role,
        "model": first.checkpoint.model,
        "dataset": first.checkpoint.dataset,
        "classes": first.checkpoint.classes,
        "seed": first.facts.get("seed"),
        "protocol": first.facts.get("protocol"),
        "note": first.note or None,
        **first.known.to_json(),
        "leakage": first.leakage,
        "of": first.of,
        "folds": [fold_json(fold) for fold in found.folds],
        "spread": {name: asdict(one) for name, one in found.spread.spreads.items()},
        "loss": asdict(found.losses),
        "per_class": {name: [asdict(one) for one in rows] for name, rows in found.spread.per_class.items()},
        "out_of_fold": None
        if found.held is None
        else {
            "n": len(found.held.labels),
            "patients": held.count,
            **held.to_json(),
            "figures": _plain(found.spread.pooled),
            "bootstrap_95": found.intervals,
            "resamples": RESAMPLES,
            "drawn": "images" if held.count is None else "patients",
            "patient_bootstrap_95": None if held.count is None else found.intervals,
        },
        "ensemble": None
        if together is None or found.together is None
        else {
            "part": found.together.facts["part"],
            "n": together.figures.n,
            "figures": _plain(together.figures),
            "loss": together.loss,
            "accuracy_wilson_95": together.accuracy_wilson,
            "accuracy_patient_bootstrap_95": together.accuracy_patients,
        },
        "no_ensemble": None if together else "every image is in what the other folds trained or chose on; no official test",
    }


def fold_json(fold: Fold) -> dict[str, Any]:
    """One fold's row."""
    metrics = fold.checkpoint.metrics
    return {
        "fold": fold.number,
        "left_out": fold.left_out or None,
        "run": fold.run,
        "n": fold.found.figures.n,
        "patients": fold.found.known.count,
        "figures": _plain(fold.found.figures),
        "loss": fold.found.loss,
        "accuracy_patient_bootstrap_95": fold.found.accuracy_patients,
        "val_accuracy": metrics.get("val_accuracy"),
        "val_loss": metrics.get("val_loss"),
        "epoch": metrics.get("epoch"),
        "epochs": metrics.get("epochs"),
        "hours": fold.hours,
        "split_digest": fold.checkpoint.split_digest,
        "checkpoint_sha256": fold.checkpoint.sha256,
        "official": None if fold.official is None else _plain(evaluate(fold.official).figures),
    }


def _plain(figures: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(figures).items() if name != "per_class"}
