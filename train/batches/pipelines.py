"""Augmentation pipelines of the published systems, step by step in their order, a picture at a time (Pillow, torchvision).

Slower than `octc.train.batches.augment`, and there for comparison. A recipe names one in `Stage.views`; `Stage.canvas` is
the size
of the first resize. "...-as-released" repeats KD-OCT; the other ones repair what did nothing there: translation by a share of
the side instead of a tenth of a pixel, and no saturation on grey pictures. Draws depend on (seed, epoch, index) alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, functional

from octc.machine.cpu import usable_threads
from octc.train.recipes.config import Stage

Rng = np.random.Generator
Step = Callable[[Image.Image, Rng], Image.Image]
Pixels = npt.NDArray[np.float32]
NEAREST, BICUBIC = InterpolationMode.NEAREST, InterpolationMode.BICUBIC
vision: Any = functional  # torchvision has no types


def crop(picture: Image.Image, rng: Rng, size: int) -> Image.Image:
    """RandomCrop."""
    left, top = (int(rng.integers(0, side - size + 1)) for side in picture.size)
    return picture.crop((left, top, left + size, top + size))


def resized_crop(
    picture: Image.Image, rng: Rng, size: int, scale: float, ratio: tuple[float, float], how: InterpolationMode
) -> Image.Image:
    """RandomResizedCrop with areas in [scale, 1]; after ten tries that do not fit, the largest square in the middle."""
    width, height = picture.size
    for _ in range(10):
        area = width * height * rng.uniform(scale, 1.0)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            return cast(Image.Image, vision.resized_crop(picture, top, left, h, w, [size, size], how))
    side = min(width, height)
    return cast(
        Image.Image, vision.resized_crop(picture, (height - side) // 2, (width - side) // 2, side, side, [size, size], how)
    )


def rotate(picture: Image.Image, rng: Rng, degrees: float, how: InterpolationMode = NEAREST) -> Image.Image:
    """RandomRotation, black outside."""
    return cast(Image.Image, vision.rotate(picture, float(rng.uniform(-degrees, degrees)), how))


def affine(picture: Image.Image, rng: Rng, shear: float, scale: float) -> Image.Image:
    """RandomAffine: shear along x in +-shear degrees, scale in 1 +- scale, nearest, black outside."""
    zoom, slant = float(rng.uniform(1 - scale, 1 + scale)), float(rng.uniform(-shear, shear))
    return cast(Image.Image, vision.affine(picture, 0.0, [0, 0], zoom, [slant, 0.0], NEAREST))


def jitter(
    picture: Image.Image, rng: Rng, brightness: float, contrast: float, saturation: float, hue: float = 0.0
) -> Image.Image:
    """ColorJitter: the four in random order."""
    factors = [float(rng.uniform(1 - width, 1 + width)) for width in (brightness, contrast, saturation)]
    turn = float(rng.uniform(-hue, hue))
    steps = (
        partial(vision.adjust_brightness, brightness_factor=factors[0]),
        partial(vision.adjust_contrast, contrast_factor=factors[1]),
        partial(vision.adjust_saturation, saturation_factor=factors[2]),
        partial(vision.adjust_hue, hue_factor=turn),
    )
    for k in rng.permutation(4):
        picture = steps[k](picture)
    return picture


def hflip(picture: Image.Image, rng: Rng, p: float) -> Image.Image:
    """RandomHorizontalFlip."""
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < p else picture


def vflip(picture: Image.Image, rng: Rng, p: float) -> Image.Image:
    """RandomVerticalFlip."""
    return picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if rng.random() < p else picture


def sometimes(picture: Image.Image, rng: Rng, p: float, step: Step) -> Image.Image:
    """RandomApply."""
    return step(picture, rng) if rng.random() < p else picture


def blur(picture: Image.Image, rng: Rng, kernel: int) -> Image.Image:
    """GaussianBlur with sigma in [0.1, 2]."""
    sigma = float(rng.uniform(0.1, 2.0))
    return cast(Image.Image, vision.gaussian_blur(picture, [kernel, kernel], [sigma, sigma]))


def posterize(picture: Image.Image, rng: Rng, p: float) -> Image.Image:
    """RandomPosterize to 4 bits."""
    return cast(Image.Image, vision.posterize(picture, 4)) if rng.random() < p else picture


def sharpen(picture: Image.Image, rng: Rng, p: float) -> Image.Image:
    """RandomAdjustSharpness with factor 2."""
    return cast(Image.Image, vision.adjust_sharpness(picture, 2.0)) if rng.random() < p else picture


def rand_augment(picture: Image.Image, rng: Rng, m: float, turn: float, names: Sequence[str], fixed: bool) -> Image.Image:
    """KD-OCT's own: two distinct operations in the drawn order, at full magnitude, with a random sign. turn: degrees at 30."""
    for k in rng.permutation(len(names))[:2]:
        sign = 1.0 if rng.random() < 0.5 else -1.0
        factor = 1 + sign * m / 30
        if names[k] == "rotate":
            picture = vision.rotate(picture, sign * m / 30 * turn, NEAREST)
        elif names[k] == "translate":
            shift = sign * m / 100 * (picture.size[0] if fixed else 1)
            matrix = (1, 0, -shift, 0, 1, -shift)
            picture = picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)
        else:
            picture = ADJUST[names[k]](picture, factor)
    return picture


