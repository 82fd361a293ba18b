"""Gates, status and exit code of a bench (docs/measurement.md, section 16)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from octc.bench.timing.latency import Measure, spell_interval, spell_number
from octc.bench.timing.rows import Row
from octc.bench.timing.state import State
from octc.core.errors import OctcError, ranked, shorten

PERCENTILE_GATES = {"max_p50_ms": "p50", "max_p90_ms": "p90", "max_p99_ms": "p99"}
SPELT = {
    "max_p50_ms": "--max-p50",
    "max_p90_ms": "--max-p90",
    "max_p99_ms": "--max-p99",
    "min_images_per_s": "--min-throughput",
    "max_mj": "--max-mj",
    "require_speedup": "--require-speedup",
}
# reason of an INVALID row -> its code and hint
REASONS = {
    "below_minimum": ("OCT-E602", "keep --duration, --min-queries and --max-duration at the profile's values or above"),
    "thermal_throttle": ("OCT-E603", "let the machine cool down, or choose a lower power mode"),
    "clock_drop": ("OCT-E603", "let the machine cool down, or fix its clock (octc never sets it)"),
    "warmup_unstable": ("OCT-E607", "end other programs and run it again"),
    "drift": ("OCT-E607", "end other programs and run it again"),
    "foreign_load": ("OCT-E607", "end other programs and run it again"),
    "power_throttle": ("OCT-E603", "use a higher power mode, or --allow-power-cap if the cap is intended"),
    "unsteady": ("OCT-E607", "end other programs and run it again; the standard profile has more blocks than --quick"),
    "steal": ("OCT-E607", "the host of this virtual machine is busy: run it again, or on a machine of its own"),
    "output_mismatch": ("OCT-E608", "octc verify; do not use this artifact with this runtime here"),
    "precision_mismatch": ("OCT-E406", "octc doctor shows the runtimes; the row's numbers are of another precision"),
}
GATE_HINT = "a gate is judged on the limit of the 95 % interval: measure longer, or choose another artifact"
WRONG = ("output_mismatch", "precision_mismatch")
INTERRUPTED = 130


@dataclass(frozen=True)
class Gate:
    """A gate on one row or comparison: limit, measured value, and whether it holds."""

    name: str
    about: str
    text: str
    holds: bool


@dataclass(frozen=True)
class Judgement:
    """The outcome. status: PASS, FAIL, INVALID or INTERRUPTED. errors: reasons for a non-zero exit code, decisive first."""

    status: str
    exit_code: int
    gates: tuple[Gate, ...]
    errors: tuple[OctcError, ...]


def judge(state: State, stopped: int = INTERRUPTED) -> Judgement:
    """The outcome of a bench. stopped: exit code after an interruption."""
    gates = tuple(_gates(state))
    missed = [OctcError("OCT-E604", f"gate missed: {g.text}", hint=GATE_HINT, place=g.about) for g in gates if not g.holds]
    invalid = list(_invalid(state))
    errors = ranked([*state.errors, *invalid, *missed])
    wrong = any(reason in WRONG for row in state.rows.values() for reason in row.reasons)
    statuses = [row.status for row in state.rows.values()] + [one.status for one in state.comparisons]
    bad = "INVALID" in statuses
    if state.interrupted is not None:
        return Judgement("INTERRUPTED", stopped, gates, tuple(errors))
    status = "FAIL" if missed or wrong or state.errors else "INVALID" if bad else "PASS"
    code = errors[0].exit_code if errors else (1 if bad else 0)
    return Judgement(status, code, gates, tuple(errors))


def _invalid(state: State) -> Iterator[OctcError]:
    """One error per reason with the affected rows; `incomplete` has its own error already."""
    for reason, (code, hint) in REASONS.items():
        rows = [
            r.plan.id for r in state.rows.values() if r.status == "INVALID" and reason in r.reasons and r.latency is not None
        ]
        if rows:
            yield OctcError(code, f"{_count(len(rows), 'row')} INVALID ({reason}): {shorten(rows)}", hint=hint)
        pairs = [
            f"{c.candidate_row} and {c.reference_row}"
            for c in state.comparisons
            if c.status == "INVALID" and c.ratio.reason == reason
        ]
        if pairs:
            yield OctcError(code, f"{_count(len(pairs), 'comparison')} INVALID ({reason}): {shorten(pairs)}", hint=hint)


def _count(number: int, what: str) -> str:
    return f"1 {what} is" if number == 1 else f"{number} {what}s are"


def _gates(state: State) -> Iterator[Gate]:
    """All gates; each is judged on the unfavourable limit of the interval, for every gated artifact."""
    for name, limit in state.options.gates.items():
        for subject in state.plan.gated:
            if name in PERCENTILE_GATES:
                yield from (_percentile(name, limit, row) for row in _single(state, subject))
            elif name == "max_mj":
                yield _energy(name, limit, _single(state, subject), subject)
            elif name == "min_images_per_s":
                yield _throughput(name, limit, state.rows.get(f"{subject}-offline"), subject)
            else:
                yield _speedup(state, name, limit, subject)


def _single(state: State, subject: str) -> list[Row]:
    batch = state.options.batch or 1
    scopes = ("device", "end_to_end")
    return [row for scope in scopes if (row := state.rows.get(f"{subject}-{scope}-{batch}")) is not None]


def _percentile(name: str, limit: float, row: Row) -> Gate:
    percentile = PERCENTILE_GATES[name]
    head = f"{SPELT[name]} {limit:g}ms on {row.plan.id}"
    if row.status != "VALID" or row.latency is None:
        return Gate(name, row.plan.id, f"{head}: not shown, the row is {row.status}", False)
    found = row.latency.percentiles[percentile]
    if found.value is None or found.ci95 is None:
        return Gate(name, row.plan.id, f"{head}: not shown ({found.reason})", False)
    text = f"{head}: {percentile} {_shown(found)} ms"
    if found.ci95[1] <= limit:
        return Gate(name, row.plan.id, text, True)
    return Gate(name, row.plan.id, f"{text}, not shown" if found.value <= limit else text, False)


def _energy(name: str, limit: float, rows: list[Row], subject: str) -> Gate:
    """Gross energy of the end-to-end row, else of the device row. It is the total over one loop and has no interval."""
    row = rows[-1] if rows else None
    head = f"{SPELT[name]} {limit:g} on {subject if row is None else row.plan.id}"
    if row is None or row.status != "VALID" or row.energy is None or row.energy.gross.value is None:
        reason = "no valid row" if row is None or row.energy is None or row.status != "VALID" else row.energy.gross.reason
        return Gate(name, subject, f"{head}: not shown ({reason})", False)
    found = row.energy.gross.value
    return Gate(name, row.plan.id, f"{head}: {spell_number(found)} mJ/image ({row.energy.scope})", found <= limit)


def _throughput(name: str, limit: float, row: Row | None, subject: str) -> Gate:
    head = f"{SPELT[name]} {limit:g} on {subject}"
    found = None if row is None or row.status != "VALID" else row.rate
    if found is None or found.value is None or found.ci95 is None:
        return Gate(name, subject, f"{head}: not shown, no valid row", False)
    return Gate(name, subject, f"{head}: {_shown(found)} images/s", found.ci95[0] >= limit)


def _speedup(state: State, name: str, limit: float, subject: str) -> Gate:
    head = f"{SPELT[name]} {limit:g} on {subject}"
    row = f"{subject}-device-{state.options.batch or 1}"
    found = next((c for c in state.comparisons if c.kind == "int8_vs_other" and c.candidate_row == row), None)
    if found is None or found.status != "VALID" or found.ratio.ci95 is None:
        return Gate(name, subject, f"{head}: not shown, INT8 was not compared with a float artifact", False)
    low, high = (1 / found.ratio.ci95[1], 1 / found.ratio.ci95[0])
    return Gate(name, subject, f"{head}: {1 / (found.ratio.value or 1):.2f} [{low:.2f}, {high:.2f}]", low >= limit)


def _shown(found: Measure) -> str:
    return f"{spell_number(found.value or 0.0)} {spell_interval(found)}"
