"""Documents of `octc data`."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from octc.schemas.common import Count, Document, LeftOut, PatientIds, Patients, Share, Table


class Scan(Document):
    """What a folder of images was read as."""

    read: int
    parts: Table
    left_out: list[LeftOut]
    left_out_counts: Table


class Audit(Scan):
    root: str
    patient_ids: PatientIds
    images_without_patient: Count
    leakage: str
    findings: list[Any]
    warnings: list[Any]
    patients: dict[str, dict[str, int | None]]


class KnownSet(Document):
    title: str
    classes: list[str] | None
    root: str | None
    licence: str


class KnownSets(Document):
    datasets: dict[str, KnownSet]


class Fetched(Document):
    name: str
    root: str
    licence: str
    page: str
    files: list[Table]
    written: int


class Drawn(Document, kw_only=True):
    """Synthetic images that were drawn."""

    root: str
    images: int
    patients: int
    seed: int
    severity: Share | UnsetType = UNSET


class ShownSplit(Patients):
    dataset: str
    root: str
    seed: int
    protocol: str
    splits: list[Table]
    written: list[Any]
    scan: Scan


class PixelStatistics(Document):
    root: str
    seed: int
    dataset_note: str
    images: dict[str, dict[str, int]]
    patients: Table
    mean: list[float]
    std: list[float]
    scan: Scan
    patient_ids: PatientIds
    images_without_patient: Count


class PatientImages(Document):
    patient: str
    images: int
    path: str


class StatedPatients(Document):
    """Of `octc data patients`."""

    dataset: str
    root: str
    rule: str | None
    saved: bool
    images: int
    patients: int
    unknown: int
    first: list[PatientImages]
