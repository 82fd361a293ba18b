"""Findings from the results: whether INT8 is faster here, saturation, instruction set, recommended artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from octc.bench.timing.gates import WRONG
from octc.bench.timing.interleaved import INT8_WORDS, Comparison, int8_finding
from octc.bench.timing.latency import Measure, spell
from octc.bench.timing.plan import Subject
from octc.bench.timing.profiles import CANDIDATE
from octc.bench.timing.rows import Row
from octc.bench.timing.state import State
from octc.bench.timing.verdicts import stored_verdict
from octc.core.targets import TARGETS
from octc.machine.cpu import FAST_INT8
from octc.runtimes.golden import same_answer, words_of_same
from octc.stats.verdict import SHOWN
from octc.store.artifacts import read_golden
from octc.store.verdicts import MARK


@dataclass(frozen=True)
class Finding:
    """A finding. level: info, warn or fail. warning: code of the warning on stderr, or empty."""

    code: str
    level: str
    text: str
    rows: tuple[str, ...] = ()
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "level": self.level, "text": self.text, "rows": list(self.rows)}


def find_all(state: State) -> list[Finding]:
    """All findings in the order of a report: comparisons, possible problems, recommendation."""
    found = [_int8(state, c) for c in state.comparisons if c.kind == "int8_vs_other" and c.status == "VALID"]
    found += _same_answer(state)
    found += _saturation(state)
    found += _instruction_set(state)
    found += _computed(state)
    found += _gpu(state)
    if any(c.interleave == "reload" for c in state.comparisons):
        found.append(Finding("reload", "info", "both models do not fit into memory: they were reloaded for every block"))
    return [*found, *_take(state)]


def _measured(state: State) -> list[Subject]:
    ids = {row.plan.subject for row in state.rows.values() if row.latency is not None}
    return [s for s in state.plan.subjects if s.id in ids and s.role == CANDIDATE]


def _int8(state: State, one: Comparison) -> Finding:
    word = int8_finding(one.ratio)
    reasons = [] if word == "int8_faster" else _observed(state, one.candidate_row)
    text = one.text + (f" Observed: {'; '.join(reasons)}." if reasons else "")
    warning = "" if word == "int8_faster" else "OCT-W611"
    return Finding(word, INT8_WORDS[word], text, (one.candidate_row, one.reference_row), warning)


def _observed(state: State, row: str) -> list[str]:
    """Observed reasons, read back from the engine and machine."""
    subject = next(s for s in _measured(state) if row.startswith(f"{s.id}-"))
    precision = state.facts[subject.id].precision
    floats = sum(count for name, count in precision.items() if name != "int8")
    reasons = [] if _fast_int8(state) else [f"{state.machine.cpu_class} has no INT8 dot product"]
    return reasons + ([f"{floats} of {floats + precision.get('int8', 0)} convolutions do not run in INT8"] if floats else [])


def _fast_int8(state: State) -> bool:
    return bool(set(state.machine.isa) & set(FAST_INT8)) or "unknown" in state.machine.isa


def _same_answer(state: State) -> list[Finding]:
    """Artifacts that give the same prediction for all golden images; their times are useless."""
    found = []
    for subject in _measured(state):
        golden = read_golden(subject.found.folder)
        if (answer := same_answer(golden, subject.found.artifact)) is not None:
            text = f"{subject.id}: {words_of_same(answer, len(golden.logits))}"
            found.append(Finding("same_answer", "warn", text, warning="OCT-W809"))
    return found


def _saturation(state: State) -> list[Finding]:
    """On x86 without VNNI, products of uint8 activations and int8 weights are added in pairs in 16 bits and may saturate."""
    if not state.machine.cpu_class.startswith("x86") or _fast_int8(state):
        return []
    found = []
    for subject in _measured(state):
        artifact = subject.found.artifact
        bits = artifact.details.get("weight_bits", 8)  # octc uses 7 bits, which cannot saturate; other libraries may not
        if artifact.precision == "int8" and artifact.details.get("encoding") is not None and bits > 7:
            text = f"{subject.id}: 8-bit weights on {state.machine.cpu_class}, without VNNI: sums may saturate, results differ"
            found.append(Finding("int8_saturation", "warn", text, (), "OCT-W610"))
    return found


def _instruction_set(state: State) -> list[Finding]:
    """The expected speed of INT8 on this instruction set, unless this run measured that INT8 is faster."""
    ratios = [c.ratio for c in state.comparisons if c.kind == "int8_vs_other" and c.status == "VALID"]
    if _fast_int8(state) or any(int8_finding(ratio) == "int8_faster" for ratio in ratios):
        return []
    if not any(s.found.artifact.precision == "int8" for s in _measured(state)):
        return []
    text = f"INT8 may be no faster than FP32 here ({state.machine.cpu_class})"
    return [Finding("isa_without_int8", "info", text)]


def _computed(state: State) -> list[Finding]:
    """FP16 artifacts whose convolutions run in FP32."""
    found = []
    for subject in _measured(state):
        precision = state.facts[subject.id].precision
        if subject.found.artifact.precision == "fp16" and precision.get("fp32") and not precision.get("fp16"):
            found.append(Finding("computed_in_fp32", "info", f"{subject.id}: FP16 file, computed in FP32 on this CPU"))
    return found


def _gpu(state: State) -> list[Finding]:
    """What rows on a GPU include, and allowed power caps."""
    rows = [row for row in state.rows.values() if row.latency is not None]
    engines = {s.id for s in _measured(state) if TARGETS[s.found.artifact.target].on_gpu}
    mine = tuple(row.plan.id for row in rows if row.plan.subject in engines and row.plan.scope == "device")
    capped = tuple(r.plan.id for r in rows if r.conditions is not None and r.conditions.power_capped and r.status == "VALID")
    found = []
    if mine:
        text = "TensorRT rows include the copies to and from the GPU: a call ends when its logits are on the host"
        found.append(Finding("device_with_copies", "info", text, mine))
    if capped:
        found.append(Finding("power_capped", "warn", "the GPU ran at its power cap (allowed)", capped))
    return found


def _take(state: State) -> list[Finding]:
    """The fastest artifact that passed octc verify; if none was verified, the fastest one, marked as not verified.

    The finding is undecided if an invalid row is as fast as the fastest valid one.
    """
    batch = state.options.batch or 1
    rows = [(s, row) for s in _measured(state) if (row := state.rows.get(f"{s.id}-device-{batch}")) is not None]
    right = [(s, row) for s, row in rows if not set(row.reasons) & set(WRONG)]  # the speed of wrong outputs does not count
    times = sorted(((row.p50, s.id, row) for s, row in right if row.p50 is not None), key=lambda one: one[:2])
    if not any(row.status == "VALID" for _, _, row in times):
        return []
    stored = {s.id: stored_verdict(s.found) for s, _ in rows}
    passed = [one for one in times if stored[one[1]].word in SHOWN]
    pool = passed or times
    best = next((one for one in pool if one[2].status == "VALID"), None)
    head = "fastest that passed verify" if passed else "fastest"
    tail = "" if passed else ", not verified here (octc verify)"
    if best is None or pool[0] is not best:
        order = ", ".join(f"{name} ({_shown(p50, row)})" for p50, name, row in pool)
        return [Finding("recommended", "info", f"{head}: undecided; provisional order: {order}{tail}")]
    if len(pool) == 1:
        head = "the only one measured that passed verify" if passed else "the only one measured"
    mark = MARK if stored[best[1]].exploratory else ""
    near = [name for _, name, row in pool if row is not best[2] and row.status == "VALID" and _overlap(best[2], row)]
    beside = f", not distinguishable from {', '.join(near)} (the intervals overlap)" if near else ""
    return [Finding("recommended", "info", f"{head}: {best[1]} ({_shown(best[0], best[2])}){mark}{beside}{tail}")]


def _shown(p50: float | None, row: Row) -> str:
    return f"{spell(Measure(p50))} ms" + ("" if row.status == "VALID" else f", {row.status}")


def _overlap(one: Row, other: Row) -> bool:
    """Whether the intervals of the two medians overlap."""
    limits = [None if row.latency is None else row.latency.percentiles["p50"].ci95 for row in (one, other)]
    first, second = limits
    return first is not None and second is not None and first[0] <= second[1] and second[0] <= first[1]
