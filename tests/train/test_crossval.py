"""A cross-validation's summary from answers made here: spread, out-of-fold, ensemble, intervals, the files of F54."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from octc.core.errors import OctcError
from octc.imaging.preprocess import Preprocess
from octc.stats.cluster_bootstrap import resampled_weights
from octc.stats.folds import bootstrap_figures
from octc.stats.metrics import confusion_matrix, metrics_of, softmax
from octc.train.crossval.combine import Fold, ensemble, out_of_fold, summarise
from octc.train.crossval.files import RESULTS, TOTALS, write_summary
from octc.train.evaluation.outcome import Predictions, evaluate, read_predictions
from octc.train.loop.checkpoint import Checkpoint

CLASSES = ("cnv", "drusen", "normal")


def answers(rng: np.random.Generator, patients: range, part: str, good: float = 2.0) -> Predictions:
    """Four images a patient; the true class has `good` more on average."""
    who = [p for p in patients for _ in range(4)]
    labels = [p % 3 for p in who]
    logits = rng.normal(0, 1, (len(who), 1, 3)).astype(np.float32)
    logits[np.arange(len(who)), 0, labels] += good
    names = tuple(f"{p}-{i}.png" for i, p in enumerate(who))
    return Predictions(
        names, tuple(f"{part}{name}" for name in names), tuple(f"p{p}" for p in who), tuple(labels), logits, ("identity",),
        CLASSES, {"part": part},
    )  # fmt: skip


def make_folds(k: int = 3, *, official: bool = True, **fields: Any) -> list[Fold]:
    rng = np.random.default_rng(4)
    tests = [answers(rng, range(900, 912), "official") for _ in range(k)]
    folds = []
    for number in range(1, k + 1):
        held = answers(rng, range(12 * number, 12 * number + 12), "test", good=1.0 + 0.4 * number)
        checkpoint = Checkpoint(
            role="student", model="test_resnet", model_kwargs={}, classes=CLASSES, preprocess=Preprocess(64),
            recipe={"distillation": {"temperature": 4.0, "alpha": 0.7}}, dataset="folder", split_digest=str(number),
            data_digest="d", metrics={"val_accuracy": 0.8 + 0.01 * number, "val_loss": 0.5, "epoch": 2, "epochs": 3 + number},
            parent={"model": "big"}, sha256=f"{number}" * 64,
        )  # fmt: skip
        fold = Fold(
            number, k, f"r-{number:04d}", {"job": "cv-x", "seed": 0}, checkpoint, held, tests[number - 1] if official else None,
            evaluate(held), [], 0.5, "",
        )  # fmt: skip
        folds.append(replace(fold, **fields))
    return folds


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_f54_tables_have_kd_octs_columns_and_say_what_the_folds_say(tmp_path: Path) -> None:
    folds = make_folds()
    document = write_summary(tmp_path / "cv", folds)
    results, (total,) = rows(tmp_path / "cv" / "cv_results.csv"), rows(tmp_path / "cv" / "training_summary.csv")
    assert list(results[0]) == list(RESULTS)
    assert list(results[0])[:4] == ["fold", "test_accuracy", "test_loss", "best_val_acc"]
    assert list(total) == list(TOTALS)
    accuracies = [float(row["test_accuracy"]) for row in results]
    assert accuracies == [fold.found.figures.accuracy for fold in folds]
    assert float(total["mean_test_acc"]) == pytest.approx(np.mean(accuracies), abs=1e-12)
    assert float(total["std_test_acc"]) == pytest.approx(np.std(accuracies), abs=1e-12)  # ddof 0, as published
    assert float(total["std_test_acc_ddof1"]) == pytest.approx(np.std(accuracies, ddof=1), abs=1e-12)
    assert (total["teacher_backbone"], total["alpha"], total["beta"], total["n_folds"]) == ("big", "0.7", "0.3", "3")
    assert float(total["mean_epochs"]) == 5.0
    assert float(total["total_training_time_hours"]) == 1.5
    assert document["spread"]["accuracy"]["std_population"] == pytest.approx(np.std(accuracies), abs=1e-12)
    with Image.open(tmp_path / "cv" / "cv_summary.png") as picture:
        assert len(set(picture.convert("L").tobytes())) > 5
    assert b"ensemble" in (tmp_path / "cv" / "cv_summary.svg").read_bytes()


def test_f45_out_of_fold_holds_every_image_once_and_is_the_sum_of_the_matrices(tmp_path: Path) -> None:
    folds = make_folds()
    write_summary(tmp_path / "cv", folds)
    stored = read_predictions(tmp_path / "cv" / "out-of-fold")
    assert len(set(stored.sums)) == len(stored.sums) == sum(len(fold.held.sums) for fold in folds)
    found = evaluate(stored)
    assert found.matrix.tolist() == np.sum([fold.found.matrix for fold in folds], axis=0).tolist()
    assert stored.facts["chose_the_epoch"] is False


def test_f45_the_ensemble_is_the_mean_softmax_on_the_official_test_only(tmp_path: Path) -> None:
    folds = make_folds()
    shuffled = folds[1].official
    assert shuffled is not None
    order = np.random.default_rng(0).permutation(len(shuffled.labels))  # a machine may list them in another order
    moved = {name: tuple(getattr(shuffled, name)[i] for i in order) for name in ("paths", "sums", "patients", "labels")}
    folds[1] = replace(folds[1], official=replace(shuffled, logits=shuffled.logits[order], **moved))
    together = ensemble(folds)
    assert together is not None
    mean = np.mean([softmax(f.official.logits[:, 0]) for f in make_folds() if f.official is not None], axis=0)
    right = float((mean.argmax(1) == np.array(together.labels)).mean())
    assert evaluate(together).figures.accuracy == right
    assert right > max(float(evaluate(f.official).figures.accuracy or 0) for f in folds if f.official is not None) - 0.1
    write_summary(tmp_path / "cv", folds)
    assert evaluate(read_predictions(tmp_path / "cv" / "ensemble")).figures.accuracy == right
    without = write_summary(tmp_path / "none", make_folds(official=False))
    assert without["ensemble"] is None
    assert "official" in without["no_ensemble"]
    assert not (tmp_path / "none" / "ensemble").exists()


def test_folds_that_share_or_differ_are_refused() -> None:
    folds = make_folds()
    with pytest.raises(OctcError, match="held out by more than one") as caught:
        out_of_fold([folds[0], replace(folds[1], held=folds[0].held), folds[2]])
    assert caught.value.code == "OCT-E210"
    with pytest.raises(OctcError, match="differ in data") as caught:
        summarise([folds[0], replace(folds[1], checkpoint=replace(folds[1].checkpoint, data_digest="e"))])
    assert caught.value.code == "OCT-E706"
    odd = replace(folds[1], official=answers(np.random.default_rng(1), range(800, 812), "official"))
    with pytest.raises(OctcError, match="same official test"):
        ensemble([folds[0], odd])


def test_one_fixed_test_has_no_out_of_fold_but_an_ensemble() -> None:
    """KD-OCT on UCSD: five networks and one test are not a cross-validation (A2)."""
    held = make_folds()[0].held
    same = [replace(fold, held=held, official=None, note="LEAKY") for fold in make_folds()]
    assert out_of_fold(same) is None
    found = ensemble(same)
    assert found is not None
    assert found.facts["warning"] == "LEAKY"


def test_intervals_are_the_percentiles_of_whole_patients_drawn() -> None:
    held = out_of_fold(make_folds())
    assert held is not None
    said = held.logits[:, 0].argmax(1).astype(np.int64)
    labels = np.array(held.labels)
    _, clusters = np.unique(held.patients, return_inverse=True)
    found = bootstrap_figures(labels, said, clusters, CLASSES, 400, 1)
    values = []
    for weights in resampled_weights(int(clusters.max()) + 1, 400, 1):
        for row in weights:
            times = row[clusters].astype(int)
            figures = metrics_of(confusion_matrix(np.repeat(labels, times), np.repeat(said, times), 3), 2)
            values.append(
                (figures.accuracy, figures.macro_f1, figures.disease_vs_normal_sensitivity, figures.per_class[1].sensitivity)
            )
    names = ("accuracy", "macro_f1", "disease_vs_normal_sensitivity", "sensitivity drusen")
    for name, column in zip(names, np.array(values).T, strict=True):
        limits = np.quantile(column, [0.025, 0.975], method="inverted_cdf")
        assert found[name] == pytest.approx(tuple(limits), abs=1e-12), name
    assert bootstrap_figures(labels, said, np.zeros(len(labels), int), CLASSES, 10, 1)["accuracy"] is None
