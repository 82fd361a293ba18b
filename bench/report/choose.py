"""Which file to deploy, from what verify and bench stored beside the artifacts. Nothing is measured and nothing is judged anew.

A file may be deployed where every claim against its FP32 reference was shown on the test set as planned and no promise of its
rules is broken there, or where it is that reference. The quickest of those is named; where one of them has no valid latency,
the lowest precision is, provisionally.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from octc.bench.report.collect.rules import broken_promises
from octc.bench.report.collect.run_summary import Timing, read_timing
from octc.bench.report.collect.speed import device_row, p50_text
from octc.bench.timing.verdicts import REFERENCE, stored_verdict
from octc.core.errors import shorten
from octc.core.progress import LogReporter, Reporter
from octc.machine.cpu import read_flags
from octc.runtimes.registry import preferences, why_not
from octc.store.artifacts import file_mib
from octc.store.find import Found, find_artifacts, path_of
from octc.store.int8_speed import is_slower
from octc.store.verdicts import headline, is_exploratory, read_verdict, word_of

SHOWN, IS_REFERENCE, OPEN, REFUSED = "shown", "reference", "open", "refused"
BAD = ("fail", "inferior")


@dataclass(frozen=True)
class Candidate:
    """What is known of one artifact.

    state: "shown" (every claim against FP32 held as planned), "reference" (what the others were compared with), "open" (not
    verified on the test set, exploratory or inconclusive) or "refused" (a verdict against it, or it does not run here: `why`).
    p50_ms: of one image on this machine, None where no row of it is valid; timing: what is wrong with it then.
    conditions: margin and test set of the verdict; others: claims beside the first one that were not shown.
    slower: the export found INT8 to take longer than FP32 on this processor; such a file stands behind the others.
    """

    name: str
    folder: str
    precision: str
    target: str
    mib: float
    state: str
    why: str
    verdict: str
    conditions: str = ""
    p50_ms: float | None = None
    timing: str = ""
    processor: str = ""
    others: tuple[str, ...] = ()
    slower: bool = False


@dataclass(frozen=True)
class Choice:
    """The file to deploy, or None where there is none; `reasons`: why it is provisional, empty where it is not; run: its id."""

    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    reasons: tuple[str, ...]
    run: str = ""

    @property
    def sentences(self) -> tuple[str, str, str]:
        """Which file; why; what is provisional or unknown."""
        one = self.chosen
        if one is None:
            refused = "; ".join(f"{c.name}: {c.why}" for c in self.candidates)
            return ("No file can be deployed.", f"{refused}.", "Export or train again, then octc verify.")
        first = f"Deploy {one.name}: {one.precision.upper()} for {one.target}, {one.mib:.2f} MiB."
        return (first, self._why(one), self._unknown(one))

    @property
    def line(self) -> str:
        """The choice in one line, for the end of other commands."""
        if self.chosen is None:
            return "deploy: none of these files (octc choose says why)"
        mark = f" (provisional: {self.reasons[0]})" if self.reasons else ""
        return f"deploy: {self.chosen.name}{mark}"

    def _why(self, one: Candidate) -> str:
        verdict = {
            IS_REFERENCE: "It is the reference that the others were compared with",
            SHOWN: f"Its verdict is {one.verdict} ({one.conditions})",
        }.get(one.state, f"Its verdict is {one.verdict}{f' ({one.conditions})' if one.conditions else ''}: {one.why}")
        rivals = [c for c in self.candidates if c.state in (SHOWN, IS_REFERENCE) and c is not one]
        if one.p50_ms is None:
            return f"{verdict}, and it has the lowest precision of the files that may be deployed here."
        quickest = f", the quickest of {len(rivals) + 1} files that may be deployed" if rivals and not self.reasons else ""
        return f"{verdict}, and one image takes {one.p50_ms:.3g} ms (p50){quickest}."

    def _unknown(self, one: Candidate) -> str:
        if self.reasons:
            return f"Provisional: {'; '.join(self.reasons)}."
        return f"Nothing in this is provisional; the latency is that of {one.processor}, and other machines differ."

    def to_json(self) -> dict[str, Any]:
        """The document of `octc choose`."""
        one = self.chosen
        return {
            "artifact": None if one is None else one.name,
            "folder": None if one is None else one.folder,
            "provisional": one is not None and bool(self.reasons),
            "reasons": list(self.reasons),
            "sentences": list(self.sentences),
            "candidates": [asdict(c) for c in self.candidates],
        }


def choose(founds: Sequence[Found]) -> Choice:
    """Name one of these artifacts; those of students, where there are any."""
    students = [found for found in founds if found.artifact.role == "student"] or list(founds)
    candidates = tuple(candidate_of(found) for found in students)
    fit = [c for c in candidates if c.state in (SHOWN, IS_REFERENCE)] or [c for c in candidates if c.state == OPEN]
    if not fit:
        return Choice(None, candidates, ())
    order = preferences()
    untimed = [c for c in fit if c.p50_ms is None]
    if untimed:
        chosen = min(fit, key=lambda c: (c.slower, _rank(c, order), c.name))
    else:
        chosen = min(fit, key=lambda c: (c.p50_ms or 0.0, _rank(c, order), c.name))
    reasons = [] if chosen.state != OPEN else [f"no verdict as planned supports it ({chosen.why}): octc verify"]
    if chosen.state == IS_REFERENCE and (behind := [c.name for c in candidates if c.state == OPEN]):
        reasons.append(f"{shorten(behind)} may be deployed once octc verify has shown it")
    if untimed:
        reasons.append("; ".join(f"{c.name}: {c.timing}" for c in untimed) + ": octc bench")
    elif quick := [c.name for c in fit if c.timing]:
        reasons.append(f"latencies of {shorten(quick)} are of the quick profile: octc bench")
    return Choice(chosen, candidates, (*reasons, *chosen.others))


def choose_artifact(artifact: Any = None, *, run_dir: str | Path = "runs", reporter: Reporter | None = None) -> Choice:
    """Name the artifact to deploy, from the results that `octc.verify` and `octc.bench` stored. Nothing is measured.

    Args:
        artifact: a run (its id or folder), a folder of artifacts, one artifact, or a model of `octc.load`; None: the newest
            student run with artifacts.
        run_dir: folder of the runs. reporter: receives messages; None: the log `octc`.

    Returns:
        `chosen` (None where no file can be deployed), every candidate with what is known of it, `reasons` why the choice is
        provisional, and `sentences`: which, why, and what is not known.

    Raises:
        OctcError: E107 no artifact; E501, E502, E504 the one that was named is damaged.

    >>> import octc
    >>> octc.choose("no-such-run")
    Traceback (most recent call last):
    octc.core.errors.OctcError: no artifact and no run: no-such-run
    """
    given = None if artifact is None else path_of(artifact)
    founds, words = find_artifacts(given, Path(run_dir), os.environ)
    (reporter or LogReporter()).say(words)
    return replace(choose(founds), run=str(founds[0].artifact.lineage.get("run")))


def _rank(one: Candidate, order: Sequence[tuple[str, str]]) -> int:
    pair = (one.target, one.precision)
    return order.index(pair) if pair in order else len(order)


def candidate_of(found: Found) -> Candidate:
    """What is known of one artifact, from the files beside it."""
    artifact, timing = found.artifact, read_timing(found)
    document = headline(read_verdict(found.folder, found.artifact.sha256))
    state, why, verdict = _state(found, document)
    row = device_row(timing)
    p50 = row["latency_ms"]["p50"]["value"] if row is not None and row["status"] == "VALID" else None
    return Candidate(
        artifact.name,
        str(found.folder),
        artifact.precision,
        artifact.target,
        file_mib(artifact),
        state,
        why,
        verdict,
        _conditions(document),
        p50,
        _timing_words(timing, p50),
        _processor(timing),
        _others(document),
        is_slower(artifact.details, read_flags()[0]),
    )


def _state(found: Found, document: dict[str, Any] | None) -> tuple[str, str, str]:
    """state, why, verdict in words."""
    if document is not None and document["verdict"]["word"] in BAD and not is_exploratory(document):
        return REFUSED, f"verdict {word_of(document)}", word_of(document)
    if (unable := why_not(found.artifact)) is not None:
        return REFUSED, unable, "not verified" if document is None else word_of(document)
    on_test = document is not None and (document.get("set") or {}).get("name") == "test"
    broken = broken_promises(document)
    if document is not None and on_test and broken and not is_exploratory(document):
        return (
            REFUSED,
            f"its rules do not keep what they promise ({broken[0]}): octc threshold or octc abstain",
            word_of(document),
        )
    if document is not None and on_test and document["verdict"].get("exit_code") == 0 and not is_exploratory(document):
        return SHOWN, "", word_of(document)
    if stored_verdict(found).word == REFERENCE:
        return IS_REFERENCE, "", REFERENCE
    if document is None:
        return OPEN, "not verified", "not verified"
    where = "" if on_test else ", not on the test set"
    return OPEN, f"{word_of(document)}{where}", word_of(document)


def _conditions(document: dict[str, Any] | None) -> str:
    if document is None or not document.get("set") or not document.get("plan"):
        return ""
    return f"margin {document['plan']['margin_pp']:g} pp, {document['set']['name']} set of {document['set']['n']} images"


def _others(document: dict[str, Any] | None) -> tuple[str, ...]:
    """Claims beside the first one that were not shown."""
    words = {"teacher": "its teacher", "fp32": "its FP32 reference"}
    return tuple(
        f"the claim against {words.get(str(one.get('against')), 'another reference')} is {word_of(one)}"
        for one in (document or {}).get("claims", ())
        if one["verdict"].get("exit_code")
    )


def _timing_words(timing: Timing | None, p50: float | None) -> str:
    """What is wrong with a latency; empty where nothing is."""
    if timing is None:
        return "latency not measured"
    if p50 is None:
        return f"latency {p50_text(timing)}"
    return "quick profile" if timing.document["settings"]["profile"] == "quick" else ""


def _processor(timing: Timing | None) -> str:
    return "" if timing is None else str(timing.document["machine"]["cpu_model"])
