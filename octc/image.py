"""The one preprocessing of the house: decode with limits, one channel, resize, and (where no graph does it) normalise.

Training, calibration, golden files, evaluation and every runtime go through `read_image` and `Preprocess.prepare`.
Exported graphs take what `prepare` returns (uint8) and normalise inside, so no deployer can get mean and std wrong.

How a file becomes mode L or RGB, whatever it holds: 16-bit grey is scaled by 255/65535 (32-bit and float by their own
range), never clipped at 255; transparency is laid over black; palette, CMYK and 1-bit become RGB or L; an EXIF orientation
is applied, so that the picture stands as every viewer shows it; colour profiles are ignored.
"""

from __future__ import annotations

import io
import os
import shlex
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from octc.clahe import equalise
from octc.errors import OctcError

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP",
}  # fmt: skip
MAX_PIXELS = 64_000_000  # a wide volume montage fits, a decompression bomb does not
MIN_SIDE = 32  # pixels; smaller is no B-scan
MAX_ASPECT = 16.0
MAX_BYTES = 512 << 20
RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
VIEWS = {
    "none": ("identity",),
    "hflip": ("identity", "hflip"),
    "5": ("identity", "hflip", "vflip", "zoom", "rotate5"),
}
ZOOM = 1.1
ANGLE = 5.0  # degrees, counter-clockwise

