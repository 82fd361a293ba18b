"""What a call of `octc verify` was asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from octc.bench.parity.claim import ParityReport
from octc.bench.parity.evaluation_set import LabelledSet
from octc.bench.parity.plan_lock import Standing
from octc.core.errors import OctcError
from octc.imaging.preprocess import VIEWS
from octc.runtimes.layers import LayerGap
from octc.stats.robustness import Robustness
from octc.stats.test_plan import ParityOptions
from octc.store.find import Found
from octc.store.runs import Run


@dataclass(frozen=True)
class Asked:
    """What was asked for. against: "fp32", "teacher", or None: FP32 first, then the teacher where it is here.

    subgroups: a table of `read_groups`; robustness: whether the pictures are made worse too.
    stated: names of the options that were given (None: all of them); the others are those of a plan that is locked already.
    """

    options: ParityOptions
    set_name: str = "test"
    against: str | None = None
    tta: str = "none"
    threads: int | None = None
    require_set: bool = False
    subgroups: Path | None = None
    robustness: bool = False
    stated: frozenset[str] | None = None

    @property
    def rows(self) -> dict[str, tuple[str, ...]]:
        """Names and views of the rows: the headline "none", and the one with test-time augmentation if asked for."""
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
class Judged:
    """What came of one candidate.

    claims: with the headline's views, in the fixed order; tta: the same with test-time augmentation. Both are empty when the
    golden images differ, or where there are no images of the set. error: why it could not be opened.
    robustness: against the first reference; layers: of a candidate that did not pass, every layer beside its FP32 reference,
    or why they could not be looked at.
    """

    found: Found
    sha256: str
    golden: dict[str, Any] | None
    claims: tuple[ParityReport, ...] = ()
    tta: tuple[ParityReport, ...] = ()
    error: OctcError | None = None
    robustness: Robustness | None = None
    layers: tuple[LayerGap, ...] = ()
    no_layers: str | None = None

    @property
    def exit_code(self) -> int:
        """0 only when every claim of the headline was shown, or, with nothing else to check, the golden images hold."""
        if self.error is not None:
            return self.error.exit_code
        if self.claims:
            return max(report.exit_code for report in self.claims)
        return 0 if self.word == "golden_only" else 1

    @property
    def passed(self) -> bool:
        return self.exit_code == 0

    @property
    def word(self) -> str:
        """Of the first claim; "fail" for golden images that differ, "golden_only" where nothing else could be checked."""
        if self.claims:
            return self.claims[0].word
        return "golden_only" if self.golden is not None and self.golden["ok"] else "fail"


@dataclass(frozen=True)
class Result:
    """What came of a call. no_set: why there are no images to judge on, or None; standing: None unless on the test set."""

    run: Run | None
    judged: tuple[Judged, ...]
    labelled: LabelledSet | None = None
    no_set: str | None = None
    standing: Standing | None = None
    notes: tuple[str, ...] = field(default=())
