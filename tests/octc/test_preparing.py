"""Pictures and files alike as the input of a network; each is shown once, as it was read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.core.errors import OctcError
from octc.imaging.preparing import prepare_pictures
from octc.imaging.preprocess import Preprocess


def test_files_and_pictures_are_prepared_alike(tmp_path: Path) -> None:
    pre = Preprocess(size=64, channels=1)
    grey = np.random.default_rng(0).integers(0, 65536, (80, 100), dtype=np.uint16)
    picture = Image.fromarray(np.arange(8000, dtype=np.uint8).reshape(80, 100))
    picture.save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "deep.tif")
    shown: list[Image.Image] = []
    found = prepare_pictures([str(tmp_path / "a.png"), picture, tmp_path / "deep.tif"], pre, shown.append)
    assert (found.shape, found.dtype) == ((3, 1, 64, 64), np.dtype(np.uint8))
    assert np.array_equal(found[0], found[1])
    assert [one.size for one in shown] == [(100, 80)] * 3
    assert prepare_pictures([], pre).shape == (0, 1, 64, 64)
    with pytest.raises(OctcError):
        prepare_pictures([tmp_path / "absent.png"], pre)
