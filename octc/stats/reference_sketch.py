"""What an artifact keeps of its validation set for a monitor: values of its streams, one image a patient, and calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy.typing as npt
from msgspec import Meta, Struct

from octc.core.errors import OctcError
from octc.stats.betting import mean_interval
from octc.stats.cluster_bootstrap import clusters_of, patient_means
from octc.stats.patients import PatientIds, patient_ids

KEY = "monitor"  # of the details of a manifest
OWN = ("distance", "confidence", "label", "unread")
MOST_STREAMS = 64
MOST = 200  # patients whose values are kept
DIGITS = 3  # significant ones: a sketch of an image, not a fingerprint
PLACES = 6  # of shares: engines sum in another order with another batch, and the sketch stays the same
Share = Annotated[float, Meta(ge=0, le=1)]


class ReferenceSketch(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Values of each stream, and what the validation set says of accuracy.

    streams: statistics of pictures by their names, and of OWN, those that are known. accuracy: share of right answers,
    patients counting once, as an image of whom nobody is known does. gap, gap_limits: mean of right - confidence, counted in
    the same way, with a confidence interval at `alpha`. images: that it rests on. patients: different ones that are known; None
    where none is.
    """

    streams: dict[str, list[float]]
    accuracy: Share
    gap: float
    gap_limits: Annotated[list[float], Meta(min_length=2, max_length=2)]
    alpha: float
    images: Annotated[int, Meta(ge=1)]
    images_without_patient: Annotated[int, Meta(ge=0)]
    patients: Annotated[int, Meta(ge=1)] | None

    @property
    def known(self) -> PatientIds:
        """What is known of the patients."""
        return PatientIds(self.images, self.images_without_patient, self.patients or 0)


def rounded(value: float | None) -> float | None:
    """A value to three significant digits; None where it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def sketch(
    streams: Mapping[str, Sequence[float]],
    confidence: npt.ArrayLike,
    right: npt.ArrayLike,
    patients: Sequence[str | None],
    alpha: float,
) -> ReferenceSketch:
    """A sketch of labelled images.

    Args:
        streams: values of images that are exchangeable: one a patient. confidence, right: of all images, [n].
        patients: whose each image is, [n]; None where that is not known.
    """
    clusters, known = clusters_of(patients), patient_ids(patients)
    sure, correct = (patient_means(one, clusters) for one in (confidence, right))
    low, high = mean_interval((correct - sure + 1) / 2, alpha, once=True)
    kept = {name: [v for v in map(rounded, values[:MOST]) if v is not None] for name, values in streams.items()}
    return ReferenceSketch(
        streams=kept, accuracy=round(float(correct.mean()), PLACES), gap=round(float((correct - sure).mean()), PLACES),
        gap_limits=[round(2 * limit - 1, PLACES) for limit in (low, high)], alpha=alpha, images=known.images,
        images_without_patient=known.unnamed, patients=known.count,
    )  # fmt: skip


def stated_sketch(details: Mapping[str, Any]) -> ReferenceSketch | None:
    """The sketch of a manifest; None where it has none (E502 where it has one that cannot be)."""
    value = details.get(KEY)
    if value is None:
        return None
    try:
        found = msgspec.convert(value, ReferenceSketch)
        if len(found.streams) > MOST_STREAMS or not all(name.isidentifier() for name in found.streams):
            raise ValueError("streams that have no names")
        if not all(math.isfinite(one) for values in found.streams.values() for one in values):
            raise ValueError("a value that is not finite")
    except (ValueError, msgspec.ValidationError) as error:
        text = f"the monitor's reference in the manifest is not valid: {error}"
        raise OctcError("OCT-E502", text, hint="do not use this artifact", place="artifact.json") from error
    return found
