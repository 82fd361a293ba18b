"""The SVM of the HOG baseline, solved by scikit-learn (octc[baselines]) and put into the network's last layer."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from octc.core.optional import need
from octc.train.batches.images import eval_batches
from octc.train.loop.evaluate import logits_of, network_input
from octc.train.loop.history import write_history
from octc.train.loop.tensorboard import write_events
from octc.train.loop.training import Data, Fitted, Report
from octc.train.networks.hog import HogSvm
from octc.train.recipes.config import Stage

log = logging.getLogger(__name__)
C = 1.0
ROUNDS = 2000


def fit_svm(
    model: HogSvm, stage: Stage, data: Data, *, folder: Path, seed: int, tick: Callable[[int], None], report: Report
) -> Fitted:
    """Standardise the descriptors of the training images, as they are, and solve linear SVMs, one class against the rest.

    C = 1, squared hinge, balanced class weights. The standardisation is folded into the weights. There are no epochs: one row.
    """
    svm: Any = need("sklearn.svm")
    started = time.monotonic()
    features = np.concatenate(list(_features(model, stage, data, tick)))
    mean, spread = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    scale = 1 / np.where(spread > 0, spread, 1.0)
    standardised = (features - mean) * scale
    classifier = svm.LinearSVC(C=C, class_weight="balanced", random_state=seed, dual=True, max_iter=ROUNDS)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        classifier.fit(standardised, np.asarray(data.labels))
    for warning in said:
        log.warning("%s", warning.message)
    weights, bias = _rows(classifier, model.head.out_features)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weights * scale))
        model.head.bias.copy_(torch.from_numpy(bias - (weights * scale) @ mean))
    row = _judge(model, stage, data, standardised @ weights.T + bias)
    row["seconds"] = round(time.monotonic() - started, 1)
    write_history(folder, [row])
    write_events(folder / "tensorboard", [row])
    report(row)
    metrics = {"epoch": 1, "epochs": 1, "select": "none: one solution", "val_n": len(data.val_labels)}
    metrics |= {"val_accuracy": row["val_acc"], "val_loss": row["val_loss"], "converged": int(classifier.n_iter_) < ROUNDS}
    return Fitted({name: t.clone() for name, t in model.state_dict().items()}, metrics, [row])


@torch.no_grad()
def _features(model: HogSvm, stage: Stage, data: Data, tick: Callable[[int], None]) -> Iterator[npt.NDArray[np.float32]]:
    for chunk in eval_batches(data.images, stage.batch):
        yield model.features(network_input(chunk, data.preprocess)).numpy()
        tick(1)


def _rows(classifier: Any, classes: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """One row of weights and one bias for each class; two classes share one margin, of opposite signs."""
    weights, bias = classifier.coef_, classifier.intercept_
    if len(weights) == 1:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    full, shift = np.zeros((classes, weights.shape[1])), np.full(classes, -1e3)  # a class without images never wins
    full[classifier.classes_], shift[classifier.classes_] = weights, bias
    return full, shift


def _judge(model: HogSvm, stage: Stage, data: Data, margins: npt.NDArray[np.float64]) -> dict[str, Any]:
    row: dict[str, Any] = {"epoch": 1}
    val = logits_of(model.cpu(), data.val_images, data.preprocess, "cpu", stage.batch)
    for part, logits, known in (("train", torch.from_numpy(margins), data.labels), ("val", val, data.val_labels)):
        labels = torch.tensor(list(known))
        row[f"{part}_loss"] = float(functional.cross_entropy(logits, labels))
        row[f"{part}_acc"] = float((logits.argmax(1) == labels).double().mean())
    return {**row, "lr": 0.0}
