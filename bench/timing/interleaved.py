"""Comparison of two artifacts: interleaved blocks in two processes, ratio, and text (docs/measurement.md, sections 12, 13)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from octc.bench.timing import conditions as machine
from octc.bench.timing.conditions import Conditions, Snapshot, foreign_percent
from octc.bench.timing.latency import Measure, median_of, missing, ratio, spell_number
from octc.bench.timing.profiles import Profile

DROPPED_SHARE = 0.20  # maximum share of dropped pairs; above it the comparison is INVALID
UNSTEADY = 1.10  # maximum upper / lower limit of a ratio's interval; above it a repetition may differ by more than 10 %
INT8_WORDS = {"int8_faster": "info", "int8_no_gain": "warn", "int8_slower": "warn"}

Block = Callable[[], "tuple[Sequence[int], Sequence[Snapshot]]"]  # durations in ns, snapshots of the machine


@dataclass(frozen=True)
class Comparison:
    """A ratio of times: reference / candidate, except for int8_vs_other: INT8 / other."""

    kind: str
    candidate_row: str
    reference_row: str
    ratio: Measure
    pairs: int
    dropped: int
    interleave: str
    status: str
    text: str

    def to_json(self) -> dict[str, Any]:
        return {
            "candidate_row": self.candidate_row,
            "reference_row": self.reference_row,
            "kind": self.kind,
            "ratio": self.ratio.to_json(),
            "pairs": self.pairs,
            "dropped_pairs": self.dropped,
            "interleave": self.interleave,
            "status": self.status,
            "text": self.text,
        }


@dataclass(frozen=True)
class Pairs:
    """Block medians of both sides in pairs, ms; the number of dropped pairs, and the state of the machine overall.

    foreign: load of other programs on the usable processors during the blocks, percent.
    """

    reference: tuple[float, ...]
    candidate: tuple[float, ...]
    dropped: int
    conditions: Conditions | None
    foreign: float = 0.0

    @property
    def reason(self) -> str | None:
        """Why the ratio is invalid, or None."""
        total = len(self.reference) + self.dropped
        if self.dropped > DROPPED_SHARE * total or len(self.reference) < 2:
            return "thermal_throttle"
        steal = None if self.conditions is None else self.conditions.steal_percent
        if steal is not None and steal > machine.STEAL:
            return "steal"
        return "foreign_load" if self.foreign > machine.FOREIGN else None


def run_pairs(reference: Block, candidate: Block, profile: Profile) -> Pairs:
    """Run pairs of blocks in the order A B, B A, A B, ...; a pair with signs of throttling is dropped and repeated.

    It ends early once so many pairs were dropped that the comparison is INVALID.
    """
    kept: list[tuple[float, float]] = []
    looks: list[Snapshot] = []
    blocks: list[Conditions] = []
    dropped = 0
    while len(kept) < profile.pairs and dropped <= DROPPED_SHARE * profile.pairs:
        sides: dict[str, float] = {}
        throttled = False
        order = (("r", reference), ("c", candidate))
        for name, run in order if (len(kept) + dropped) % 2 == 0 else order[::-1]:
            durations, seen = run()
            sides[name] = median_of(np.asarray(durations) / 1e6)
            looks += seen
            if len(seen) > 1:
                blocks.append(Conditions(tuple(seen)))
                throttled = throttled or blocks[-1].throttled is True
        if throttled:
            dropped += 1
        else:
            kept.append((sides["r"], sides["c"]))
    conditions = Conditions(tuple(looks)) if len(looks) > 1 else None
    return Pairs(tuple(r for r, _ in kept), tuple(c for _, c in kept), dropped, conditions, foreign_percent(blocks))


def compared(kind: str, rows: tuple[str, str], names: tuple[str, str], pairs: Pairs, interleave: str) -> Comparison:
    """Make the comparison from its pairs.

    Args:
        rows: ids of the candidate and reference rows. names: their names in texts.
    """
    head = (kind, *rows)
    if (reason := pairs.reason) is not None:
        text = f"{names[0]} against {names[1]}: INVALID ({reason})"
        return Comparison(*head, missing(reason), len(pairs.reference), pairs.dropped, interleave, "INVALID", text)
    over = (pairs.candidate, pairs.reference) if kind == "int8_vs_other" else (pairs.reference, pairs.candidate)
    found = ratio(*over)
    _, low, high = _limits(found)
    if high > UNSTEADY * low:
        limits = f"[{spell_ratio(low)}, {spell_ratio(high)}]"
        text = f"{names[0]} against {names[1]}: INVALID (unsteady: {limits} is wider than {100 * (UNSTEADY - 1):.0f} %)"
        return Comparison(*head, missing("unsteady"), len(pairs.reference), pairs.dropped, interleave, "INVALID", text)
    words = int8_text(found, *names) if kind == "int8_vs_other" else teacher_text(found)
    return Comparison(*head, found, len(pairs.reference), pairs.dropped, interleave, "VALID", words)


def no_comparison(kind: str, rows: tuple[str, str], reason: str, status: str = "NA") -> Comparison:
    """A comparison without a ratio, with the reason."""
    return Comparison(kind, *rows, missing(reason), 0, 0, "none", status, f"no ratio: {reason}")


def teacher_text(found: Measure) -> str:
    """As text: "the teacher takes 8.0 times as long [7.8, 8.2]", or that no difference was shown."""
    value, low, high = _limits(found)
    shown = f"{spell_ratio(value)} times as long [{spell_ratio(low)}, {spell_ratio(high)}]"
    if low <= 1 <= high:
        return f"no difference shown: the teacher takes {shown}"
    return f"the teacher takes {shown}"


def int8_finding(found: Measure) -> str:
    """int8_faster, int8_slower, or int8_no_gain if the interval of t_INT8 / t_other contains 1."""
    _, low, high = _limits(found)
    return "int8_faster" if high < 1 else "int8_slower" if low > 1 else "int8_no_gain"


def int8_text(found: Measure, int8: str, other: str) -> str:
    """The ratio of INT8 to another artifact as text."""
    value, low, high = _limits(found)
    limits = f"[{spell_ratio(low)}, {spell_ratio(high)}]"
    word = int8_finding(found)
    if word == "int8_faster":
        return f"{int8} takes {spell_ratio(value)} {limits} of the time of {other}"
    if word == "int8_no_gain":
        return f"no speed difference shown between {int8} and {other} here: {spell_ratio(value)} {limits}"
    return f"{int8} is slower than {other} here: {spell_ratio(value)} times {limits}. Use {other} on this machine."


def spell_ratio(value: float) -> str:
    """A ratio as text: two decimals below 10, else as `spell_number`."""
    return f"{value:.2f}" if value < 10 else spell_number(value)


def _limits(found: Measure) -> tuple[float, float, float]:
    assert found.value is not None  # a ratio has a value and an interval
    assert found.ci95 is not None
    return found.value, *found.ci95
