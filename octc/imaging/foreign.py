"""Preprocessing as other libraries write it down, read as data: what of it `Preprocess` does, and what it does not.

timm's `pretrained_cfg` (config.json of a model on the Hugging Face hub), the presets of torchvision, `preprocessor_config.json`
of transformers, and octc's own. `Foreign.picture` repeats what the source states, so that the difference can be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from octc.core.errors import OctcError, shorten
from octc.imaging.decode import Values
from octc.imaging.preprocess import RESAMPLE, Float32, Preprocess, UInt8

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FILTERS = {
    "nearest": Image.Resampling.NEAREST, "lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING, **RESAMPLE,
}  # fmt: skip
# PIL.Image.Resampling as numbers, which is how preprocessor_config.json names them
NUMBERED = {int(value): name for name, value in FILTERS.items()}
SQUASH, SHORTEST, LEAVE = "squash", "shortest", "leave"
CUBIC = -0.75  # of a bicubic kernel without antialiasing (PyTorch, OpenCV)
# Keys of preprocessor_config.json that change no pixel, or that `_of_transformers` reads
HARMLESS = {"do_convert_rgb", "do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_flip_channel_order"}
PROCESSORS = ("image_processor_type", "feature_extractor_type", "image_mean", "do_resize", "do_normalize")
EXAMPLE = '{"size": 224, "channels": 3, "resize": "bilinear", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}'
WIDEST = 2.0  # times the range of the pixels that a mean or a standard deviation may be
HINT = f"config.json of timm, preprocessor_config.json of transformers, torchvision's crop_size and resize_size, or {EXAMPLE}"


@dataclass(frozen=True)
class Foreign:
    """How a network was fed where it was trained.

    Attributes:
        source: "timm", "torchvision", "transformers" or "octc".
        size: side of what the network sees, pixels. between: side that a picture is resized to before its middle is cut out.
        how: SQUASH (both sides become `between`), SHORTEST (the shorter one does) or LEAVE (nothing is resized).
        resample: a key of FILTERS. antialias: whether a smaller picture is averaged over, as Pillow does it.
        mean, std: of values in [0, 1]. factor: what a value of 0 to 255 is multiplied by before; 1/255 usually.
        channels: 1 or 3. bgr: blue comes first.
    """

    source: str
    size: int
    between: int
    how: str = SQUASH
    resample: str = "bilinear"
    antialias: bool = True
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    factor: float = 1 / 255
    channels: int = 3
    bgr: bool = False
    clahe: Preprocess | None = None
    value_range: Values | None = None

    @property
    def preprocess(self) -> Preprocess:
        """The nearest that octc does: resized to a square of `between`, of which a graph may cut out the middle."""
        if self.clahe is not None:
            return replace(self.clahe, value_range=self.value_range)
        unit = 255 * self.factor
        mean, std = (_three([value / unit for value in values]) for values in (self.mean, self.std))
        resample = self.resample if self.resample in RESAMPLE else "bicubic"
        return Preprocess(self.between, self.channels, resample, mean, std, value_range=self.value_range)

    @property
    def unmatched(self) -> tuple[str, ...]:
        """What octc's preprocessing does otherwise, in words; empty where it does the same."""
        found = []
        if self.how == SHORTEST:
            found.append(
                "the aspect ratio is kept and the middle cut out: octc resizes both sides (the same for square pictures)"
            )
        if self.how == LEAVE:
            found.append("pictures are not resized: octc resizes them")
        if not self.antialias:
            found.append("resized without antialiasing: octc averages over what becomes smaller")
        if self.resample not in RESAMPLE:
            found.append(f"resampled by {self.resample}: octc takes {self.preprocess.resize}")
        return tuple(found)

    def picture(self, image: Image.Image) -> UInt8:
        """A decoded picture -> uint8 [channels, size, size] as the source prepares it (red first)."""
        plain = image.convert("L" if self.channels == 1 else "RGB")
        if self.clahe is not None:
            own: UInt8 = self.clahe.prepare(plain)[0]
            return own
        width, height = plain.size
        if self.how == SHORTEST:
            scale = self.between / min(width, height)
            target = (max(self.between, int(width * scale)), max(self.between, int(height * scale)))
        else:
            target = plain.size if self.how == LEAVE else (self.between, self.between)
        return self.middle(_resized(plain, target, self.resample, self.antialias))

    def start(self, side: int) -> int:
        """Where the middle begins on a side of so many pixels: torchvision rounds, transformers rounds down."""
        return (side - self.size) // 2 if self.source == "transformers" else round((side - self.size) / 2)

    def middle(self, pixels: UInt8) -> UInt8:
        """The middle of [..., H, W] as [..., size, size]; black is added where it is smaller."""
        size = self.size
        add = [(max(0, size - side) // 2, (max(0, size - side) + 1) // 2) for side in pixels.shape[-2:]]
        if any(map(any, add)):
            pixels = np.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + add)
        top, left = (self.start(side) for side in pixels.shape[-2:])
        return np.ascontiguousarray(pixels[..., top : top + size, left : left + size])

    def normalised(self, pixels: UInt8) -> Float32:
        """uint8 [N, channels, H, W] -> float32 [N, 3, H, W]."""
        mean, std = (np.asarray(values, np.float32).reshape(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels.astype(np.float32) * np.float32(self.factor) - mean) / std

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source, "size": self.size, "resized_to": self.between, "how": self.how, "resample": self.resample,
            "antialias": self.antialias, "mean": self.mean, "std": self.std, "factor": self.factor, "channels": self.channels,
            "order": "bgr" if self.bgr else "rgb", "unmatched": self.unmatched,
        }  # fmt: skip


def read_foreign(value: Any) -> Foreign:
    """Preprocessing of one of the four kinds, told by its keys.

    Raises:
        OctcError: E104 none of the kinds, a value out of range, or a step that octc cannot repeat to measure its difference.

    >>> read_foreign({"input_size": [3, 224, 224], "crop_pct": 0.875, "interpolation": "bicubic"}).between
    256
    >>> read_foreign({"crop_size": [224], "resize_size": [232], "antialias": False}).unmatched[1]
    'resized without antialiasing: octc averages over what becomes smaller'
    """
    if not isinstance(value, Mapping):
        raise _unknown("it is no table of keys")
    try:
        found = _read(value)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _unknown(f"no {error}" if isinstance(error, KeyError) else str(error)) from error
    numbers = (*found.mean, *found.std, found.factor)
    if not (8 <= found.size <= found.between <= 4096 or found.how == LEAVE) or not np.isfinite(numbers).all():
        raise _unknown(f"sizes or numbers out of range: {found.size} of {found.between} px, mean {found.mean}, std {found.std}")
    if min(found.std) <= 0 or found.factor <= 0 or found.channels not in (1, 3) or found.resample not in FILTERS:
        raise _unknown(f"std {found.std}, factor {found.factor}, {found.channels} channels, resampling {found.resample!r}")
    if max(*map(abs, found.mean), *found.std) > WIDEST * 255 * found.factor:
        by = 1 / found.factor
        text = (
            f"mean {list(found.mean)} and std {list(found.std)} are of other pixels than these, of 0 to {255 * found.factor:g}"
        )
        divided = ", ".join(
            f'"{name}": {[round(one / by, 4) for one in values]}' for name, values in (("mean", found.mean), ("std", found.std))
        )
        raise OctcError("OCT-E104", text, hint=f"if they are of 0 to 255: {divided}", place="--preprocess")
    return found


def _read(value: Mapping[str, Any]) -> Foreign:
    inner = value.get("pretrained_cfg")
    if isinstance(inner, Mapping):
        return _of_timm(inner)
    if "input_size" in value:
        return _of_timm(value)
    if "resize_size" in value or ("crop_size" in value and not any(key in value for key in PROCESSORS)):
        return _of_torchvision(value)
    if any(key in value for key in PROCESSORS):
        return _of_transformers(value)
    if "size" in value:
        return _own(value)
    raise ValueError(f"its keys are {shorten(sorted(map(str, value)))}")


def _own(value: Mapping[str, Any]) -> Foreign:
    """octc's own Preprocess; what is left out of it has the value that it has there."""
    known = Preprocess(224).to_json()
    if strange := sorted(set(value) - {*known, "clahe", "clahe_grid", "value_range"}):
        raise ValueError(f"unknown keys: {shorten(strange)}")
    pre = Preprocess.from_json({**known, "channels": 3, **value})
    return Foreign(
        "octc", pre.size, pre.size, SQUASH, pre.resize, True, pre.mean, pre.std, channels=pre.channels,
        clahe=pre if pre.clahe else None, value_range=pre.value_range,
    )  # fmt: skip


def _of_timm(value: Mapping[str, Any]) -> Foreign:
    """`timm.data.create_transform(**resolve_data_config(...))` for evaluation."""
    channels, height, width = (int(side) for side in value["input_size"])
    if height != width:
        raise ValueError(f"input of {height} x {width}: octc's is square")
    mode, share = str(value.get("crop_mode") or "center"), float(value.get("crop_pct") or 0.875)
    if mode not in ("center", "squash") or not 0 < share <= 1:
        raise ValueError(f"crop_mode {mode!r} with crop_pct {share:g}")
    mean, std = value.get("mean", IMAGENET[0]), value.get("std", IMAGENET[1])
    how, resample = SHORTEST if mode == "center" else SQUASH, str(value.get("interpolation") or "bilinear")
    return Foreign("timm", height, int(height / share), how, resample, True, _three(mean), _three(std), channels=channels)


def _of_torchvision(value: Mapping[str, Any]) -> Foreign:
    """`torchvision.transforms._presets.ImageClassification`."""
    crop, resized = _side(value["crop_size"]), value.get("resize_size", value["crop_size"])
    both = isinstance(resized, Sequence) and len(resized) == 2
    antialias = value.get("antialias", True)
    return Foreign(
        "torchvision", crop, _side(resized), SQUASH if both else SHORTEST, str(value.get("interpolation", "bilinear")).lower(),
        bool(antialias), _three(value.get("mean", IMAGENET[0])), _three(value.get("std", IMAGENET[1])),
    )  # fmt: skip


def _of_transformers(value: Mapping[str, Any]) -> Foreign:
    """The image processors of transformers (`preprocessor_config.json`)."""
    if more := sorted(key for key, on in value.items() if key.startswith("do_") and on and key not in HARMLESS):
        raise ValueError(f"steps that octc cannot repeat: {shorten(more)}")
    resize, crop = bool(value.get("do_resize", True)), bool(value.get("do_center_crop", False))
    size, how = value.get("size", 224), SQUASH
    share = float(value.get("crop_pct") or 1)
    if isinstance(size, Mapping) and "shortest_edge" in size:
        between, how = int(size["shortest_edge"]), SHORTEST
    else:
        between = _side([size["height"], size["width"]] if isinstance(size, Mapping) else size)
        how = SHORTEST if crop and not isinstance(size, Mapping) else SQUASH  # a number alone was the shorter side
    seen = value.get("crop_size", between) if crop else between
    seen = _side([seen["height"], seen["width"]] if isinstance(seen, Mapping) else seen)
    if share < 1 and between < 384:  # ConvNext's processor: resized to more, its middle cut out
        between, seen = int(between / share), between
    elif how == SHORTEST and share == 1 and not crop:
        seen = between
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if value.get("do_normalize", True):
        mean, std = _three(value.get("image_mean", IMAGENET[0])), _three(value.get("image_std", IMAGENET[1]))
    resample = value.get("resample", 2)
    factor = float(value.get("rescale_factor", 1 / 255)) if value.get("do_rescale", True) else 1.0
    name = NUMBERED.get(resample, str(resample)) if isinstance(resample, int) else str(resample).lower()
    bgr = bool(value.get("do_flip_channel_order", False))
    return Foreign("transformers", seen, between, how if resize else LEAVE, name, True, mean, std, factor, bgr=bgr)


def _side(value: Any) -> int:
    sides = [int(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else [int(value)]
    if len(set(sides)) != 1:
        raise ValueError(f"sides {' x '.join(map(str, sides))}: octc's input is square")
    return sides[0]


def _three(values: Any) -> tuple[float, float, float]:
    numbers = [float(one) for one in values] if isinstance(values, Sequence) else [float(values)]
    first, second, third = numbers * 3 if len(numbers) == 1 else numbers
    return first, second, third


def _unknown(why: str) -> OctcError:
    return OctcError("OCT-E104", f"preprocessing that is not known: {why}", hint=HINT, place="--preprocess")


def _resized(picture: Image.Image, target: tuple[int, int], how: str, antialias: bool) -> UInt8:
    """A picture resized to (width, height) -> uint8 [channels, height, width]."""
    if picture.size != target and (antialias or how not in RESAMPLE):
        picture = picture.resize(target, FILTERS[how])
    array = np.asarray(picture, np.uint8)
    planes = array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
    return planes if picture.size == target else _sampled(planes, target, how)


def _sampled(planes: UInt8, target: tuple[int, int], how: str) -> UInt8:
    """Resized without antialiasing, centres of pixels half a pixel in, as PyTorch's and OpenCV's default."""
    rows, columns = (_weights(there, wanted, how) for there, wanted in zip(planes.shape[1:], target[::-1], strict=True))
    found = rows @ planes.astype(np.float64) @ columns.T
    out: UInt8 = np.clip(np.rint(found), 0, 255).astype(np.uint8)
    return out


def _weights(there: int, wanted: int, how: str) -> npt.NDArray[np.float64]:
    """float64 [wanted, there]: how much of each pixel is in each new one."""
    at = (np.arange(wanted) + 0.5) * there / wanted - 0.5
    first = np.floor(at).astype(int)
    table = np.zeros((wanted, there))
    for step in (0, 1) if how == "bilinear" else (-1, 0, 1, 2):
        apart = np.abs(at - (first + step))
        np.add.at(table, (np.arange(wanted), np.clip(first + step, 0, there - 1)), _kernel(apart, how))
    return table


def _kernel(x: npt.NDArray[np.float64], how: str) -> npt.NDArray[np.float64]:
    if how == "bilinear":
        return 1 - x
    near = (CUBIC + 2) * x**3 - (CUBIC + 3) * x**2 + 1
    far = CUBIC * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, far)
