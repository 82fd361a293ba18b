"""Facts from decoding every image once: size, mode, borders, brightness, perceptual hash, or the reason of a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError
from octc.core.faults import of_machine
from octc.datasets.base import Finding, Progress, Sample, Samples, ids_of
from octc.datasets.near_duplicates import Bits, signs_of, signs_of_fundus
from octc.datasets.pictures import read_picture
from octc.imaging.decode import Decoded, Values
from octc.imaging.preprocess import quality_notes
from octc.imaging.value_range import doubts, stored_values
from octc.machine.cpu import reading_pool

WHITE, BORDER = 250, 0.05  # grey level; minimum share of white edge pixels for a white border
LOOKED = 64  # images whose stored value range is checked before a training
UCSD_TEST = 1000  # images of the official test part, in either release
UCSD_RELEASES = {"v2": ((512, 496), 633), "v3": ((1024, 496), 635)}  # commonest size and patients of the test part


@dataclass(frozen=True)
class ImageFacts:
    """Facts of one decoded image; `failure` is (code, message) if it cannot be read.

    Attributes:
        edge: share of the outermost pixels that are white.
        stored: type, minimum and maximum of the grey values in the file; None for a B-scan of a volume.
        mean, square: mean and mean square per channel (three, equal for grey images), of values in [0, 1].
    """

    size: tuple[int, int] = (0, 0)
    mode: str = ""
    edge: float = 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    square: tuple[float, ...] = (0.0, 0.0, 0.0)
    signs: Bits | None = None
    stored: tuple[str, float, float] | None = None
    failure: tuple[str, str] | None = None
    notes: tuple[tuple[str, str], ...] = ()


def read_facts(
    root: Path, items: Sequence[Sample], progress: Progress | None = None, values: Values | None = None
) -> list[ImageFacts]:
    """Decode every image once, in threads (Pillow releases the GIL). values: stated value range, or None."""
    facts: list[ImageFacts] = []
    with reading_pool() as pool:
        for fact in pool.map(partial(_facts, root, values), items):
            facts.append(fact)
            if progress is not None:
                progress(len(facts), len(items))
    return facts


def _facts(root: Path, values: Values | None, sample: Sample) -> ImageFacts:
    try:
        decoded = read_picture(root, sample, values)
    except OctcError as error:
        if of_machine(error) is not None:
            raise
        return ImageFacts(failure=(error.code, error.message))
    grey = decoded.image.convert("L")
    pixels = np.asarray(grey)
    quality = quality_notes(pixels[None, None])
    notes = decoded.notes if quality is None else (*decoded.notes, ("OCT-W211", f"{Path(sample.path).name}: {quality}"))
    mean, square = _moments(np.asarray(decoded.image))
    hashed = signs_of_fundus if sample.modality == "fundus" else signs_of
    signs = None if quality else hashed(grey)
    return ImageFacts(
        grey.size, decoded.image.mode, _white_edge(pixels), mean, square, signs, _stored(sample, decoded, pixels), notes=notes
    )


def _stored(sample: Sample, decoded: Decoded, pixels: npt.NDArray[np.uint8]) -> tuple[str, float, float] | None:
    """Type, minimum and maximum of the stored grey values. For 8 bits these are the decoded values, before a stated value
    range is applied."""
    if decoded.stored is not None or sample.scan is not None:
        return decoded.stored
    return "uint8", float(pixels.min()), float(pixels.max())


def value_notes(stored: Iterable[tuple[str, float, float] | None], values: Values | None, of: str = "") -> Iterator[Finding]:
    """Warnings about the stored grey values of a data set (OCT-W223). of: text about the checked images, if not all were."""
    for text, hint in doubts(stored_values(one for one in stored if one is not None), values):
        yield Finding("OCT-W223", f"{of}{text}", (), hint)


def look_at_values(samples: Samples, values: Values | None) -> list[Finding]:
    """`value_notes` for evenly spaced images of a data set; unreadable ones are skipped, since other checks report them."""
    items = [s for s in samples.items if s.scan is None]
    chosen = [items[i * len(items) // LOOKED] for i in range(LOOKED)] if len(items) > LOOKED else items
    facts = read_facts(samples.root, chosen)
    of = "" if len(chosen) == len(items) else f"of {len(chosen)} images looked at (of {len(items)}), "
    return list(value_notes((one.stored for one in facts if one.failure is None), values, of))


def _white_edge(pixels: npt.NDArray[np.uint8]) -> float:
    """Share of the edge pixels of an image [H, W] that are white."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    return float((edge >= WHITE).mean())


def _moments(pixels: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and mean square per channel of values in [0, 1], exact from the histogram."""
    planes = [pixels] if pixels.ndim == 2 else [pixels[..., c] for c in range(3)]
    levels = np.arange(256) / 255.0
    mean, square = [], []
    for plane in planes:
        counts = np.bincount(plane.ravel(), minlength=256)
        mean.append(float(counts @ levels) / plane.size)
        square.append(float(counts @ levels**2) / plane.size)
    return (tuple(mean * 3), tuple(square * 3)) if len(planes) == 1 else (tuple(mean), tuple(square))


def sizes_of(facts: Sequence[ImageFacts]) -> dict[str, int]:
    """Size "512x496" -> number of images, most frequent first."""
    return dict(Counter(f"{f.size[0]}x{f.size[1]}" for f in facts if f.failure is None).most_common())


def tell_release(items: Sequence[Sample], facts: Sequence[ImageFacts]) -> str:
    """The release of UCSD that the test part comes from; "" if it cannot be determined.

    The complete test part is identified by its number of patients, a subset by the most frequent image size. The test parts of
    the two releases share no patient, so a metric is only meaningful together with its release.
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
