"""The document of `octc predict`."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from octc.schemas.common import Count, Document, LeftOut, Table, Views


class Answering(Document):
    """The artifact that answered."""

    name: str
    folder: str
    model: str
    classes: list[str]


class Summary(Document):
    """How many images were answered how. referred: that a person is to decide, where the artifact has rules that say so."""

    classes: dict[str, Count]
    no_class: Count
    unlike: Count
    failed: Count
    done: Count
    referred: Count | UnsetType = UNSET


class Together(Document):
    """Images that were run together: how many at last, whether that was asked for, numbers that memory was short for."""

    images: Count
    asked: bool
    too_large: list[Count]


class Predictions(Document, kw_only=True):
    artifact: Answering
    tta: Views
    likeness_checked: bool
    inputs: Count
    complete: bool
    stopped_by: str | None
    records: list[Table]
    left_out: list[LeftOut] | UnsetType = UNSET
    summary: Summary | UnsetType = UNSET
    batch: Together | UnsetType | None = UNSET


class Served(Document):
    """Which of the models of a server answered."""

    model: str
    version: str


class ServedModels(Document):
    """What a server served until it ended."""

    models: list[Served]


class ServedPredictions(Predictions, kw_only=True):
    """The document of `octc predict --json` as a server gives it; with previews each record of a picture has one."""

    served: Served


class ArchiveDone(Document):
    """What lies in a folder of results, and what this call did. bookkeeping, idle: shares of the time of its processes."""

    folder: str
    inputs: Count
    scans: Count
    eyes: Count
    failed: Count
    units: Count
    done: Count
    complete: bool
    seconds: float
    bookkeeping: float | None
    idle: float | None
