"""Groups B-scan samples by volume, to evaluate predictions per eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octc.datasets.base import Sample
from octc.datasets.pictures import volumes_among
from octc.stats.aggregation import Aggregation, EyeScores, Floats, aggregate, places_of


@dataclass(frozen=True)
class EyeOf:
    """A volume whose B-scans are all among the samples, with the label of its eye.

    Attributes:
        id: digest of the volume, with a number for copies. name: file and volume. samples: indices of its B-scans in the
            samples, in order.
        places: positions of the B-scans across the eye, for `aggregate`.
    """

    id: str
    name: str
    label: int
    patient: str | None
    samples: tuple[int, ...]
    places: tuple[float, ...] | None

    def scores(self, probabilities: Floats) -> EyeScores:
        """The scores of this eye, from the probabilities [n, K] of all samples."""
        return EyeScores(probabilities[list(self.samples)], self.label, self.patient, self.places)


def eyes_among(samples: Sequence[Sample]) -> tuple[list[EyeOf], int]:
    """The eyes that can be evaluated, and the number of volumes that cannot: no label of the eye, or missing B-scans."""
    found, left, seen = [], 0, dict[str, int]()
    for chosen in volumes_among(samples):
        scan = samples[chosen[0]].scan
        assert scan is not None
        if scan.label is None or len(chosen) != scan.frames:
            left += 1
            continue
        seen[scan.volume] = seen.get(scan.volume, 0) + 1
        again = "" if seen[scan.volume] == 1 else f"#{seen[scan.volume]}"
        places = tuple(places_of(scan.frames)) if scan.spatial else None
        name = f"{scan.file}#{scan.part}"
        found.append(EyeOf(scan.volume + again, name, scan.label, samples[chosen[0]].patient, tuple(chosen), places))
    return found, left


def eye_answers(eyes: Sequence[EyeOf], probabilities: Floats, how: Aggregation) -> Floats:
    """Aggregate probabilities of all samples [n, K] to probabilities of the eyes [eyes, K]; for mutually exclusive classes."""
    rows = [aggregate(probabilities[list(eye.samples)], how, places=eye.places) for eye in eyes]
    found: Floats = np.stack(rows)
    return found
