"""Whether the patients of the images in a set are known, and which claims are possible.

All sentences and fields about patients come from `PatientIds`; without known patients nothing is claimed about patients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Patients = Sequence[str | None] | npt.NDArray[np.integer[Any]]  # patient ids (None: unknown), or patient numbers (-1: unknown)
KNOWN, PARTIAL, UNKNOWN = "known", "partial", "unknown"
NOT_RECORDED = "whether patients were known is not recorded: leakage cannot be excluded"


@dataclass(frozen=True)
class PatientIds:
    """Whether the patients of the images in a set are known.

    Attributes:
        images: number of images; unnamed: images without a known patient; patients: number of different known patients.
    """

    images: int
    unnamed: int
    patients: int

    @property
    def state(self) -> str:
        """ "known" for all images, "partial" for some, or "unknown"."""
        if self.unnamed == self.images:
            return UNKNOWN
        return PARTIAL if self.unnamed else KNOWN

    @property
    def count(self) -> int | None:
        """Number of different known patients; None if none is known."""
        return None if self.state == UNKNOWN else self.patients

    @property
    def words(self) -> str:
        """As text: "39 patients", "39 patients and 12 images without one", or "patients unknown"."""
        if self.state == UNKNOWN:
            return "patients unknown"
        people = f"{self.patients} patient{'' if self.patients == 1 else 's'}"
        return people if self.state == KNOWN else f"{people} and {_images(self.unnamed)} without one"

    @property
    def leakage(self) -> str:
        """Why leakage cannot be excluded; "" if all patients are known."""
        if self.state == KNOWN:
            return ""
        if self.state == UNKNOWN:
            return "patients unknown: leakage cannot be excluded"
        have = "has" if self.unnamed == 1 else "have"
        return f"{_images(self.unnamed)} {have} no patient id (of {self.images:,}): leakage cannot be excluded"

    @property
    def warning(self) -> str:
        """The warning to print with every split and metric; "" if all patients are known."""
        if self.state == KNOWN:
            return ""
        alone = "intervals are not clustered" if self.state == UNKNOWN else "in intervals each such image counts alone"
        return f"{self.leakage}; {alone}"

    def to_json(self) -> dict[str, Any]:
        """The fields for split.json, run.json, manifests, verdicts and reports."""
        return {"patient_ids": self.state, "images_without_patient": self.unnamed}


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


def patient_ids(patients: Iterable[str | None] | Patients) -> PatientIds:
    """Summarise the patients of images (unknown: None, or -1 among numbers)."""
    if isinstance(patients, np.ndarray):
        known = patients[patients >= 0]
        return PatientIds(len(patients), len(patients) - len(known), int((np.bincount(known) > 0).sum()) if len(known) else 0)
    listed = list(patients)
    named = [one for one in listed if one is not None]
    return PatientIds(len(listed), len(listed) - len(named), len(set(named)))


def words_of(state: str | None) -> str:
    """The warning for a stored state "partial", "unknown" or None (not recorded); "" for "known"."""
    return {
        KNOWN: "",
        PARTIAL: "some images have no patient id: leakage cannot be excluded; in intervals each such image counts alone",
        UNKNOWN: PatientIds(0, 0, 0).warning,
    }.get(state or "", NOT_RECORDED)


def set_words(used: Mapping[str, Any]) -> str:
    """Text about the patients in the `set` block of a stored verdict, as `PatientIds.words`."""
    state, people = used.get("patient_ids"), used.get("patients")
    if people is None or state == UNKNOWN:
        return "patients unknown"
    if state is None:
        return f"{people:,} patients as an older rule read them"
    unnamed = int(used.get("images_without_patient", 0))
    return PatientIds(int(used["n"]), unnamed, int(people)).words
