"""The context that all steps of a verification share."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from octc.core.progress import LogReporter, Reporter
from octc.schemas.verification import VerifyOptions
from octc.stats.test_plan import ParityOptions


@dataclass(frozen=True)
class Place:
    """Where this happens: run_dir, `--data`, environment, facts of the machine that go into every record, the time."""

    run_dir: Path
    data: str | None
    environ: Mapping[str, str]
    machine: Mapping[str, Any]
    now: str


@dataclass(frozen=True)
class Job:
    """One verification: what was requested, where, who is told, and the stack that closes what it opens."""

    requested: VerifyOptions
    place: Place
    reporter: Reporter = field(default_factory=LogReporter)
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def options(self) -> ParityOptions:
        return self.requested.options
