"""Pictures as a caller has them, files or opened ones, as the input of a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from octc.imaging.decode import read_image
from octc.imaging.preprocess import Preprocess, UInt8


def prepare_pictures(
    pictures: Iterable[str | os.PathLike[str] | Image.Image],
    preprocess: Preprocess,
    look: Callable[[Image.Image], None] | None = None,
) -> UInt8:
    """uint8 [N, C, S, S] of paths and Pillow pictures, each read once.

    Args:
        look: is shown every picture, as it was read.

    Raises:
        OctcError: as `read_image`.
    """
    rows = []
    for one in pictures:
        picture = one if isinstance(one, Image.Image) else read_image(Path(one), preprocess.value_range).image
        if look is not None:
            look(picture)
        rows.append(preprocess.prepare(picture)[0])
    shape = (0, preprocess.channels, preprocess.size, preprocess.size)
    return np.stack(rows) if rows else np.zeros(shape, np.uint8)
