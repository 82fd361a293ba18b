"""Runs a plan: first the rows, each artifact in its own process, then the comparisons, alternating between two processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from octc.bench.timing.conditions import Snapshot
from octc.bench.timing.interleaved import Block, compared, no_comparison, run_pairs
from octc.bench.timing.measure import SLACK_S, load_again, measure_rows, on_gpu
from octc.bench.timing.plan import Subject, Versus
from octc.bench.timing.power.energy import LEAST_S, metering
from octc.bench.timing.power.nvml import open_nvml
from octc.bench.timing.power.sources import open_sources, tegrastats_command
from octc.bench.timing.process import Worker
from octc.bench.timing.rows import broken_row
from octc.bench.timing.state import SLOW_MS, State, first_s, opened, warm_request
from octc.core.errors import OctcError
from octc.machine.memory import memory_mib

ROOM = 1.2  # required free memory as a multiple of what both processes needed
RELOADS = 5  # number of pairs if both processes do not fit into memory

Durations = tuple[Sequence[int], Sequence[Snapshot]]


@dataclass
class Pool:
    """Processes of the comparisons, kept open while a later comparison needs them. warmed: (artifact, scope) after warm-up."""

    state: State
    workers: dict[str, tuple[Worker, ExitStack]] = field(default_factory=dict)
    warmed: set[tuple[str, str]] = field(default_factory=set)

    def worker(self, subject: Subject) -> Worker:
        if subject.id not in self.workers:
            with ExitStack() as stack:
                worker = stack.enter_context(opened(self.state, subject, self.state.options.batch or 1))
                self.workers[subject.id] = (worker, stack.pop_all())
        return self.workers[subject.id][0]

    def close(self, kept: Sequence[str] = ()) -> None:
        """Close all but `kept`."""
        for name in [name for name in self.workers if name not in kept]:
            _, stack = self.workers.pop(name)
            self.warmed -= {pair for pair in self.warmed if pair[0] == name}
            stack.close()


def run_bench(state: State) -> None:
    """Measure everything; an interruption is stored in `state.interrupted`, and finished results stay."""
    try:
        with _reading(state):
            state.first_c = state.look().temp_c
            measure_rows(state)
            _compare(state)
            load_again(state)
    except KeyboardInterrupt as stopped:  # also raised on SIGTERM
        state.interrupted = stopped
        for row in state.plan.measured():
            state.rows.setdefault(row.id, broken_row(row, "incomplete"))
        done = len(state.comparisons)
        for versus in state.plan.versus[done:]:
            rows = _rows(state, versus, versus.others[0])
            state.comparisons.append(no_comparison(versus.kind, rows, "incomplete", "INVALID"))


@contextmanager
def _reading(state: State) -> Iterator[None]:
    """Open the power sources and, if rows are long enough, read them in a separate process meanwhile."""
    subjects = [s for s in state.plan.subjects if s.why_not is None]
    state.nvml = open_nvml() if any(on_gpu(s) for s in subjects) else None
    if not state.options.power or state.options.power_csv is not None:
        yield
        return
    tool = ("tegra",) if tegrastats_command() else ()
    state.sources = (*(one.name for one in open_sources(state.root)), *tool)
    if not state.sources or all(state.options.limits(s.role).duration_s < LEAST_S for s in subjects):
        yield
        return
    usable = state.machine.cpus.usable
    with metering(state.scratch, usable[-1] if len(usable) > state.options.threads else -1, state.root) as meter:
        state.meter = meter
        state.pids.add(meter.pid)
        yield


def _compare(state: State) -> None:
    pool = Pool(state)
    try:
        for number, versus in enumerate(state.plan.versus):
            other = _quickest(state, versus)
            rows = _rows(state, versus, other)
            reason = versus.na or _why_none(state, versus.candidate) or _why_none(state, other)
            if reason is not None:
                state.comparisons.append(no_comparison(versus.kind, rows, reason))
            else:
                later = {name for v in state.plan.versus[number:] for name in (v.candidate, *v.others)}
                pool.close([name for name in pool.workers if name in later])
                state.comparisons.append(_one(state, pool, versus, other, rows))
                state.tell(f"  {versus.candidate} {versus.scope.replace('_', ' ')}: {state.comparisons[-1].text}")
            state.step(1)
    finally:
        pool.close()


def _quickest(state: State, versus: Versus) -> str:
    """The one of `others` with the smallest median; the first, if none was measured."""
    found = {name: state.rows.get(f"{name}-device-{state.options.batch or 1}") for name in versus.others}
    times = {name: row.p50 for name, row in found.items() if row is not None and row.p50 is not None}
    return min(times, key=times.__getitem__) if times else versus.others[0]


def _rows(state: State, versus: Versus, other: str) -> tuple[str, str]:
    batch = state.options.batch or 1
    return f"{versus.candidate}-{versus.scope}-{batch}", f"{other}-{versus.scope}-{batch}"


def _why_none(state: State, name: str) -> str | None:
    """Why no ratio is computed: the outputs or the precision of the artifact are wrong."""
    if name in state.failed:
        return f"{name}: {state.failed[name]}"
    wrong = {"output_mismatch", "precision_mismatch"}
    rows = [row for row in state.rows.values() if row.plan.subject == name]
    return next((f"{name}: {reason}" for row in rows for reason in row.reasons if reason in wrong), None)


def _one(state: State, pool: Pool, versus: Versus, other: str, rows: tuple[str, str]) -> Any:
    candidate, reference = state.plan.subject(versus.candidate), state.plan.subject(other)
    names = (_label(candidate), _label(reference))
    profile, interleave = state.options.profile, "blocks"
    try:
        if not _fits(state, pool, candidate, reference):
            pool.close([candidate.id, reference.id])
        if not _fits(state, pool, candidate, reference):
            pool.close()
            profile, interleave = replace(profile, pairs=RELOADS), "reload"
            sides = [_reloading(state, subject, versus.scope) for subject in (reference, candidate)]
        else:
            sides = [_block(state, pool, subject, versus.scope) for subject in (reference, candidate)]
        return compared(versus.kind, rows, names, run_pairs(sides[0], sides[1], profile), interleave)
    except OctcError as error:
        pool.close()
        state.errors.append(error)
        return no_comparison(versus.kind, rows, error.message, "INVALID")


def _label(subject: Subject) -> str:
    return f"{subject.found.artifact.precision.upper()} ({subject.id})"


def _fits(state: State, pool: Pool, *subjects: Subject) -> bool:
    """Whether the processes that are not open yet fit into the free memory."""
    free = memory_mib("MemAvailable", state.root)
    peaks = []
    for subject in subjects:
        if subject.id not in pool.workers:
            rows = [row for row in state.rows.values() if row.plan.subject == subject.id and row.rss_peak_mib is not None]
            peaks.append(max((row.rss_peak_mib.value or 0.0 for row in rows if row.rss_peak_mib is not None), default=0.0))
    return free is None or not peaks or ROOM * sum(peaks) <= free


def _warm(state: State, worker: Worker, subject: Subject, scope: str, again: bool) -> None:
    slow = again or first_s(state, subject) * 1e3 > SLOW_MS
    request = {"do": "warm", "scope": scope, "images": list(state.options.images), **warm_request(state, slow)}
    worker.ask(request, SLACK_S + 2 * state.options.profile.warm_s + 100 * first_s(state, subject))


def _ask_block(state: State, worker: Worker, subject: Subject, scope: str) -> Durations:
    profile = state.options.profile
    request = {
        "do": "block",
        "scope": scope,
        "images": list(state.options.images),
        "block_s": profile.block_s,
        "block_calls": profile.block_calls,
        "slow_calls": profile.slow_calls,
    }
    longest = SLACK_S + 2 * profile.block_s + 5 * profile.block_calls * first_s(state, subject)
    answer, looks = worker.ask(request, longest, state.look, profile.look_s)
    return answer["durations_ns"], looks


def _block(state: State, pool: Pool, subject: Subject, scope: str) -> Block:
    """Blocks of a process that stays open, with warm-up before the first."""
    worker = pool.worker(subject)
    if (subject.id, scope) not in pool.warmed:
        _warm(state, worker, subject, scope, again=any(name == subject.id for name, _ in pool.warmed))
        pool.warmed.add((subject.id, scope))
    return lambda: _ask_block(state, worker, subject, scope)


def _reloading(state: State, subject: Subject, scope: str) -> Block:
    """Blocks with a newly loaded and warmed-up process for each."""

    def run() -> Durations:
        with opened(state, subject, state.options.batch or 1) as worker:
            _warm(state, worker, subject, scope, again=False)
            return _ask_block(state, worker, subject, scope)

    return run
