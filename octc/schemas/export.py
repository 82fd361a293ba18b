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
