"""The documents of `octc results`."""

from __future__ import annotations

from octc.schemas.common import Count, Document, Limits, Share, Table


class ArchiveSummary(Document):
    """A folder of results in numbers (octc.archive.results.Summary)."""

    artifact: Table
    complete: bool
    inputs: Count
    eyes: Count
    failures: dict[str, Count]
    whole: Table
    groups: dict[str, dict[str, Table]]
    confidence: list[Count]
    least_certain: list[Table]
    most_unlike: list[Table]
    per_second: float | None


class ArchiveRows(Document):
    """Rows that a condition chose."""

    rows: list[Table]


class ArchiveAccuracy(Document):
    """Answers against labels (octc.archive.judge.Accuracy)."""

    classes: list[str]
    labels: Count
    answered: Count
    unlabelled: Count
    absent: Count
    accuracy: Share
    interval: Limits | None
    patients: Count | None
    sensitivity: list[Share | None]
    specificity: list[Share | None]
    matrix: list[list[Count]]
    warning: str


class ArchivePair(Document):
    """Two folders of results on the same bytes (octc.archive.judge.Paired)."""

    classes: list[str]
    n: Count
    only: list[Count]
    agreement: Share
    interval: Limits | None
    patients: Count | None
    matrix: list[list[Count]]
    largest: float
    mean: float
    judged: Table | None
