"""The state of a running bench, updated by all parts of the runner and saved after an interruption."""

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

SAMPLES = "samples"  # folder of an artifact, with a folder for each bench
OPEN_S = 900.0  # timeout for opening, seconds; a large network may compile for minutes on a slow device
SLOW_MS = 200.0  # calls that take longer are repeated less often


@dataclass
class Facts:
    """Facts from opening an artifact: times of every process, ms; facts of the engine; precisions in use; results of the
    golden images, and the batch sizes that they were replayed with.
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
        """Cold start of every process: import, load and first call, ms."""
        return [sum(times) for times in zip(self.import_ms, self.load_ms, self.first_ms, strict=True)]


@dataclass
class State:
    """State of one bench.

    Attributes:
        run_id: id of this bench, in the names of its report and samples. started: start time, UTC.
        scratch: temporary folder of this process. logs: folder for logs of crashed workers.
        tell: prints a message. step: callback after every row and comparison.
        sources: readable power sources. meter: reads them during the bench. nvml: the GPU, if it is monitored.
        samples: row -> raw samples as CSV, written with the result, so that a bench that ends without one leaves none.
        pids: processes of this bench, which do not count as other programs.
        failed: artifact -> why it is not measured any more ("output_mismatch" or "incomplete").
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
    samples: dict[str, bytes] = field(default_factory=dict)
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
        """Move a worker's log out of the scratch folder."""
        self.logs.mkdir(parents=True, exist_ok=True)
        kept = self.logs / f"bench-{self.run_id}-{log.name}"
        shutil.copyfile(log, kept)
        return kept

    def fail(self, subject: Subject, error: OctcError) -> None:
        """Record a failure: the artifact is not measured any more."""
        if subject.id in self.failed:
            return
        self.failed[subject.id] = "output_mismatch" if error.code in ("OCT-E506", "OCT-E508") else "incomplete"
        self.errors.append(error)
        self.tell(f"  ✗ {subject.id}: {error.message}")


@contextmanager
def opened(state: State, subject: Subject, batch: int) -> Iterator[Worker]:
    """A new process with the artifact open; the golden images are replayed once per batch size before use.

    Raises:
        OctcError: errors of opening; E506, E508 the golden outputs differ on this machine; E609 the process died.
    """
    worker = Worker(subject.id, state.scratch, state.options.threads, state.keep_log)
    known = state.facts.setdefault(subject.id, Facts())
    state.pids.add(worker.pid)
    try:
        fast = state.machine.cpus.fast
        cpus = [cpu for cpu in state.machine.cpus.usable if cpu in fast] if fast else []
        request = {
            "folder": str(subject.found.folder.resolve()),
            "sha256": subject.found.artifact.sha256,
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
    except OctcError as error:  # the worker got the absolute path; errors show the user's path
        raise _with_own_path(error, subject.found.folder) from error
    finally:
        worker.kill()
        state.pids.discard(worker.pid)


def _with_own_path(error: OctcError, folder: Path) -> OctcError:
    whole = str(folder.resolve())
    texts = [text if text is None else text.replace(whole, str(folder)) for text in (error.message, error.hint, error.place)]
    return OctcError(error.code, str(texts[0]), hint=str(texts[1]), place=texts[2], why=error.why)


def warm_request(state: State, slow: bool) -> dict[str, Any]:
    """The warm-up parameters of a request; before blocks a slow model gets fewer calls."""
    profile = state.options.profile
    least = min(10, profile.warm_least) if slow else profile.warm_least
    return {"warm_least": least, "warm_most": profile.warm_most, "warm_s": profile.warm_s}


def first_s(state: State, subject: Subject) -> float:
    """Time of the slowest first call, seconds; timeouts are derived from it."""
    return max(state.facts[subject.id].first_ms, default=1000.0) / 1e3
