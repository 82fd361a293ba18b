"""A process that does units: lines of JSON in, lines of JSON out. `python -m octc.archive.worker`; nothing else starts it.

The first line says what it works with. Whatever libraries print goes to stderr. It ends with its input, or when it is killed.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from octc.archive.plan import FOLDER, Unit, read_user_schema
from octc.archive.rows import schemas_of
from octc.archive.unit import Shop, Task, do_unit
from octc.core.faults import error_json
from octc.core.files import parse_json
from octc.core.optional import need
from octc.machine.cpu import read_flags
from octc.runtimes.answers import has_rules
from octc.runtimes.golden import check_golden, require_golden
from octc.runtimes.predict import mappings_of
from octc.runtimes.registry import open_runtime
from octc.runtimes.scans import Reading
from octc.stats.aggregation import Aggregation
from octc.store.artifacts import read_same
from octc.store.monitor_store import open_store
from octc.volumes.identity import read_identity_key

TELL = 0.5  # seconds between two words about how far it is


@dataclass(frozen=True)
class Setup:
    """What a worker works with, as its first line.

    Attributes:
        results, artifact: folders. digests: of the artifact's manifest and of the options. options: those that decide rows.
        key: file of the site's secret. threads: of the engine. processors: that it is pinned to; empty: none. monitor: file of
            the store that sketches are added to.
    """

    results: str
    artifact: str
    artifact_digest: str
    options_digest: str
    options: Mapping[str, Any]
    key: str | None
    threads: int
    limit: float
    processors: tuple[int, ...] = ()
    monitor: str | None = None


def main() -> None:
    """Work until the input ends."""
    with os.fdopen(os.dup(1), "wb", buffering=0) as out:
        os.dup2(2, 1)
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(sys.stdin.buffer, lines), daemon=True).start()
        _serve(lines, out)


def _read(stream: BinaryIO, lines: queue.SimpleQueue[bytes]) -> None:
    """Whoever started this process is gone when the input ends: it writes nothing more, for another may be at it by now."""
    for line in stream:
        lines.put(line)
    os._exit(0)


def _serve(lines: queue.SimpleQueue[bytes], out: BinaryIO) -> None:
    def say(kind: str, value: Any) -> None:
        out.write(json.dumps({kind: value}).encode() + b"\n")

    try:
        shop = open_shop(Setup(**parse_json(lines.get())))
        say("ready", shop.marks["device"])
    except Exception as error:
        say("fault", error_json(error))
        return
    while True:
        task = task_from(parse_json(lines.get()))
        try:
            done = do_unit(shop, task, _teller(say))
            say("done", None if done is None else done.to_json())
        except Exception as error:
            say("fault", error_json(error))


def _teller(say: Any) -> Any:
    """Progress, told at most so often."""
    state = {"count": 0, "told": time.monotonic()}
    lock = threading.Lock()

    def tell(kind: str, count: int) -> None:
        if kind == "frames":
            say(kind, count)
            return
        with lock:
            state["count"] += count
            if time.monotonic() - state["told"] > TELL:
                say(kind, int(state["count"]))
                state.update(count=0, told=time.monotonic())

    return tell


def open_shop(setup: Setup) -> Shop:
    """Pin this process, open the engine and replay the golden images.

    Raises:
        OctcError: what `read_same`, `open_runtime` and `require_golden` raise.
    """
    if setup.processors and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, setup.processors)
    need("pyarrow").set_cpu_count(1)
    folder, results, options = Path(setup.artifact), Path(setup.results), setup.options
    artifact = read_same(folder, setup.artifact_digest)
    runtime = open_runtime(folder, artifact, threads=setup.threads, batch=int(options["batch"]))
    require_golden(check_golden(folder, artifact, runtime), artifact)
    key = None if setup.key is None else read_identity_key(Path(setup.key))
    facts = runtime.facts
    device = f"{facts['device'] or '?'} {read_flags()[0]}, {facts['runtime']} {facts['version']}"
    return Shop(
        folder=results,
        artifact=artifact,
        runtime=runtime,
        views=str(options["views"]),
        batch=int(options["batch"]),
        aggregation=Aggregation.from_json(options["aggregation"]),
        how=Reading(bool(options["allow_cut"]), key, mappings_of(artifact)),
        limit=setup.limit,
        marks={"artifact": setup.artifact_digest, "options": setup.options_digest, "device": device},
        schemas=schemas_of(artifact.classes, read_user_schema(results / FOLDER), rules=has_rules(artifact)),
        monitor=None if setup.monitor is None else open_store(Path(setup.monitor), make=True),
    )


def task_json(task: Task) -> dict[str, Any]:
    """A task as a line."""
    return asdict(task)


def task_from(value: Mapping[str, Any]) -> Task:
    """A line as a task."""
    pairs = {name: None if value[name] is None else (int(value[name][0]), int(value[name][1])) for name in ("files", "frames")}
    return Task(
        Unit(**value["unit"]), **pairs, skip=value["skip"], write=value["write"], reuse=value["reuse"], again=value["again"]
    )


if __name__ == "__main__":
    main()
