"""Documents of `octc eval`, `octc compare` and `octc choose`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from octc.schemas.common import Document, Patients, Sha256, Share, Table


class ClassCounts(Document):
    support: int
    predicted: int
    tp: int
    fp: int
    fn: int
    tn: int


class Evaluation(Patients):
    """Metrics of a network on one part of its split."""

    folder: str
    part: str
    tta: str
    combine: str
    n: int
    accuracy: Share | None
    loss: float
    ece_mass_15: Share
    confusion: list[list[int]]
    per_class: list[ClassCounts]
    patients: int | None


class EvaluationFile(Document):
    """figures.json of an evaluation: what its reader relies on besides predictions.csv."""

    predictions_sha256: Sha256
    classes: list[str]
    views: list[str]
    facts: Table

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class that stands twice")


class EvaluatedFolds(Document):
    """Of a cross-validation or a network of several labels."""

    folder: str
    facts: Table


class ComparedNetwork(Document):
    name: str
    role: Any
    model: Any
    facts: Table
    size: Table
    latency: list[Any]
    figures: Table
    loss: float
    ensemble_accuracy: Share | None


class Compared(Patients):
    """Two networks on the same images."""

    schema_version: Literal["1.0"]
    time_utc: str
    split: str
    tta: str
    reference: ComparedNetwork
    candidate: ComparedNetwork
    classes: list[str]
    n: int
    patients: int | None
    agreement: Share
    pair: Table
    difference: float
    mcnemar_midp: Share
    mcnemar_exact: Share
    per_class: list[Table]
    saved: dict[str, float | None]
    times_smaller: dict[str, float | None]
    folder: str


class Candidate(Document, kw_only=True):
    """An artifact that `octc choose` looked at."""

    name: str
    folder: str
    precision: str
    target: str
    mib: Annotated[float, Meta(ge=0)]
    state: Literal["shown", "reference", "open", "refused"]
    why: str
    verdict: str
    conditions: str | UnsetType = UNSET
    p50_ms: float | None
    timing: str
    processor: str | UnsetType = UNSET
    others: list[str] | UnsetType = UNSET


class Choice(Document):
    artifact: str | None
    folder: str | None
    provisional: bool
    reasons: list[str]
    sentences: Annotated[list[str], Meta(min_length=3, max_length=3)]
    candidates: list[Candidate]
