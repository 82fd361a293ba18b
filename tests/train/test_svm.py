"""HOG against scikit-image, and the SVM in the network against scikit-learn's pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from octc.imaging.preprocess import Preprocess
from octc.train.loop.evaluate import logits_of, network_input
from octc.train.loop.training import Data, Fitted
from octc.train.networks.hog import HogSvm, hog, hog_length
from octc.train.networks.svm import fit_svm
from octc.train.recipes.config import Stage

PRE = Preprocess(64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
STAGE = Stage(model="hog-svm", weights="none", size=64, epochs=1, lr=0.0, batch=16, mean=PRE.mean, std=PRE.std)


def pictures(count: int, classes: int, seed: int = 0) -> tuple[Any, list[int]]:
    """Stripes of as many directions as there are classes, under noise."""
    rng = np.random.default_rng(seed)
    labels = [i % classes for i in range(count)]
    y, x = np.mgrid[:64, :64]
    waves = [np.sin((np.cos(a) * x + np.sin(a) * y) / 3) for a in np.pi * np.array(labels) / classes]
    images = 128 + 60 * np.stack(waves) + rng.normal(0, 40, (count, 64, 64))
    return np.clip(images, 0, 255).astype(np.uint8)[:, None], labels


def data_of(classes: int, labels: list[int] | None = None) -> Data:
    images, known = pictures(48, classes)
    val, val_labels = pictures(24, classes, 1)
    return Data(images, labels or known, val, val_labels, PRE)


@pytest.mark.parametrize("size", [64, 224])
def test_hog_is_scikit_images(size: int) -> None:
    feature = pytest.importorskip("skimage.feature")
    rng = np.random.default_rng(1)
    smooth = np.add.outer(np.arange(size), 2 * np.arange(size)) % 256
    images = np.stack([rng.integers(0, 256, (size, size)), np.full((size, size), 90), smooth]).astype(np.uint8)
    found = hog(torch.from_numpy(images).double() / 255)
    assert found.shape == (3, hog_length(size))
    for mine, image in zip(found, images, strict=True):
        expected = feature.hog(
            image / 255, orientations=9, pixels_per_cell=(16, 16), cells_per_block=(2, 2), block_norm="L2-Hys"
        )
        assert mine.numpy() == pytest.approx(expected, abs=1e-6)  # it sums in float32
    assert hog_length(224) == 6084


def test_hog_in_float32_as_it_is_used() -> None:
    feature = pytest.importorskip("skimage.feature")
    images, _ = pictures(3, 3)
    found = HogSvm(3, 64).features(network_input(torch.from_numpy(images), PRE))
    for mine, image in zip(found, images, strict=True):
        expected = feature.hog(image[0] / 255, 9, (16, 16), (2, 2), block_norm="L2-Hys")
        assert np.abs(mine.numpy() - expected).max() < 1e-3
        assert np.abs(mine.numpy() - expected).mean() < 1e-5


def fit(data: Data, classes: int, folder: Path) -> tuple[HogSvm, Fitted]:
    pytest.importorskip("sklearn")
    model = HogSvm(classes, 64)
    fitted = fit_svm(model, STAGE, data, folder=folder, seed=0, tick=lambda _: None, report=lambda _: None)
    return model, fitted


@pytest.mark.parametrize("classes", [2, 3])
def test_the_network_says_what_the_pipeline_of_scikit_learn_says(tmp_path: Path, classes: int) -> None:
    data = data_of(classes)
    model, fitted = fit(data, classes, tmp_path)
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    features = model.features(network_input(torch.from_numpy(data.images), PRE)).numpy()
    reference = make_pipeline(StandardScaler(), LinearSVC(C=1.0, class_weight="balanced", random_state=0, max_iter=2000))
    reference.fit(features.astype(np.float64), data.labels)
    val = model.features(network_input(torch.from_numpy(data.val_images), PRE)).numpy()
    margins = reference.decision_function(val.astype(np.float64))
    found = logits_of(model, data.val_images, PRE, "cpu").numpy()
    if classes == 2:
        assert found[:, 1] == pytest.approx(margins, abs=1e-3)
        assert found[:, 0] == pytest.approx(-margins, abs=1e-3)
    else:
        assert found == pytest.approx(margins, abs=1e-3)
    assert fitted.metrics["val_accuracy"] > 0.9 > 1 / classes
    assert fitted.metrics["converged"]
    assert (tmp_path / "history.csv").is_file()
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in fitted.state.items())


def test_a_class_without_training_images_never_wins(tmp_path: Path) -> None:
    images, labels = pictures(40, 3)
    data = replace(data_of(3), images=images, labels=[0 if k == 1 else k for k in labels])
    model, _ = fit(data, 3, tmp_path)
    assert not bool((logits_of(model, data.val_images, PRE, "cpu").argmax(1) == 1).any())


def test_a_constant_descriptor_is_no_division_by_zero(tmp_path: Path) -> None:
    data = data_of(3)
    flat = np.array(data.images)
    flat[:, :, :16] = 7  # the upper cells are without any gradient
    _, fitted = fit(replace(data, images=flat), 3, tmp_path)
    assert all(bool(torch.isfinite(t).all()) for t in fitted.state.values())
