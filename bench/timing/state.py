"""What a running bench knows so far; every part of the runner writes into it, and it is what an interruption saves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from octc.bench.timing.conditions import Snapshot, read_snapshot
from octc.bench.timing.interleaved import Comparison
from octc.bench.timing.plan import Plan, Subject
from octc.bench.timing.power.energy import Meter
from octc.bench.timing.power.nvml import Nvml
from octc.bench.timing.process import Worker
from octc.bench.timing.profiles import Options
from octc.bench.timing.rows import Row
from octc.core.errors import OctcError
from octc.machine.cpu import ROOT
from octc.machine.host import Machine
from octc.runtimes.golden import GoldenReport, require_golden

OPEN_S = 900.0  # a large network on a slow box takes minutes to compile; longer than this it hangs
SLOW_MS = 200.0  # a call that takes longer needs fewer of its kind


@dataclass
class Facts:
    """What opening an artifact told: times of every fresh process, ms; the engine's own facts; precisions it runs
    in; the golden images, and the batch sizes that they were replayed with.
    """

    import_ms: list[float] = field(default_factory=list)
    load_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    engine: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, int] = field(default_factory=dict)
    golden: GoldenReport | None = None
    replayed: set[int] = field(default_factory=set)

    @property
    def cold_ms(self) -> list[float]:
        """Import, load and first call together, of every fresh process."""
        return [sum(times) for times in zip(self.import_ms, self.load_ms, self.first_ms, strict=True)]


@dataclass
class State:
    """One bench.

    Attributes:
        run_id: of this bench; names its report and its samples. started: UTC.
        scratch: an empty folder of this process. logs: where the log of a crashed worker is kept.
        tell: takes a line for people. step: called after every row and comparison.
        sources: of power, those that answer here. meter: reads them while the bench runs. nvml: the GPU, where it is looked at.
        pids: processes of this bench, which are no foreign load.
        failed: artifact -> why nothing more of it is measured ("output_mismatch" or "incomplete").
    """

    plan: Plan
    options: Options
    machine: Machine
    run_id: str
    started: str
    scratch: Path
    logs: Path
    tell: Callable[[str], None]
    step: Callable[[int], None]
    root: Path = ROOT
    rows: dict[str, Row] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    facts: dict[str, Facts] = field(default_factory=dict)
    errors: list[OctcError] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    first_c: float | None = None
    sources: tuple[str, ...] = ()
    meter: Meter | None = None
    nvml: Nvml | None = None
    pids: set[int] = field(default_factory=lambda: {os.getpid()})
    interrupted: BaseException | None = None

    def look(self) -> Snapshot:
        seen = read_snapshot(self.root, self.machine.cpus.usable, self.pids)
        return seen if self.nvml is None else replace(seen, gpu=self.nvml.look())

    def keep_log(self, log: Path) -> Path:
        """A worker's log, out of the scratch folder."""
        self.logs.mkdir(parents=True, exist_ok=True)
        kept = self.logs / f"bench-{self.run_id}-{log.name}"
        shutil.copyfile(log, kept)
        return kept

    def fail(self, subject: Subject, error: OctcError) -> None:
        """Nothing more is measured of this artifact."""
        if subject.id in self.failed:
            return
        self.failed[subject.id] = "output_mismatch" if error.code in ("OCT-E506", "OCT-E508") else "incomplete"
        self.errors.append(error)
        self.tell(f"  ✗ {subject.id}: {error.message}")


@contextmanager
def opened(state: State, subject: Subject, batch: int) -> Iterator[Worker]:
    """A fresh process with the artifact open; before the first one of a batch size is used, its golden images are replayed.

    Raises:
        OctcError: what opening raises, E506 or E508 when this machine computes something else, E609 when the process died.
    """
    worker = Worker(subject.id, state.scratch, state.options.threads, state.keep_log)
    known = state.facts.setdefault(subject.id, Facts())
    state.pids.add(worker.pid)
    try:
        fast = state.machine.cpus.fast
        cpus = [cpu for cpu in state.machine.cpus.usable if cpu in fast] if fast else []
        request = {
            "folder": str(subject.found.folder.resolve()),
            "threads": state.options.threads,
            "batch": batch,
            "cpus": cpus,
        }
        answer, _ = worker.ask({"do": "open", **request}, OPEN_S)
        if batch not in known.replayed:
            known.golden = GoldenReport(**worker.ask({"do": "golden"}, OPEN_S)[0])
            require_golden(known.golden, subject.found.artifact)
            known.replayed.add(batch)
        if batch == (state.options.batch or 1) or not known.engine:
            known.engine, known.precision = answer["facts"], answer["precision"]
        if batch == (state.options.batch or 1):
            known.import_ms.append(answer["import_ms"])
            known.load_ms.append(answer["load_ms"])
            known.first_ms.append(answer["first_inference_ms"])
        yield worker
        worker.close()
    except OctcError as error:  # the worker was given the whole path; people gave their own
        raise _with_own_path(error, subject.found.folder) from error
    finally:
        worker.kill()
        state.pids.discard(worker.pid)


def _with_own_path(error: OctcError, folder: Path) -> OctcError:
    whole = str(folder.resolve())
    texts = [text if text is None else text.replace(whole, str(folder)) for text in (error.message, error.hint, error.place)]
    return OctcError(error.code, str(texts[0]), hint=str(texts[1]), place=texts[2], why=error.why)


def warm_request(state: State, slow: bool) -> dict[str, Any]:
    """The part of a message that says how to warm up; before blocks a slow model is called less often."""
    profile = state.options.profile
    least = min(10, profile.warm_least) if slow else profile.warm_least
    return {"warm_least": least, "warm_most": profile.warm_most, "warm_s": profile.warm_s}


def first_s(state: State, subject: Subject) -> float:
    """How long the slowest first call took, seconds; what a time limit is reckoned from."""
    return max(state.facts[subject.id].first_ms, default=1000.0) / 1e3
