"""Contrast equalisation: what it must do on pictures made here, and how near scikit-image's is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from octc.imaging.clahe import _from_lab, _to_lab, equalise, equalise_plane
from octc.imaging.preprocess import Preprocess


def test_a_dark_corner_gains_contrast_and_a_constant_plane_stays_one_level() -> None:
    rng = np.random.default_rng(0)
    plane = rng.integers(40, 60, (96, 120), dtype=np.uint8)
    found = equalise_plane(plane, 4.0, (4, 5))
    assert found.std() > 2 * plane.std()
    assert found.shape == plane.shape
    flat = equalise_plane(np.full((50, 70), 77, np.uint8), 3.0, (20, 30))
    assert flat.min() == flat.max()


def test_it_is_near_that_of_scikit_image() -> None:
    exposure = pytest.importorskip("skimage.exposure", reason="scikit-image is not installed")
    y, x = np.mgrid[0:128, 0:128]
    plane = (90 + 30 * np.sin(x / 9) + 20 * np.cos(y / 13)).astype(np.uint8)
    ours = equalise_plane(plane, 1000.0, (4, 4)).astype(float)  # without a limit both are plain adaptive equalisation
    theirs = 255 * exposure.equalize_adapthist(plane, kernel_size=(32, 32), clip_limit=1.0, nbins=256)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.98


def test_colours_survive_lab_and_hue_is_left_alone() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.abs(_from_lab(_to_lab(pixels)).astype(int) - pixels).max() <= 1
    grey = Image.fromarray(np.repeat(pixels[..., :1], 3, axis=2))
    out = np.asarray(equalise(grey, 3.0, (2, 2))).astype(int)
    assert np.abs(out - out[..., :1]).max() <= 1


def test_it_is_recorded_in_the_preprocessing_and_absent_where_it_is_off() -> None:
    picture = Image.fromarray(np.random.default_rng(2).integers(50, 90, (64, 64, 3), dtype=np.uint8))
    plain, equal = Preprocess(32, 3), Preprocess(32, 3, clahe=3.0, clahe_grid=(20, 30))
    assert (plain.prepare(picture) != equal.prepare(picture)).any()
    assert "clahe" not in plain.to_json()
    assert Preprocess.from_json(equal.to_json()) == equal
    assert Preprocess.from_json(plain.to_json()) == plain
