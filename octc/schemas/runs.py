"""Documents about runs: run.json, and what `octc runs` and `octc list runs` print."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from octc.schemas.commands import RunRow
from octc.schemas.common import Count, Document, PatientIds, Table
from octc.schemas.split import Fold


class Stage(Document):
    """One entry of the stage log; what else it says depends on the stage."""

    stage: str
    time_utc: str


class RunFile(Document, kw_only=True):
    """run.json. What may be missing came with a later octc, or belongs to some kinds of training."""

    id: str
    kind: str
    dataset: str
    created: str
    status: Literal["running", "done", "failed", "interrupted"]
    stages: list[Stage]
    schema_version: Literal["1.0"] | UnsetType = UNSET
    data_root: str | UnsetType = UNSET
    data_place: str | UnsetType = UNSET
    data_digest: str | UnsetType = UNSET
    patients_by: str | UnsetType = UNSET
    split_digest: str | UnsetType = UNSET
    recipe: Table | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    skip_bad: bool | UnsetType = UNSET
    fold: Fold | UnsetType | None = UNSET
    protocol: str | UnsetType = UNSET
    job: str | UnsetType | None = UNSET
    task: str | UnsetType = UNSET
    teacher_run: str | UnsetType | None = UNSET
    teacher_sha256: str | UnsetType | None = UNSET
    more_teachers: list[str] | UnsetType = UNSET
    own_run: str | UnsetType | None = UNSET
    modality: str | UnsetType = UNSET
    request: Table | UnsetType = UNSET
    simplify: Table | UnsetType = UNSET
    patient_ids: PatientIds | UnsetType = UNSET
    images_without_patient: Count | UnsetType = UNSET


class ShownRun(RunFile, kw_only=True):
    artifacts: list[str]


class Runs(Document):
    runs: list[RunRow]


class Leftover(Document):
    path: str
    what: str
    bytes: int


class Pruned(Document):
    deleted: bool
    bytes: int
    found: list[Leftover]
