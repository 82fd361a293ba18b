"""The result of a verification: a verdict for each candidate, documents, errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.bench.parity.box import Box
from octc.bench.parity.claim import ParityReport
from octc.bench.parity.decisions import DecisionVerdict
from octc.bench.parity.evaluation_set import LabelledSet
from octc.bench.parity.eyes import EyeVerdict
from octc.bench.parity.plan_lock import SetUse
from octc.bench.parity.summary import JSON_KEYS, document, failures, summary, text_of
from octc.core.errors import OctcError, combined
from octc.core.faults import writing_to
from octc.core.files import write_json
from octc.runtimes.layers import LayerGap
from octc.stats.robustness import Robustness
from octc.store.find import Found
from octc.store.runs import Run
from octc.store.verdicts import FILE, write_verdict


@dataclass(frozen=True)
class Judged:
    """The result for one candidate.

    claims: with the headline's views, in the fixed order; tta: the same with test-time augmentation. Both are empty when the
    golden images differ, or where there are no images of the set. error: why it could not be opened.
    robustness: against the first reference; layers: of a candidate that did not pass, every layer beside its FP32 reference,
    or why they could not be looked at. eyes: the first claim on eyes, where the images are B-scans of volumes. decisions: what
    came of the rules of reference and candidate. box: what this machine answered, to be put beside others.
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
    eyes: EyeVerdict | None = None
    box: Box | None = None
    decisions: tuple[DecisionVerdict, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 only when every claim of the headline was shown, or, with nothing else to check, the golden images hold."""
        if self.error is not None:
            return self.error.exit_code
        if self.claims:
            rules = int(any(one.broken for one in self.decisions))
            return max(*(report.exit_code for report in self.claims), 0 if self.eyes is None else self.eyes.exit_code, rules)
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
class VerifyResult:
    """The result of `octc.verify`; `str()` gives the report, `write` stores verify.json.

    Attributes:
        run: of the artifacts, None where it is not here; run_id: its name in their lineage.
        set_name: "test", or "select" for the validation set. labelled: its images; no_set: why they are not here, or None.
        judged: one entry for each candidate. absent: artifacts that do not run here, and why.
        use: what the plan and the test-set log say, None unless on the test set. notes: about claims that are not made.
        reference: the FP32 artifact.
        facts: run_id, time_utc, versions, machine.
    """

    run: Run | None
    run_id: str
    set_name: str
    judged: tuple[Judged, ...]
    facts: Mapping[str, Any]
    labelled: LabelledSet | None = None
    no_set: str | None = None
    use: SetUse | None = None
    notes: tuple[str, ...] = ()
    absent: tuple[tuple[Found, str], ...] = ()
    reference: Found | None = None

    @property
    def word(self) -> str:
        """Verdict of the first candidate: equivalent, non_inferior, inconclusive, inferior, fail, not_tested or golden_only."""
        return self.judged[0].word

    @property
    def passed(self) -> bool:
        """Whether every claim on every candidate was shown (without labelled images: whether the golden images hold)."""
        return not self.errors

    @property
    def errors(self) -> list[OctcError]:
        """What did not hold, with hints: what the command ends with."""
        return list(failures(self))

    @property
    def documents(self) -> list[dict[str, Any]]:
        """One document for each candidate (docs/parity.md, section 16)."""
        return [document(one, self) for one in self.judged]

    @property
    def compared(self) -> list[Found]:
        """The candidates and their FP32 reference, each once."""
        found = [one.found for one in self.judged] + ([] if self.reference is None else [self.reference])
        return list({one.folder: one for one in found}.values())

    def raise_if_failed(self) -> None:
        """Raise what did not hold (E506, E701 to E707, or why a file could not be opened); nothing where all held."""
        if errors := self.errors:
            raise combined(errors)

    def write(self, path: Path | str | None = None) -> list[Path]:
        """Write the documents: to `path`, or (None) into verify.json beside each artifact, where reports read them.

        Args:
            path: a JSON file that gets everything of this result; what was there is replaced.

        Raises:
            OctcError: E109 a folder that cannot be written.
        """
        if path is not None:
            with writing_to(path):
                write_json(Path(path), self.to_json())
            return [Path(path)]
        written, errors = [], []
        for one, found in zip(self.judged, self.documents, strict=True):
            if one.error is not None:
                continue
            key = self.set_name if one.claims else "golden"
            try:
                write_verdict(one.found.folder, one.found.artifact.name, one.sha256, key, found, self.run)
                written.append(one.found.folder / FILE)
            except OctcError as error:  # the others are written all the same
                errors.append(error)
        if errors:
            raise combined(errors)
        return written

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data: what `octc verify --json` prints."""
        return {
            "run": self.run_id,
            "set": self.set_name,
            "golden_only": self.labelled is None,
            "artifacts": self.documents,
            "absent": [{"name": found.artifact.name, "reason": why} for found, why in self.absent],
            "notes": list(self.notes),
            "summary": [dict(zip(JSON_KEYS, row, strict=True)) for row in summary(self)],
            "uses_of_test": None if self.use is None else self.use.uses,
            "test_set_log": None if self.use is None else self.use.log.to_json(),
        }

    def __str__(self) -> str:
        return "\n\n".join(text_of(one, self, brief=True) for one in self.judged)
