"""What `octc monitor` says: monitor.json, and the document of the command."""

from __future__ import annotations

from typing import Literal

from octc.schemas.common import Count, Document, Limits, Share


class Stream(Document, kw_only=True):
    """Evidence of a stream; log_capital: largest natural logarithm of the bettors' capital so far."""

    name: str
    values: Count
    reference: Count
    log_capital: float
    alarm: bool


class Drift(Document, kw_only=True):
    """log_capital: largest natural logarithm of the richest stream's capital over the number of streams. alarm_at: eyes after
    which it first reached 1 / alpha. named: streams that did."""

    against: str
    alpha: Share
    alarm: bool
    alarm_at: int | None
    log_capital: float
    named: list[str]
    streams: list[Stream]


class Replays(Document, kw_only=True):
    count: Count
    failed: Count
    last_failed: str | None
    last_day: str | None
    last_delta: float | None


class LabelFree(Document, kw_only=True):
    """Accuracy without labels, where calibration is what it was on validation."""

    answers: Count
    accuracy: Share | None
    limits: Limits | None
    level: Share
    reason: str | None


class FieldAccuracy(Document, kw_only=True):
    """Accuracy with labels that arrived. groups: patients, and images of whom the table named none. word: against the floor, at
    every look."""

    groups: Count
    images: Count
    accuracy: Share | None
    limits: Limits | None
    floor: Share | None
    margin: Share
    level: Share
    word: Literal["above", "below", "open"]
    log_capital_above: float
    log_capital_below: float


class MonitorReport(Document, kw_only=True):
    """monitor.json. eyes_of_others: in the store, of other artifacts or of this one before it was changed; not judged."""

    schema_version: Literal["1.0"]
    time_utc: str
    artifact: str
    artifact_sha256: str
    eyes: Count
    eyes_of_others: Count
    first_day: str | None
    last_day: str | None
    labels: dict[str, Count]
    drift: Drift
    golden: Replays
    without_labels: LabelFree
    with_labels: FieldAccuracy
    alarms: list[str]


class Monitored(Document, kw_only=True):
    """The document of `octc monitor`: reports, or artifacts that learned their reference."""

    report: MonitorReport | None
    folder: str | None
    learned: list[str]
