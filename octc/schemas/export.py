"""Documents of `octc export`."""

from __future__ import annotations

from typing import Any

from octc.schemas.common import Document, Table


class ExportStep(Document):
    step: str
    accepted: bool
    reasons: list[str]


class Exported(Document):
    folder: str
    name: str
    details: Table
    steps: list[ExportStep]


class Exports(Document):
    run: str
    artifacts: list[Exported]
    rejected: list[str]


class ExportPlan(Document):
    """A dry run."""

    run: str
    plan: list[Any]


class BuiltEngine(Document):
    """An engine that was built of an artifact on this machine."""

    folder: str
    engine: Table | None
    manifest: str


class Difference(Document):
    """Of octc's preprocessing from the stated one, on some pictures."""

    pictures: int
    levels_mean: float
    levels_max: int
    delta_over_s: float | None
    changed: int


class ImportedModel(Document):
    """Of `octc import`."""

    run: str | None
    folder: str
    name: str
    model: str
    classes: list[str]
    preprocess: Table
    difference: Difference
    notes: list[str]
    details: Table