ADJUST: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": vision.adjust_brightness,
    "contrast": vision.adjust_contrast,
    "saturation": vision.adjust_saturation,
    "sharpness": vision.adjust_sharpness,
}


def erase(pixels: Pixels, rng: Rng, p: float, largest: float, fill: Sequence[float]) -> Pixels:
    """RandomErasing of [C, H, W]: a box of 2 % to `largest` of the area, ratio 0.3 to 3.3, becomes `fill` (per channel)."""
    if rng.random() >= p:
        return pixels
    height, width = pixels.shape[1:]
    for _ in range(10):
        area = height * width * rng.uniform(0.02, largest)
        ratio = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            out = pixels.copy()
            out[:, top : top + h, left : left + w] = np.asarray(fill, np.float32)[: len(out), None, None]
            return out
    return pixels


def _teacher(size: int, fixed: bool) -> list[Step]:
    kept = ("brightness", "contrast", "sharpness", "rotate", "translate")
    names = kept if fixed else (*kept[:2], "saturation", *kept[2:])
    return [
        partial(crop, size=size),
        partial(rand_augment, m=9, turn=30, names=names, fixed=fixed),
        partial(rotate, degrees=20),
        partial(affine, shear=15, scale=0.15),
        partial(jitter, brightness=0.3, contrast=0.3, saturation=0.2, hue=0.05),
        partial(hflip, p=0.5),
        partial(vflip, p=0.3),
        partial(sometimes, p=0.2, step=partial(blur, kernel=3)),
        partial(sometimes, p=0.2, step=partial(posterize, p=0.5)),
    ]


def _student(size: int, fixed: bool) -> list[Step]:
    names = ("brightness", "contrast", "rotate", "translate")
    return [
        partial(crop, size=size),
        partial(rand_augment, m=7, turn=20, names=names, fixed=fixed),
        partial(rotate, degrees=15),
        partial(jitter, brightness=0.2, contrast=0.2, saturation=0.2),
        partial(hflip, p=0.5),
    ]


def _medsiglip(size: int, _fixed: bool) -> list[Step]:
    colours = partial(jitter, brightness=0.3, contrast=0.3, saturation=0.2, hue=0.1)
    return [
        partial(resized_crop, size=size, scale=0.75, ratio=(0.95, 1.05), how=BICUBIC),
        partial(hflip, p=0.5),
        partial(sometimes, p=0.5, step=colours),
        partial(sometimes, p=0.3, step=partial(blur, kernel=5)),
        partial(sometimes, p=0.3, step=partial(sharpen, p=0.5)),
        partial(rotate, degrees=15, how=BICUBIC),
    ]


def _sfnet(size: int, _fixed: bool) -> list[Step]:
    return [
        partial(resized_crop, size=size, scale=0.8, ratio=(3 / 4, 4 / 3), how=InterpolationMode.BILINEAR),
        partial(hflip, p=0.5),
        partial(vflip, p=0.2),
        partial(rotate, degrees=10),
        partial(jitter, brightness=0.2, contrast=0.2, saturation=0.1),
    ]


# name -> the steps on the picture; then RandomErasing: its probability, largest area, and whether it comes after normalising
PIPELINES: dict[str, tuple[Callable[[int, bool], list[Step]], float, float, bool]] = {
    "kd-teacher": (_teacher, 0.25, 0.15, False),
    "kd-student": (_student, 0.2, 0.1, False),
    "medsiglip": (_medsiglip, 0.2, 0.1, True),
    "sfnet": (_sfnet, 0.0, 0.0, False),
}
AS_RELEASED = "-as-released"


@cache
def _workers() -> int:
    """Threads that the quota leaves; read once."""
    return usable_threads()[0]


def picture_views(images: torch.Tensor, indices: torch.Tensor, stage: Stage, seed: int, epoch: int) -> torch.Tensor:
    """uint8 [N, C, side, side] of the canvas -> float32 [N, 3, size, size] in 0..255, by the pipeline `stage.views`."""
    make, p, largest, late = PIPELINES[stage.views.removesuffix(AS_RELEASED)]
    steps = make(stage.size, not stage.views.endswith(AS_RELEASED))
    fill = [255 * mean for mean in stage.mean] if late else [0.0, 0.0, 0.0]

    def one(image: npt.NDArray[np.uint8], index: int) -> Pixels:
        rng = np.random.Generator(np.random.Philox(key=[seed, (epoch << 40) + index]))
        picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
        for step in steps:
            picture = step(picture, rng)
        pixels = np.asarray(picture.convert("RGB"), np.float32).transpose(2, 0, 1)
        return erase(pixels, rng, p, largest, fill)

    with ThreadPoolExecutor(max_workers=_workers()) as pool:
        rows = list(pool.map(one, images.cpu().numpy(), indices.tolist()))
    return torch.from_numpy(np.stack(rows)).to(images.device)
