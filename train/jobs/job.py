"""Where a training happens and who listens: the one context of its functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.core.progress import Reporter
from octc.datasets.base import Samples
from octc.datasets.patient_rules import PatientRule
from octc.store.runs import Run

if TYPE_CHECKING:
    from octc.train.loop.checkpoint import Checkpoint
    from octc.train.stages import Context

DEFAULT = "default"


@dataclass
class Job:
    """What a training is given beside its options, and what it leaves behind.

    Attributes:
        run_dir: where runs lie and go. data: root of the data set; None: OCTC_DATA, then the data set's own place.
        tune: the quantisation-aware stage of a student. It lives above this folder, so whoever starts a job gives it.
        settings: [train] of the configuration, key -> (value, origin).
        origins: option -> where its value comes from: "flag", an origin of the configuration, or "default".
        document: what the job found, for programs. run_id: of the run, or the name of the cross-validation.
        dry_run: nothing is written. scratch: a folder for what a dry run cannot do without, which goes away with the job
            (`leaving`).
        ask: asks somebody whose the images are; None where nobody can be asked.
    """

    run_dir: Path
    data: str | None
    reporter: Reporter
    tune: Callable[[Context], Checkpoint]
    settings: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)
    run_id: str | None = None
    dry_run: bool = False
    scratch: Path | None = None
    leaving: ExitStack = field(default_factory=ExitStack)
    ask: Callable[[Samples], PatientRule | None] | None = None

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_error: object) -> None:
        self.leaving.close()
        self.scratch = None

    def is_explicit(self, key: str) -> bool:
        """Whether somebody asked for the value of an option, here or in a configuration."""
        return self.origins.get(key, DEFAULT) != DEFAULT

    def is_configured(self, key: str) -> bool:
        """Whether the value of an option comes from a configuration file or the environment, and not from the command."""
        return self.origins.get(key, DEFAULT) not in (DEFAULT, "flag", "argument")

    def left_out(self, key: str, why: str) -> None:
        """Say that a value of the configuration does not count for this command; the training is as if it was not there."""
        self.reporter.say(f"! [train] {key} ({self.origins[key]}) is left out: {why}")
        self.origins[key] = DEFAULT

    def configured(self, key: str) -> Any:
        """A key of [train] that has no option; None where it is what the run that goes on began with."""
        value, origin = self.settings.get(key, (None, DEFAULT))
        return None if self.origins.setdefault(key, origin) == DEFAULT else value


@dataclass(frozen=True)
class Trained:
    """What came of a request.

    Attributes:
        runs: that were made or gone on with. folder, summary: of a cross-validation whose folds are all there.
        lacking: its folds that are not. dry: nothing was written. next: a command that may follow.
        speaks: this process tells of it; of several processes of one training only the first does.
    """

    runs: tuple[Run, ...] = ()
    folder: Path | None = None
    summary: dict[str, Any] | None = None
    lacking: tuple[int, ...] = ()
    folds: int = 0
    dry: bool = False
    next: str = ""
    speaks: bool = True