ImageFile.LOAD_TRUNCATED_IMAGES = False
ORIENTATION = 0x0112  # EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
# What Pillow's parsers were seen to raise on altered bytes (UnidentifiedImageError is an OSError).
DAMAGE = (OSError, SyntaxError, ValueError, IndexError, KeyError, TypeError, EOFError, OverflowError, struct.error, zlib.error)
_WARNINGS = threading.Lock()  # the warnings filter belongs to the process, and images are decoded in threads


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the uint8 tensor that a graph takes, and how the graph normalises it.

    Attributes:
        size: side of the square input, pixels. The aspect ratio is not kept (as KD-OCT does).
        channels: 1 (grey; the graph repeats it to three) or 3.
        resize: "bilinear" or "bicubic", antialiased, in Pillow.
        mean, std: per network channel, of values in [0, 1].
        clahe: clip limit of the contrast equalisation before resizing (octc/clahe.py), 0 for none; clahe_grid: its tiles.
    """

    size: int
    channels: int = 1
    resize: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    clahe: float = 0.0
    clahe_grid: tuple[int, int] = (8, 8)

    def prepare(self, image: Image.Image, views: Sequence[str] = ("identity",)) -> UInt8:
        """A decoded picture -> uint8 [views, channels, size, size]."""
        picture = image.convert("L" if self.channels == 1 else "RGB")
        if self.clahe:
            picture = equalise(picture, self.clahe, self.clahe_grid)
        return np.stack([_to_array(_view(picture, name, self)) for name in views])

    def normalise(self, batch: UInt8) -> Float32:
        """uint8 [N, channels, H, W] -> float32 [N, 3, H, W], what the graph computes inside."""
        mean = np.asarray(self.mean, np.float32).reshape(1, 3, 1, 1)
        std = np.asarray(self.std, np.float32).reshape(1, 3, 1, 1)
        return (batch.astype(np.float32) / np.float32(255) - mean) / std

    def to_json(self) -> dict[str, Any]:
        """Without the equalisation where there is none."""
        value = asdict(self)
        return value if self.clahe else {key: value[key] for key in value if not key.startswith("clahe")}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Preprocess:
        if ("clahe" in value) != ("clahe_grid" in value):
            raise KeyError("clahe and clahe_grid stand together, or not at all")
        clip, (rows, columns) = value.get("clahe", 0.0), value.get("clahe_grid", (8, 8))
        if not isinstance(clip, int | float) or type(rows) is not int or type(columns) is not int:
            raise TypeError("clahe is a number, clahe_grid two whole numbers")
        return Preprocess(
            size=int(value["size"]), channels=int(value["channels"]), resize=str(value["resize"]),
            mean=_three(value["mean"]), std=_three(value["std"]), clahe=float(clip),
            clahe_grid=(rows, columns),
        )  # fmt: skip


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
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


@dataclass(frozen=True)
class Decoded:
    """A picture in mode L or RGB, and the warnings (code, text) that decoding it gave."""

    image: Image.Image
    notes: tuple[tuple[str, str], ...] = ()


def read_image(path: Path) -> Decoded:
    """Decode a file within the limits.

    Raises:
        OctcError: E201 empty or cut off, E202 not an image of an accepted format, E203 too many pixels (from the
            header, before decoding), E204 several frames, E208 outside the quality gate.
    """
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise _of_folder(path)
        size = info.st_size
        data = path.read_bytes() if 0 < size <= MAX_BYTES else b""
    except OSError as error:
        raise OctcError("OCT-E201", f"cannot be read: {error.strerror}", mend="check the path", place=str(path)) from error
    if size > MAX_BYTES:
        raise OctcError(
            "OCT-E203",
            f"file of {size} bytes, the limit is {MAX_BYTES}",
            mend="export a smaller image",
            place=str(path),
        )
    decoded = decode_image(data, str(path))
    expected = SUFFIXES.get(path.suffix.lower())
    found = decoded.image.info.get("octc_format")
    if expected is not None and expected != found:
        note = ("OCT-W201", f"{path.name}: content is {found}, the name says {expected}")
        return Decoded(decoded.image, (note, *decoded.notes))
    return decoded


def _of_folder(path: Path) -> OctcError:
    """A folder where an image should be: one that could not be entered is given as itself by whoever walked to it."""
    try:
        with os.scandir(path) as entries:
            list(entries)
    except OSError as error:
        text = f"folder cannot be read, so nobody knows what is in it: {error.strerror}"
        mend = f"chmod -R u+rX {shlex.quote(str(path))}   (or have its owner do it)"
        return OctcError("OCT-E231", text, mend=mend, place=str(path))
    return OctcError("OCT-E201", "cannot be read: Is a directory", mend="check the path", place=str(path))


def decode_image(data: bytes, place: str) -> Decoded:
    """Decode compressed bytes; `place` is what errors name. Raises as `read_image` does."""

    def refuse(code: str, message: str, mend: str) -> OctcError:
        return OctcError(code, message, mend=mend, place=place)

    if not data:
        raise refuse("OCT-E201", "image is empty (0 bytes)", "fetch the file again")
    try:
        picture, frames = _open(data)
    except Image.DecompressionBombError as error:
        raise refuse("OCT-E203", f"image is too large: {error}", f"the limit is {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise refuse("OCT-E202", "not an image (PNG, JPEG, TIFF or BMP, judged by content)", "replace the file") from error
    except DAMAGE as error:
        text = f"cannot be read as an image (PNG, JPEG, TIFF or BMP, judged by content): {error}"
        raise refuse("OCT-E202", text, "replace the file") from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise refuse("OCT-E203", f"{width} x {height} px, the limit is {MAX_PIXELS} pixels", "crop or downscale the image")
    if frames != 1:
        raise refuse("OCT-E204", f"file with {frames} frames", "save the B-scan that is meant as a file of its own")
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise refuse(
            "OCT-E208", f"{width} x {height} px is outside the quality gate",
            f"sides of at least {MIN_SIDE} px and an aspect ratio up to {MAX_ASPECT:g}",
        )  # fmt: skip
    kind = picture.format
    try:
        if kind == "PNG":
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()  # sums of the chunks, which loading does not look at
        with _muted() if kind == "TIFF" else nullcontext():  # the others are silent here and need not wait for each other
            picture.load()
        turn = _orientation(picture)
        converted, rule = _by_rule(picture)
    except DAMAGE as error:
        raise refuse("OCT-E201", f"image is damaged or cut off: {error}", "fetch the file again") from error
    rules = [rule] if rule else []
    if turn in TURNS and kind != "TIFF":  # Pillow turns TIFF itself
        converted = converted.transpose(TURNS[turn])
        rules.append(f"turned by its EXIF orientation {turn}")
    converted.info = {"octc_format": kind}
    return Decoded(converted, tuple(("OCT-W208", f"{Path(place).name}: {text}") for text in rules))


@contextmanager
def _muted() -> Iterator[None]:
    """Without Pillow's warnings about sizes and metadata: the limits here decide."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(data: bytes) -> tuple[Image.Image, int]:
    """Header only: the picture and how many frames."""
    with _muted():
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = picture.size
        return picture, int(getattr(picture, "n_frames", 1)) if width * height <= MAX_PIXELS else 1


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation of a loaded picture (for PNG, asking would load it); 1 where the metadata cannot be read."""
    with _muted():
        try:
            return int(picture.getexif().get(ORIENTATION, 1))
        except DAMAGE:
            return 1


def _by_rule(picture: Image.Image) -> tuple[Image.Image, str | None]:
    """Any mode -> L or RGB, with the rule that was applied (None: nothing to say)."""
    mode = picture.mode
    if mode in ("L", "RGB"):
        return picture.copy(), None
    if mode in ("I", "F") or mode.startswith("I;16"):
        values = np.asarray(picture, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("pixel values that are not finite")
        low, high = min(0.0, float(values.min())), float(values.max())
        top = max(high, 1.0 if mode == "F" else 65535.0)
        scaled = np.rint((values - low) * (255.0 / (top - low))).astype(np.uint8)
        return Image.fromarray(scaled), f"{mode} scaled to 8 bits ({low:g} to {top:g} become 0 to 255)"
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layer).convert("RGB"), f"{mode} laid over black"
    if mode == "1":
        return picture.convert("L"), "1-bit image as 0 and 255"
    return picture.convert("RGB"), f"{mode} converted to RGB"


def quality_notes(batch: UInt8) -> str | None:
    """Why a prepared image [1, channels, H, W] cannot be trusted, or None: constant or nearly all black."""
    low, high = int(batch.min()), int(batch.max())
    if low == high:
        return f"constant image (every pixel {low})"
    if float((batch > 8).mean()) < 0.01:
        return "nearly all black"
    return None
