"""What a picture goes through before it reaches a classifier: noise, brightness, blur, JPEG, resizing. Deterministic.

A plain table of kinds, each with five levels from mild to severe (the levels of Hendrycks, Dietterich 2019, where a kind is one
of theirs). Pictures are L or RGB and keep their mode and size.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter


@dataclass(frozen=True)
class Kind:
    """A kind of disturbance: its levels, what a level is, and the function (picture, level, seed) -> picture."""

    name: str
    unit: str
    levels: tuple[float, ...]
    apply: Callable[[Image.Image, float, int], Image.Image]


def _noise(picture: Image.Image, sigma: float, seed: int) -> Image.Image:
    """Additive normal noise, the same in every channel: sigma as a share of the full range."""
    values = np.asarray(picture, np.float32)
    drawn = np.random.default_rng(seed).normal(0, 255 * sigma, values.shape[:2])
    noise = drawn if values.ndim == 2 else drawn[:, :, None]
    return Image.fromarray(np.clip(np.rint(values + noise), 0, 255).astype(np.uint8))


def _speckle(picture: Image.Image, sigma: float, seed: int) -> Image.Image:
    """Multiplicative normal noise, as coherent imaging has it."""
    values = np.asarray(picture, np.float32)
    drawn = np.random.default_rng(seed).normal(1, sigma, values.shape[:2])
    factor = drawn if values.ndim == 2 else drawn[:, :, None]
    return Image.fromarray(np.clip(np.rint(values * factor), 0, 255).astype(np.uint8))


def _brightness(picture: Image.Image, shift: float, _seed: int) -> Image.Image:
    """A constant added: a share of the full range, may be negative."""
    return picture.point([min(255, max(0, round(v + 255 * shift))) for v in range(256)] * len(picture.getbands()))


def _blur(picture: Image.Image, radius: float, _seed: int) -> Image.Image:
    """Gaussian, its standard deviation in pixels of the file."""
    return picture.filter(ImageFilter.GaussianBlur(radius))


def _jpeg(picture: Image.Image, quality: float, _seed: int) -> Image.Image:
    """Written once more as JPEG of this quality."""
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=int(quality))
    with Image.open(stream) as again:
        return again.convert(picture.mode)


def _resize(picture: Image.Image, share: float, _seed: int) -> Image.Image:
    """Shrunk to this share of each side and brought back."""
    width, height = picture.size
    small = picture.resize((max(8, round(width * share)), max(8, round(height * share))), Image.Resampling.BILINEAR)
    return small.resize((width, height), Image.Resampling.BILINEAR)


KINDS = (
    Kind("noise", "sigma, share of full range", (0.04, 0.08, 0.12, 0.18, 0.26), _noise),
    Kind("speckle", "sigma of the factor", (0.15, 0.25, 0.35, 0.45, 0.6), _speckle),
    Kind("brightness", "added share of full range", (0.1, 0.2, 0.3, 0.4, 0.5), _brightness),
    Kind("darkness", "added share of full range", (-0.1, -0.2, -0.3, -0.4, -0.5), _brightness),
    Kind("blur", "pixels", (1, 2, 3, 4, 6), _blur),
    Kind("jpeg", "quality", (60, 40, 25, 15, 7), _jpeg),
    Kind("resize", "share of each side", (0.6, 0.4, 0.3, 0.2, 0.12), _resize),
)


def seed_of(image_id: str, kind: str, level: float) -> int:
    """The same noise for a picture on every machine and for every model."""
    return int.from_bytes(hashlib.sha256(f"{image_id} {kind} {level:g}".encode()).digest()[:8], "big")
