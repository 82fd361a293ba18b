"""Statistics of a data set: counts, sizes, and mean and standard deviation of the pixels of the training images."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from octc.core.errors import OctcError, combined
from octc.datasets.base import Progress, Samples
from octc.datasets.image_facts import ImageFacts, read_facts, sizes_of
from octc.datasets.split import Split
from octc.imaging.decode import Values


@dataclass(frozen=True)
class Stats:
    """Counts of all images; pixel statistics of the training part only.

    Attributes:
        images, patients: part -> class -> count; patients: known ones, None if no patient of the split is known.
        patient_ids: "known", "partial" or "unknown"; images_without_patient: number of images without a patient id.
        weights: class -> n / (classes * images of the class) in train, the weights of a class-balanced loss.
        mean, std: per channel, of values in [0, 1]. Every image has the same weight, whatever its size; std is the deviation
            of the pixels from the common mean.
    """

    dataset: str
    split_digest: str
    note: str
    images: dict[str, dict[str, int]]
    patients: dict[str, dict[str, int | None]]
    weights: dict[str, float]
    sizes: dict[str, int]
    modes: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patient_ids: str
    images_without_patient: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_stats(samples: Samples, split: Split, progress: Progress | None = None, values: Values | None = None) -> Stats:
    """Decode every image of a split once. values: stated value range, or None.

    Raises:
        OctcError: lists all images that cannot be read.
    """
    items = [s for part in split.parts.values() for s in part]
    facts = read_facts(samples.root, items, progress, values)
    bad = [
        OctcError(*f.failure, hint="replace the file   (octc data check lists all)", place=s.path)
        for s, f in zip(items, facts, strict=True)
        if f.failure is not None
    ]
    if bad:
        raise combined(bad)
    mean, std = pixel_moments(facts[: len(split.parts["train"])])
    total = Counter(s.label for s in split.parts["train"])
    return Stats(
        split.dataset, split.digest, split.note, split.counts(), split.patients(),
        {name: total.total() / (len(split.classes) * total[k]) for k, name in enumerate(split.classes)},
        sizes_of(facts), dict(Counter(f.mode for f in facts).most_common()), mean, std,
        **split.patient_ids.to_json(),
    )  # fmt: skip


def pixel_moments(facts: list[ImageFacts]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel over equally weighted images: std^2 = E[x^2] - E[x]^2."""
    mean = np.mean([f.mean for f in facts], axis=0)
    square = np.mean([f.square for f in facts], axis=0)
    return tuple(mean.tolist()), tuple(np.sqrt(np.maximum(square - mean**2, 0)).tolist())
