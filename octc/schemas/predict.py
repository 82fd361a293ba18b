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
    """How many images were answered how."""

    classes: dict[str, Count]
    no_class: Count
    unlike: Count
    failed: Count
    done: Count


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
