"""The summary of the validation set that an artifact stores for `octc monitor`: values of each stream, and calibration."""

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

KEY = "monitor"  # key in the details of a manifest
OWN = ("distance", "confidence", "label", "unread")
MOST_STREAMS = 64
MOST = 200  # maximum number of patients whose values are stored
DIGITS = 3  # significant digits, too few to identify an image
PLACES = 6  # decimals of shares, so that the summation order of engines does not change the sketch
Share = Annotated[float, Meta(ge=0, le=1)]


class ReferenceSketch(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Values of each stream, and the accuracy on the validation set.

    streams: image statistics by name, and the available ones of OWN. accuracy: share of correct predictions, with equal weight
    per patient (an image without a patient counts as one). gap, gap_limits: mean of (correct - confidence) with the same
    weights, and its confidence interval at level `alpha`. images: number of images. patients: number of different known
    patients; None if none is known.
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
        """Whether the patients are known."""
        return PatientIds(self.images, self.images_without_patient, self.patients or 0)


def rounded(value: float | None) -> float | None:
    """A value rounded to three significant digits; None if it is not finite."""
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
    """Make the sketch of labelled images.

    Args:
        streams: values of exchangeable images: one per patient. confidence, right: confidence and correctness of all images.
        patients: patient of each image [n]; None if unknown.
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
    """The sketch in a manifest; None without one (OctcError E502: invalid)."""
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
