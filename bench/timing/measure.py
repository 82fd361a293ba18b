"""Measures the rows of an artifact: fresh process, golden images, warm-up, timed loop, stored samples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from octc.bench.timing.conditions import Conditions, cool_down, steal_warning
from octc.bench.timing.latency import Measure, missing, spell
from octc.bench.timing.plan import RowPlan, Subject
from octc.bench.timing.power.energy import STEP_S, Energy, Series, clock_shift, energy_of, no_energy, read_power_csv
from octc.bench.timing.power.sources import GPU_SOURCES, HOST_SOURCES, READ_S, no_power
from octc.bench.timing.process import KILLED, Worker
from octc.bench.timing.rows import Row, broken_row, judge_row, not_measured, precision_holds, samples_csv
from octc.bench.timing.state import SAMPLES, State, first_s, opened, warm_request
from octc.core.errors import OctcError
from octc.core.files import sha256_bytes
from octc.core.targets import TARGETS

OFFLINE_BATCHES = (1, 2, 4, 8, 16, 32, 64)
SLACK_S = 120.0


def measure_rows(state: State) -> None:
    """Measure all rows of the plan, artifact by artifact; a failure does not stop the others."""
    for row in state.plan.rows:
        if row.na is not None:
            state.rows[row.id] = not_measured(row, row.na)
    for subject in state.plan.subjects:
        rows = [row for row in state.plan.measured() if row.subject == subject.id]
        try:
            for batch in dict.fromkeys(row.batch for row in rows):
                _measure_fitting(state, subject, [row for row in rows if row.batch == batch])
        except OctcError as error:
            state.fail(subject, error)
        for row in (row for row in state.plan.measured() if row.subject == subject.id):
            state.rows.setdefault(row.id, broken_row(row, state.failed.get(subject.id, "incomplete")))


def _measure_fitting(state: State, subject: Subject, rows: list[RowPlan]) -> None:
    """Measure rows of one batch size; if memory is short and the user did not request that size, use half of it.

    If the half is in the plan anyway, the row is left out, with the reason.
    """
    try:
        _measure_batch(state, subject, rows)
    except OctcError as error:
        batch = rows[0].batch
        if batch < 2 or state.options.batch is not None or not out_of_memory(error):
            raise
        half = batch // 2
        text = f"{subject.id}: memory is short for batch {batch}, which was not requested: {half} instead"
        state.warnings.append(text)
        state.tell(f"  ! {text}")
        smaller = {row.id: _halved(state, row, half) for row in rows}
        state.plan = replace(state.plan, rows=tuple(smaller.get(row.id, row) for row in state.plan.rows))
        for row in smaller.values():
            if row.na is not None:
                state.rows[row.id] = not_measured(row, row.na)
        if left := [row for row in smaller.values() if row.na is None]:
            _measure_fitting(state, subject, left)


def _halved(state: State, row: RowPlan, half: int) -> RowPlan:
    name = f"{row.id.removesuffix(str(row.batch))}{half}"
    if any(other.id == name for other in state.plan.rows):
        return replace(row, na=f"memory is short for batch {row.batch}")
    return replace(row, id=name, batch=half)


def out_of_memory(error: OctcError) -> bool:
    """Whether a process failed, or was killed by the system, because memory was exhausted."""
    return error.code == "OCT-E904" or (error.code == "OCT-E609" and KILLED in error.message)


def _measure_batch(state: State, subject: Subject, rows: list[RowPlan]) -> None:
    """Measure the rows of one batch size in one process: engines have a fixed shape, and memory is measured per process."""
    batch = rows[0].batch or _best_batch(state, subject)
    with opened(state, subject, batch) as worker:
        for planned in rows:
            row = RowPlan(planned.id, planned.subject, planned.scenario, planned.scope, batch)
            state.rows[row.id] = _measure_row(state, subject, row, worker)
            state.tell(_line(state.rows[row.id]))
            state.step(1)


def _measure_row(state: State, subject: Subject, row: RowPlan, worker: Worker) -> Row:
    options, limits = state.options, state.options.limits(subject.role)
    waited = cool_down(state.first_c, lambda: state.look().temp_c, time.sleep)
    if waited:
        state.warnings.append(f"waited {waited:.0f} s for the machine to cool down before {row.id}")
    offline = row.scenario == "offline"
    request = {
        "do": "row",
        "scope": row.scope,
        "images": list(options.images),
        "seed": options.seed,
        "duration_s": limits.duration_s,
        "max_duration_s": limits.max_duration_s,
        "min_queries": max(10, -(-limits.min_queries // row.batch)) if offline else limits.min_queries,
        "idle_s": options.profile.idle_s if _source(state, subject) else 0.0,
        **warm_request(state, slow=False),
    }
    longest = SLACK_S + options.profile.warm_s + 1.2 * limits.max_duration_s + 200 * first_s(state, subject)
    shift = clock_shift()
    answer, looks = worker.ask(request, longest, state.look, options.profile.look_s)
    holds = precision_holds(subject.found.artifact.precision, state.facts[subject.id].precision)
    made = judge_row(
        row,
        subject.role,
        options,
        answer,
        looks,
        precision_holds=holds,
        samples=_kept(state, row.id, samples_csv(answer)),
    )
    energy = _energy(state, subject, answer["loop_ns"], len(answer["durations_ns"]) * row.batch, shift)
    made = replace(made, energy=energy, gpu_mib=_gpu_mib(state, subject, worker))
    if made.clock_note:
        state.warnings.append(made.clock_note)
    if made.conditions is not None and (steal := steal_warning(Conditions(tuple(looks)))) is not None:
        state.warnings.append(f"{row.id}: {steal:.1f} % CPU steal by the host")
    return made


def _source(state: State, subject: Subject) -> str | None:
    """The power source for an artifact: a meter, the GPU that it runs on, else the module or the CPU package."""
    if state.options.power_csv is not None:
        return "external"
    wanted = (*GPU_SOURCES, "tegra") if on_gpu(subject) else HOST_SOURCES
    return next((name for name in wanted if name in state.sources), None) if state.meter is not None else None


def on_gpu(subject: Subject) -> bool:
    return TARGETS[subject.found.artifact.target].on_gpu


def _energy(state: State, subject: Subject, loop_ns: Sequence[int], images: int, shift: int) -> Energy:
    """shift: `clock_shift` when the row began."""
    options, source = state.options, _source(state, subject)
    if not options.power:
        return no_energy("not_requested")
    if source is None:
        wanted = (*GPU_SOURCES, "tegra") if on_gpu(subject) else HOST_SOURCES
        there = any(name in state.sources for name in wanted)
        return no_energy("too_short" if there else no_power(state.machine, on_gpu(subject), state.root)[0])
    if options.power_csv is not None:
        found = _of_meter(state, Path(options.power_csv), shift)
        if isinstance(found, str):
            return no_energy(found)
        series = found
    else:
        assert state.meter is not None  # a source implies a meter
        time.sleep(2 * READ_S)  # wait for a reading after the end of the loop
        series = state.meter.series(source)
    return energy_of(source, series, loop_ns[0], loop_ns[1], options.profile.idle_s, images)


def _of_meter(state: State, path: Path, shift: int) -> Series | str:
    """The readings of a meter, or why no row can be told from them; the latency of the row holds all the same."""
    if abs(clock_shift() - shift) > STEP_S * 1e9:
        return "clock_set"
    try:
        return read_power_csv(path, shift)
    except OctcError as error:
        if all(known.message != error.message for known in state.errors):
            state.errors.append(error)
            state.tell(f"  ✗ {error.message}")
        return "no_readings"


def _gpu_mib(state: State, subject: Subject, worker: Worker) -> Measure | None:
    if not on_gpu(subject):
        return None
    found = None if state.nvml is None else state.nvml.process_mib(worker.pid)
    return missing("not_readable") if found is None else Measure(found)


def _kept(state: State, row: str, data: bytes) -> tuple[str, str]:
    """Keep the samples of a row; where they will lie in the artifact's folder, and their checksum."""
    state.samples[row] = data
    return f"{SAMPLES}/{state.run_id}/{row}.csv", sha256_bytes(data)


