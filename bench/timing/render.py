"""The summary on the terminal: machine, settings, table, findings, ratios, result (docs/measurement.md, section 18)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from octc.bench.timing.findings import Finding
from octc.bench.timing.gates import Judgement
from octc.bench.timing.latency import median_of, spell, spell_number
from octc.bench.timing.plan import Plan, RowPlan
from octc.bench.timing.profiles import CANDIDATE, REFERENCE, Options
from octc.bench.timing.rows import Row
from octc.bench.timing.state import State
from octc.bench.timing.verdicts import stored_verdict
from octc.store.artifacts import file_mib

COLUMNS = ("artifact", "row", "n", "p50", "p90", "p99", "img/s", "MiB", "file MiB", "mJ/img", "verify", "status")
EMPTY = ("",) * 7
SCENARIOS = {"single_stream": "single stream", "offline": "offline"}
SCOPES = {"device": "device", "host": "host", "end_to_end": "end to end"}
SOURCES = {"option": "--threads", "quota": "quota", "affinity": "usable cores", "physical_cores": "physical cores"}
SCOPE_WORDS = {"gpu_board": "GPU board", "jetson_module": "Jetson module", "cpu_package": "CPU package", "wall": "wall"}
KINDS = {"as_shipped": "as shipped", "same_precision": "same precision", "int8_vs_other": "INT8"}


def row_name(row: RowPlan) -> str:
    """Name of a row: "device", "end to end, batch 4"."""
    name = SCOPES[row.scope] if row.scenario == "single_stream" else "throughput"
    return name if row.batch == 1 else f"{name}, batch {row.batch or 'best'}"


def plan_rows(plan: Plan, options: Options) -> list[tuple[str, str, str, str]]:
    """The plan as a table: artifact, row, minimum seconds, minimum queries."""
    rows = []
    for row in plan.rows:
        if row.hidden:
            continue
        if row.na is not None:
            rows.append((row.subject, row_name(row), "-", f"NA: {row.na}"))
            continue
        limits = options.limits(plan.subject(row.subject).role)
        rows.append((row.subject, row_name(row), f"{limits.duration_s:g}", str(limits.min_queries)))
    for versus in plan.versus:
        others = " or ".join(versus.others)
        what = f"{KINDS[versus.kind]}, {SCOPES[versus.scope]}, against {others}"
        profile = options.profile
        blocks = (f"{2 * profile.pairs * profile.block_s:g}", f"{profile.pairs} pairs of blocks")
        rows.append((versus.candidate, what, *(blocks if versus.na is None else ("-", f"NA: {versus.na}"))))
    return rows


def head(state: State) -> list[str]:
    """The lines about profile, machine and settings."""
    machine, options = state.machine, state.options
    measured = [row for row in state.rows.values() if row.conditions is not None]
    temperatures = [c for row in measured if row.conditions is not None for c in _temperatures(row)]
    degrees = f"{temperatures[0]:.0f} → {temperatures[-1]:.0f} °C" if temperatures else "no temperature sensor"
    told = [row.conditions.throttled for row in measured if row.conditions is not None]
    throttled = "yes" if True in told else "no" if told and None not in told else "not readable"
    clocks = [row.conditions.clocks() for row in measured if row.conditions is not None]
    read = [pair for pair in clocks if pair is not None]
    clock = f"clock {read[0][0]:.0f} → {read[-1][1]:.0f} MHz" if read else "clocks not readable"
    settled = sum(bool(row.warmup and row.warmup["settled"]) for row in measured)
    virtual = " (virtual machine)" if machine.virtual else ""
    mode = machine.jetson["power_mode"] or (f"governor {machine.governor}" if machine.governor else "power mode not readable")
    batches = sorted({row.plan.batch for row in measured})
    limits = options.limits(CANDIDATE)
    profile = f"{limits.duration_s:g} s and {limits.min_queries} queries"
    warm = f"warm-up settled in {settled} of {len(measured)} rows"
    threads = f"threads {options.threads} ({SOURCES[options.threads_source]})"
    shown = f"batch {', '.join(map(str, batches)) or '-'}"
    who = f"{machine.name}{virtual} · {machine.cpu_model} · {' '.join(machine.isa)}"
    return [
        *state.plan.notes[:1],
        f"machine   {who} · {mode} · {clock} · {degrees} · throttling {throttled}",
        f"settings  {SCENARIOS[options.scenario]} · {shown} · {warm} · {profile} · {threads} · images: {options.images_from}",
    ]


def _temperatures(row: Row) -> list[float]:
    looks = () if row.conditions is None else row.conditions.looks
    return [look.temp_c for look in looks if look.temp_c is not None]


def table(state: State, struck: tuple[str, str] = ("(", ")")) -> list[tuple[str, ...]]:
    """Rows of the table; invalid numbers are enclosed in the two strings of `struck`."""
    made, before = [], ""
    for row in (state.rows[p.id] for p in state.plan.rows if p.id in state.rows and not p.hidden):
        made.append(_cells(state, row, struck, first=row.plan.subject != before))
        before = row.plan.subject
    return made


def _cells(state: State, row: Row, struck: tuple[str, str], first: bool) -> tuple[str, ...]:
    subject = next((s for s in state.plan.subjects if s.id == row.plan.subject), None)
    name = row.plan.subject
    words = "reference" if subject is not None and subject.role == REFERENCE else ""
    if subject is not None and subject.role != REFERENCE:
        words = stored_verdict(subject.found).shown
        words = "not verified here" if words == "not verified" else words
    size = "" if subject is None or not first else f"{file_mib(subject.found.artifact):.2f}"
    if row.latency is None:
        return name, row_name(row.plan), *EMPTY[:6], size, "", words if first else "", row.status
    percentiles = row.latency.percentiles
    numbers = [spell(percentiles[p]) for p in ("p50", "p90", "p99")]
    numbers += [spell(row.rate) if row.rate is not None else "null"]
    if row.status == "INVALID":
        numbers = [f"{struck[0]}{number}{struck[1]}" if number[:1].isdigit() else number for number in numbers]
    memory = "null" if row.rss_peak_mib is None or row.rss_peak_mib.value is None else f"{row.rss_peak_mib.value:.0f}"
    spent = "null" if row.energy is None or row.energy.gross.value is None else spell(row.energy.gross)
    return (name, row_name(row.plan), f"{row.n:,}", *numbers, memory, size, spent, words if first else "", row.status)


def reasons(state: State) -> list[str]:
    """One line per INVALID or NA row with the reasons."""
    shown = [state.rows[p.id] for p in state.plan.rows if p.id in state.rows and not p.hidden]
    lines = [f"{r.status:<9} {r.plan.subject}, {row_name(r.plan)}: {', '.join(r.reasons)}" for r in shown if r.reasons]
    return list(dict.fromkeys(lines))


def loads(state: State) -> list[str]:
    """Lines with load time, first call and cold start of every opened artifact."""
    lines = []
    for name, known in state.facts.items():
        if known.load_ms:
            cold = median_of(known.cold_ms)
            middle, most, first = (
                spell_number(t) for t in (median_of(known.load_ms), max(known.load_ms), median_of(known.first_ms))
            )
            times = f"{middle} ms (largest {most} of {len(known.load_ms)}), first call {first} ms"
            lines.append(f"load      {name}: {times}, cold start {spell_number(cold)} ms")
    return lines


def tail(state: State, verdict: Judgement, findings: Sequence[Finding], files: Sequence[Path]) -> list[str]:
    """The lines about findings, ratios, gates and the result."""
    lines = [f"{'finding' if f.level == 'info' else 'FINDING':<9} {f.text}" for f in findings]
    for one in state.comparisons:
        if one.kind != "int8_vs_other":
            lines.append(f"ratio     {KINDS[one.kind]}: {_pair(one.candidate_row, one.reference_row)}: {one.text}")
        elif one.status != "VALID":
            lines.append(f"ratio     {one.text}")
    lines += [f"gate      {gate.text}: {'met' if gate.holds else 'MISSED'}" for gate in verdict.gates]
    lines += [*loads(state), *energy(state)]
    gates = f"{sum(g.holds for g in verdict.gates)} of {len(verdict.gates)} gates met" if verdict.gates else "no gate set"
    written = f" · {brace(files)}" if files else ""
    return [*lines, f"RESULT: {verdict.status} · {gates}{written} · exit {verdict.exit_code}"]


def energy(state: State) -> list[str]:
    """Lines with the energy per image and its scope, or the reason why there is none."""
    lines = []
    for row in state.rows.values():
        if row.energy is None:
            continue
        scope = SCOPE_WORDS.get(row.energy.scope, row.energy.scope)
        if row.energy.gross.value is None:
            lines.append(f"energy    null ({row.energy.gross.reason})")
            continue
        numbers = f"{spell(row.energy.gross)} mJ/image, net {spell(row.energy.net)}, idle {spell(row.energy.idle_w)} W"
        lines.append(f"energy    {row.plan.subject}, {row_name(row.plan)}: {numbers} ({scope}, {row.energy.source})")
    return list(dict.fromkeys(lines))


def _pair(candidate: str, reference: str) -> str:
    """Names of two rows: "openvino-int8 and teacher-torch-fp32, end to end"."""
    for scope, words in SCOPES.items():
        one, sign, batch = candidate.partition(f"-{scope}-")
        if sign:
            other = reference.partition(f"-{scope}-")[0]
            return f"{one} and {other}, {words}{'' if batch == '1' else f', batch {batch}'}"
    return f"{candidate} and {reference}"


def brace(files: Sequence[Path]) -> str:
    """Paths in short form: reports/bench-1.{json,md}."""
    endings = ",".join(path.suffix[1:] for path in files)
    return f"{files[0].with_suffix('')}.{{{endings}}}" if len(files) > 1 else str(files[0])
