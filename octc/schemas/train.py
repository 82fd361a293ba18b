"""Documents of `octc train`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from octc.schemas.common import Count, Document, Sha256, Table

Planned = Annotated[bool, Meta(extra_json_schema={"const": True})]


class TrainedNetwork(Document):
    sha256: Sha256
    metrics: Table
    folder: str


class Trained(Document):
    """What was trained: of a student, also its other stages."""

    train: TrainedNetwork


class Plan(Document):
    """A dry run."""

    dry_run: Planned
    recipe: Table
    split: str
    counts: Table


class Folds(Document):
    """A cross-validation."""

    job: str
    folder: str


class LackingFolds(Document):
    """A cross-validation of which folds are lacking."""

    job: str
    done: dict[str, str]
    lacking: list[int]


class FoldsPlan(Document):
    dry_run: Planned
    recipe: Table
    splits: list[str]
    todo: list[int]


class TrainedRetnet(Document):
    """A network of several labels; its fields depend on the recipe."""


class ConvertedWeights(Document):
    """A checkpoint of another program as safetensors: what was taken of it, and what was left out."""

    file: str
    sha256: str
    model: str | None
    fit: Table
    taken: str
    prefix: str
    tensors: Count
    others: list[str]
    dropped: list[str]
    dropped_count: Count
    architecture: str | None
    classes: list[str] | None
