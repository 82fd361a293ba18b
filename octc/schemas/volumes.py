"""Documents of `octc data volume`, `octc data convert` and `octc data synthetic-volumes`."""

from __future__ import annotations

from typing import Any

from octc.schemas.common import Count, Document


class Known(Document):
    """A value and where it comes from."""

    value: Any
    source: str


class ShownVolume(Document):
    """One eye at one time."""

    file: str
    part: Count
    parts: Count
    format: str
    experimental: bool
    frames: Count
    rows: Count
    columns: Count
    dtype: str
    intensity: dict[str, Any]
    laterality: Known
    spacing: Known
    pattern: Known
    device: Known
    acquired: Known
    order: Known
    complete: Known
    patient: str | None
    notes: list[str]


class Volumes(Document):
    """What a file holds."""

    volumes: list[ShownVolume]
    sheets: list[str]


class Converted(Document):
    """Files that a volume was written to."""

    source: str
    format: str
    written: list[str]


class DrawnVolumes(Document):
    """Synthetic volumes that were drawn."""

    root: str
    volumes: Count
    patients: Count
    formats: list[str]
    table: str
