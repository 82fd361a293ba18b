"""The worker process of a bench: opens one artifact and times it. It communicates by JSON lines.

Commands: open, golden, warm, row, block, rate. A reply is one line; a row also sends `timing` and `timed`, so that the parent
monitors the machine only during the timed loop. The process ends when its parent does.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from octc.bench.timing.load_generator import Limits, Query, WarmUp, block, choose_kept, clock_overhead_ns, timed_loop, warm_up
from octc.bench.timing.queries import (
    Parts,
    Picture,
    device_query,
    end_to_end_query,
    in_batches,
    read_pictures,
    same_output,
    tensors,
)
from octc.core.errors import OctcError
from octc.core.faults import error_json, fault_of
from octc.core.files import parse_json
from octc.core.offline import go_offline
from octc.core.optional import need
from octc.core.targets import TARGETS
from octc.imaging.preprocess import UInt8
from octc.machine.memory import rss_peak_mib
from octc.runtimes.base import Runtime
from octc.runtimes.golden import check_golden
from octc.runtimes.registry import open_runtime
from octc.store.artifacts import Artifact, read_same

DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass
class Bench:
    """State of the process. before_mib: its peak memory before the engine was imported."""

    say: Callable[[dict[str, Any]], None]
    folder: Path
    artifact: Artifact
    threads: int
    batch: int
    before_mib: float | None
    runtime: Runtime | None = None
    pictures: list[Picture] = field(default_factory=list)
    read_ms: float | None = None
    inputs: list[UInt8] = field(default_factory=list)
    parts: Parts = field(default_factory=Parts)
    served: int = 0  # queries of all blocks so far; the rotation of inputs continues across blocks

    @property
    def model(self) -> Runtime:
        if self.runtime is None:
            raise RuntimeError("the artifact is not open")
        return self.runtime


def main() -> None:
    """Execute the commands on stdin until it ends."""
    answers = _private_stdout()
    _end_with_parent()
    if os.environ.get("OCTC_OFFLINE") == "1":
        go_offline()

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message).encode() + b"\n")
        answers.flush()

    bench: Bench | None = None
    for line in sys.stdin.buffer:
        request = parse_json(line)
        try:
            if request["do"] == "open":
                bench = _start(request, say)
            assert bench is not None  # the parent opens first
            say(COMMANDS[request["do"]](bench, request))
        except (OctcError, MemoryError, OSError, RuntimeError) as caught:
            if not isinstance(caught, OctcError) and fault_of(caught) is None:
                raise
            say({"error": error_json(caught)})


def _private_stdout() -> BinaryIO:
    """The pipe to the parent; output of libraries is redirected to stderr."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "wb")