def _best_batch(state: State, subject: Subject) -> int:
    """The batch size with the highest throughput in short runs; a size that does not fit into memory ends the search."""
    rates: dict[int, float] = {}
    for batch in OFFLINE_BATCHES:
        try:
            with opened(state, subject, batch) as worker:
                request = {
                    "do": "rate",
                    "scope": "device",
                    "images": list(state.options.images),
                    "seconds": state.options.profile.tune_s,
                }
                answer, _ = worker.ask(request, SLACK_S + 64 * first_s(state, subject))
        except OctcError as error:
            if not rates or error.code not in ("OCT-E609", "OCT-E904"):
                raise
            state.warnings.append(f"{subject.id}: batch {batch} does not run here")
            break
        rates[batch] = answer["images_per_s"]
    best = max(rates, key=rates.__getitem__)
    shown = ", ".join(f"{batch}: {rate:.0f}" for batch, rate in rates.items())
    state.tell(f"  {subject.id}: batch {best} of {shown} images/s")
    return best


def load_again(state: State) -> None:
    """Start processes that only load, if rows and comparisons started fewer than the profile requires."""
    measured = {row.plan.subject for row in state.rows.values() if row.latency is not None}
    for subject in (s for s in state.plan.subjects if s.id in measured and s.id not in state.failed):
        try:
            while len(state.facts[subject.id].load_ms) < state.options.profile.loads:
                with opened(state, subject, state.options.batch or 1):
                    pass
        except OctcError as error:
            state.fail(subject, error)


def _line(row: Row) -> str:
    numbers = "" if row.latency is None else f": p50 {spell(row.latency.percentiles['p50'])} ms, n={row.n:,}"
    if row.status == "VALID":
        return f"  ✓ {row.plan.id}{numbers}"
    return f"  ! {row.plan.id}{numbers}: {row.status} ({', '.join(row.reasons)})"
