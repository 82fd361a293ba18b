"""The one preprocessing of the house: one channel or three, contrast, resize, and the numbers with which a graph normalises.

Training, calibration, golden files, evaluation and every runtime go through `read_image` (octc/imaging/decode.py) and
`Preprocess.prepare`. Exported graphs take what `prepare` returns (uint8) and normalise inside, so no deployer can get mean and
std wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from octc.imaging.clahe import equalise
from octc.imaging.decode import Values

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
VIEWS = {
    "none": ("identity",),
    "hflip": ("identity", "hflip"),
    "5": ("identity", "hflip", "vflip", "zoom", "rotate5"),
}
ZOOM = 1.1
ANGLE = 5.0  # degrees, counter-clockwise


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the uint8 tensor that a graph takes, and how the graph normalises it.

    Attributes:
        size: side of the square input, pixels. The aspect ratio is not kept (as KD-OCT does).
        channels: 1 (grey; the graph repeats it to three) or 3.
        resize: "bilinear" or "bicubic", antialiased, in Pillow.
        mean, std: per network channel, of values in [0, 1].
        clahe: clip limit of the contrast equalisation before resizing (octc/imaging/clahe.py), 0 for none;
            clahe_grid: its tiles.
        value_range: stored grey values that become 0 and 255 when a file is decoded (the argument of that name of
            `octc.imaging.decode.read_image`); None: the default of its format.

    >>> from PIL import Image
    >>> Preprocess(size=224).prepare(Image.new("L", (768, 496))).shape
    (1, 1, 224, 224)
    """

    size: int
    channels: int = 1
    resize: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    clahe: float = 0.0
    clahe_grid: tuple[int, int] = (8, 8)
    value_range: Values | None = None

    def prepare(self, image: Image.Image, views: Sequence[str] = ("identity",)) -> UInt8:
        """A decoded picture -> uint8 [views, channels, size, size]."""
        picture = image.convert("L" if self.channels == 1 else "RGB")
        if self.clahe:
            picture = equalise(picture, self.clahe, self.clahe_grid)
        return np.stack([_to_array(_view(picture, name, self)) for name in views])

    @property
    def affine(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(scale, shift) of each network channel: values 0 to 255 are normalised as x * scale - shift, in every graph."""
        return tuple(1 / 255 / s for s in self.std), tuple(m / s for m, s in zip(self.mean, self.std, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Without the equalisation and the value range where there is none."""
        value = asdict(self)
        absent = (*(() if self.clahe else ("clahe", "clahe_grid")), *(() if self.value_range else ("value_range",)))
        return {key: value[key] for key in value if key not in absent}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Preprocess:
        if ("clahe" in value) != ("clahe_grid" in value):
            raise KeyError("clahe and clahe_grid stand together, or not at all")
        clip, (rows, columns) = value.get("clahe", 0.0), value.get("clahe_grid", (8, 8))
        if not isinstance(clip, int | float) or type(rows) is not int or type(columns) is not int:
            raise TypeError("clahe is a number, clahe_grid two whole numbers")
        values = value.get("value_range")
        if values is not None and not (len(values) == 2 and float(values[0]) < float(values[1])):
            raise ValueError("value_range is two numbers, the lower one first")
        return Preprocess(
            size=int(value["size"]),
            channels=int(value["channels"]),
            resize=str(value["resize"]),
            mean=_three(value["mean"]),
            std=_three(value["std"]),
            clahe=float(clip),
            clahe_grid=(rows, columns),
            value_range=None if values is None else (float(values[0]), float(values[1])),
        )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    numbers = [float(value) for value in values]
    first, second, third = numbers * 3 if len(numbers) == 1 else numbers  # of one channel, which a graph spreads to three
    return first, second, third


def _to_array(picture: Image.Image) -> UInt8:
    array = np.asarray(picture, dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _resized(picture: Image.Image, size: int, how: str) -> Image.Image:
    return picture if picture.size == (size, size) else picture.resize((size, size), RESAMPLE[how])


def _view(picture: Image.Image, name: str, pre: Preprocess) -> Image.Image:
    """One deterministic view of test-time augmentation (KD-OCT's five; its random rotation is +5 degrees here)."""
    if name == "zoom":
        side = int(pre.size * ZOOM)
        start = (side - pre.size) // 2
        return _resized(picture, side, pre.resize).crop((start, start, start + pre.size, start + pre.size))
    plain = _resized(picture, pre.size, pre.resize)
    if name == "identity":
        return plain
    if name == "hflip":
        return plain.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if name == "vflip":
        return plain.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if name == "rotate5":
        return plain.rotate(ANGLE, Image.Resampling.NEAREST)
    raise KeyError(name)


def quality_notes(batch: UInt8) -> str | None:
    """Why a prepared image [1, channels, H, W] cannot be trusted, or None: constant or nearly all black."""
    low, high = int(batch.min()), int(batch.max())
    if low == high:
        return f"constant image (every pixel {low})"
    if float((batch > 8).mean()) < 0.01:
        return "nearly all black"
    return None
