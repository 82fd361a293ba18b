"""Documents about runs: run.json, and what `octc runs` and `octc list runs` print."""

from __future__ import annotations

from typing import Literal

from octc.schemas.commands import RunRow
from octc.schemas.common import Document


class Stage(Document):
    """One entry of the stage log; what else it says depends on the stage."""

    stage: str
    time_utc: str


class RunFile(Document):
    """run.json, with what every reader of it may rely on."""

    id: str
    kind: str
    dataset: str
    created: str
    status: Literal["running", "done", "failed", "interrupted"]
    stages: list[Stage]


class ShownRun(RunFile):
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
