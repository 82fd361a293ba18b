"""Number of INT8 calibration images per class; it follows from the split, before training."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from octc.core.errors import OctcError
from octc.datasets.base import Sample

MINIMUM = 16  # calibration images
K = TypeVar("K", bound=Hashable)


def equal_shares(have: Mapping[K, int], wanted: int) -> dict[K, int]:
    """Number of images to take from each class: equal shares, as far as each class has enough images.

    >>> equal_shares({"CNV": 100, "DME": 50, "DRUSEN": 5}, 60)
    {'CNV': 28, 'DME': 27, 'DRUSEN': 5}
    """
    taken = dict.fromkeys(have, 0)
    while sum(taken.values()) < min(wanted, sum(have.values())):
        for name in have:
            if taken[name] < have[name] and sum(taken.values()) < wanted:
                taken[name] += 1
    return taken


def calibration_counts(train: Sequence[Sample], classes: Sequence[str], wanted: int) -> dict[str, int]:
    """Class name -> number of calibration images in a stratified draw (by `Sample.label`)."""
    return equal_shares({name: sum(s.label == k for s in train) for k, name in enumerate(classes)}, wanted)


def check_counts(counts: dict[str, int]) -> None:
    """Refuse a calibration set that is too small; the message has the counts per class (OctcError E214)."""
    filled = sum(count > 0 for count in counts.values())
    if sum(counts.values()) < MINIMUM or filled < 2:
        text = f"{sum(counts.values())} calibration images of {filled} classes ({words_of_counts(counts)})"
        raise OctcError("OCT-E214", text, hint=f"at least {MINIMUM} images of at least two classes from train")


def check_count(count: int) -> None:
    """Refuse too few calibration images for `octc.quantize` (OctcError E214)."""
    if count < MINIMUM:
        text = f"{count} calibration images"
        raise OctcError("OCT-E214", text, hint=f"give at least {MINIMUM} training images", place="calibration")


def words_of_counts(counts: dict[str, int]) -> str:
    """The counts as text: "CNV 128, DME 128, DRUSEN 9"."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())
