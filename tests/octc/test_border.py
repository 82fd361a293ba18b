"""Parts of a mask at its border, against scipy's labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from octc.imaging.border import border_parts
from octc.imaging.input_statistics import mean_filter


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.6, 0.65, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(1, 7), (23, 1), (31, 40)])
def test_parts_at_the_border_are_those_of_scipys_labels(share: float, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for least in (1, 5, 40):
        mask = rng.random(shape) < share
        labels, _ = ndimage.label(mask)
        border = {*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]} - {0}
        kept = [one for one in border if (labels == one).sum() >= least]
        assert (border_parts(mask, least) == np.isin(labels, kept)).all()


def test_means_of_neighbours_are_those_of_scipys_filter() -> None:
    grey = np.random.default_rng(0).random((20, 31))
    for sizes in ((5, 5), (5, 9), (3, 7), (1, 1)):
        assert np.abs(mean_filter(grey, sizes) - ndimage.uniform_filter(grey, sizes)).max() < 1e-12