def _end_with_parent() -> None:
    """On Linux: end with the parent process, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() == 1:
            sys.exit(1)


def _start(request: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> Bench:
    if request["cpus"]:
        os.sched_setaffinity(0, request["cpus"])
    folder = Path(request["folder"])
    return Bench(say, folder, read_same(folder, request["sha256"]), request["threads"], request["batch"], rss_peak_mib())


def _open(bench: Bench, _asked: dict[str, Any]) -> dict[str, Any]:
    """Import the engine, load the artifact, and run it once."""
    start = time.perf_counter_ns()
    for module in TARGETS[bench.artifact.target].needs:
        need(module)
    imported = time.perf_counter_ns()
    bench.runtime = open_runtime(bench.folder, bench.artifact, threads=bench.threads, batch=bench.batch)
    loaded = time.perf_counter_ns()
    pre = bench.artifact.preprocess
    bench.model(np.full((bench.batch, pre.channels, pre.size, pre.size), 96, np.uint8))
    ran = time.perf_counter_ns()
    return {
        "import_ms": (imported - start) / 1e6,
        "load_ms": (loaded - imported) / 1e6,
        "first_inference_ms": (ran - loaded) / 1e6,
        "facts": bench.model.facts,
        "precision": bench.model.precision_found(),
    }


def _golden(bench: Bench, _asked: dict[str, Any]) -> dict[str, Any]:
    model = in_batches(bench.model, bench.batch)  # a larger batch would increase the measured memory
    return dataclasses.asdict(check_golden(bench.folder, bench.artifact, model))


def _query(bench: Bench, request: dict[str, Any]) -> Query:
    if not bench.pictures:
        bench.pictures, bench.read_ms = read_pictures(request["images"])
    if request["scope"] == "end_to_end":
        return end_to_end_query(bench.model, bench.pictures, bench.artifact.preprocess, bench.batch, bench.parts)
    if not bench.inputs:
        bench.inputs = tensors(bench.pictures, bench.artifact.preprocess, bench.batch)
    return device_query(bench.model, bench.inputs)


def _warmed(query: Query, request: dict[str, Any]) -> WarmUp:
    return warm_up(query, least=request["warm_least"], most=request["warm_most"], seconds=request["warm_s"])


def _warm(bench: Bench, request: dict[str, Any]) -> dict[str, Any]:
    return dataclasses.asdict(_warmed(_query(bench, request), request))


def _row(bench: Bench, request: dict[str, Any]) -> dict[str, Any]:
    """Warm up, run the timed loop, read the memory, and compare the kept outputs with an untimed run."""
    query = _query(bench, request)
    warmed = _warmed(query, request)
    bench.parts.clear()
    keep = choose_kept(request["min_queries"], request["seed"])
    time.sleep(request["idle_s"])  # for idle power
    bench.say({"event": "timing"})
    limits = Limits(request["duration_s"], request["min_queries"], request["max_duration_s"])
    begin = time.monotonic_ns()
    timed = timed_loop(query, limits, keep)
    loop_ns = (begin, time.monotonic_ns())  # on the clock of the power readings
    bench.say({"event": "timed"})
    peak = rss_peak_mib()
    parts = {name: list(times) for name, times in bench.parts.times.items()} if request["scope"] == "end_to_end" else {}
    differ = [number for number, output in timed.kept.items() if not same_output(output, query(number))]
    return {
        "warmup": dataclasses.asdict(warmed),
        "starts_ns": list(timed.starts_ns),
        "durations_ns": list(timed.durations_ns),
        "wall_s": timed.wall_s,
        "loop_ns": loop_ns,
        "parts_ns": parts,
        "kept": len(timed.kept),
        "differ": differ,
        "rss_peak_mib": peak,
        "rss_before_mib": bench.before_mib,
        "read_ms": bench.read_ms,
        "clock_ns": clock_overhead_ns(),
    }


def _block(bench: Bench, request: dict[str, Any]) -> dict[str, Any]:
    query, offset = _query(bench, request), bench.served
    bench.say({"event": "timing"})
    durations: array[int] = block(
        lambda number: query(offset + number),
        seconds=request["block_s"],
        calls=request["block_calls"],
        slow_calls=request["slow_calls"],
    )
    bench.say({"event": "timed"})
    bench.served += len(durations)
    bench.parts.clear()
    return {"durations_ns": list(durations)}


def _rate(bench: Bench, request: dict[str, Any]) -> dict[str, Any]:
    """A short run to choose the batch size: images per second."""
    query = _query(bench, request)
    for number in range(3):
        query(number)
    durations = block(query, seconds=request["seconds"], calls=3, slow_calls=3)
    return {"images_per_s": bench.batch * len(durations) / (sum(durations) / 1e9), "rss_peak_mib": rss_peak_mib()}


COMMANDS: dict[str, Callable[[Bench, dict[str, Any]], dict[str, Any]]] = {
    "open": _open,
    "golden": _golden,
    "warm": _warm,
    "row": _row,
    "block": _block,
    "rate": _rate,
}

if __name__ == "__main__":
    main()
