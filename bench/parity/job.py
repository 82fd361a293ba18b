"""What a verification is requested to do, and the one object that its steps share."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.progress import LogReporter, Reporter
from octc.imaging.preprocess import VIEWS
from octc.stats.test_plan import ParityOptions

SETS_JUDGED = ("test", "select")
REFERENCES = ("fp32", "teacher")


@dataclass(frozen=True)
class VerifyOptions:
    """How to verify.

    Attributes:
        options: margins, claim, level, resamples.
        set_name: "test", or "select" for the validation set.
        against: "fp32", "teacher", or None: FP32 first, then the teacher where it is here.
        tta: views whose claims stand beside the headline, which stays without: "none", "hflip" or "5".
        require_set: whether images that are not here are an error.
        subgroups: a table of `read_groups`; robustness: whether the pictures are made worse too.
        reference: folder of the FP32 artifact to compare with; None: that of the same run.
        stated: names of the options that were given (None: all of them); the others are those of a plan that is locked already.

    Raises:
        OctcError: E104 an unknown set, reference or number of views.
    """

    options: ParityOptions = field(default_factory=ParityOptions)
    set_name: str = "test"
    against: str | None = None
    tta: str = "none"
    threads: int | None = None
    require_set: bool = False
    subgroups: Path | None = None
    robustness: bool = False
    reference: Path | None = None
    stated: frozenset[str] | None = None

    def __post_init__(self) -> None:
        known = {
            "--against": (self.against, REFERENCES),
            "--set": (self.set_name, SETS_JUDGED),
            "--tta": (self.tta, tuple(VIEWS)),
        }
        for name, (value, choices) in known.items():
            if value is not None and value not in choices:
                hint = f"one of: {', '.join(choices)}"
                raise OctcError("OCT-E104", f"{name} {value} is not known", hint=hint, place=name)

    @property
    def rows(self) -> dict[str, tuple[str, ...]]:
        """Names and views of the rows: the headline "none", and the one with test-time augmentation if requested."""
        return {name: VIEWS[name] for name in dict.fromkeys(("none", self.tta))}


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
