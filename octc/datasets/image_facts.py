"""What decoding every image once tells: size, mode, borders, brightness, the perceptual hash, or why it cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError
from octc.datasets.base import Progress, Sample, ids_of
from octc.datasets.near_duplicates import Bits, signs_of, signs_of_fundus
from octc.imaging.preprocess import quality_notes, read_image
from octc.machine.cpu import reading_pool

WHITE, BORDER = 250, 0.05  # grey level; share of the outermost pixels from which an image counts as having a white border
UCSD_TEST = 1000  # images of the official test part, in either release
UCSD_RELEASES = {"v2": ((512, 496), 633), "v3": ((1024, 496), 635)}  # the size of most test images, patients of the test part


@dataclass(frozen=True)
class ImageFacts:
    """What decoding one image told; `failure` is (code, message) where it could not be read.

    Attributes:
        edge: share of the outermost pixels that are white.
        mean, square: per channel (three, equal for grey), of values in [0, 1]: the mean, and the mean of the squares.
    """

    size: tuple[int, int] = (0, 0)
    mode: str = ""
    edge: float = 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    square: tuple[float, ...] = (0.0, 0.0, 0.0)
    signs: Bits | None = None
    failure: tuple[str, str] | None = None
    notes: tuple[tuple[str, str], ...] = ()


def read_facts(root: Path, items: Sequence[Sample], progress: Progress | None = None) -> list[ImageFacts]:
    """Decode every image once, in threads (Pillow lets go of the interpreter)."""
    facts: list[ImageFacts] = []
    with reading_pool() as pool:
        for fact in pool.map(partial(_facts, root), items):
            facts.append(fact)
            if progress is not None:
                progress(len(facts), len(items))
    return facts


def _facts(root: Path, sample: Sample) -> ImageFacts:
    try:
        decoded = read_image(root / sample.path)
    except OctcError as error:
        return ImageFacts(failure=(error.code, error.message))
    grey = decoded.image.convert("L")
    pixels = np.asarray(grey)
    quality = quality_notes(pixels[None, None])
    notes = decoded.notes if quality is None else (*decoded.notes, ("OCT-W211", f"{Path(sample.path).name}: {quality}"))
    mean, square = _moments(np.asarray(decoded.image))
    hashed = signs_of_fundus if sample.modality == "fundus" else signs_of
    signs = None if quality else hashed(grey)
    return ImageFacts(grey.size, decoded.image.mode, _white_edge(pixels), mean, square, signs, notes=notes)


def _white_edge(pixels: npt.NDArray[np.uint8]) -> float:
    """Share of the outermost pixels [H, W] that are white."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    return float((edge >= WHITE).mean())


def _moments(pixels: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and mean square of values in [0, 1], per channel; exact, from the histogram."""
    planes = [pixels] if pixels.ndim == 2 else [pixels[..., c] for c in range(3)]
    levels = np.arange(256) / 255.0
    mean, square = [], []
    for plane in planes:
        counts = np.bincount(plane.ravel(), minlength=256)
        mean.append(float(counts @ levels) / plane.size)
        square.append(float(counts @ levels**2) / plane.size)
    return (tuple(mean * 3), tuple(square * 3)) if len(planes) == 1 else (tuple(mean), tuple(square))


def sizes_of(facts: Sequence[ImageFacts]) -> dict[str, int]:
    """ "512x496" -> images, most frequent first."""
    return dict(Counter(f"{f.size[0]}x{f.size[1]}" for f in facts if f.failure is None).most_common())


def tell_release(items: Sequence[Sample], facts: Sequence[ImageFacts]) -> str:
    """Which release of UCSD the test part comes from, or "" where it cannot be told.

    The whole test part is told by its number of patients, a subset by the size of most of its images (X4: the two test
    parts share no patient, so a figure says nothing without its release).
    """
    test = [(s, f) for s, f in zip(items, facts, strict=True) if s.part == "test" and f.failure is None]
    if not test:
        return ""
    people = ids_of(s for s, _ in test).patients
    sizes = Counter(f.size for _, f in test)
    for release, (size, patients) in UCSD_RELEASES.items():
        if len(test) == UCSD_TEST and people == patients:
            return f"{release} (1,000 images of {patients} patients)"
        if len(test) != UCSD_TEST and sizes[size] > 0.5 * len(test):
            return f"{release} (a subset; most are {size[0]}x{size[1]} pixels)"
    return ""
