"""`octc.predict_archive`: an archive through one artifact into a folder of results that resumes."""

from __future__ import annotations

import hmac
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from octc.archive.executors import Local
from octc.archive.listing import Entry, entries_of, is_absent, user_schema
from octc.archive.on_ray import OnRay
from octc.archive.plan import FOLDER, Unit, compare_plan, plan_files, planned_among, read_unit, read_units, write_plan
from octc.archive.rows import bounded_columns, schemas_of
from octc.archive.store import (
    FAILED,
    KINDS,
    MANIFEST,
    PART,
    SUCCESS,
    Done,
    Journal,
    Shard,
    damaged_parts,
    digest,
    holding,
    open_results,
    part_path,
    planning,
    read_journals,
    read_manifest,
)
from octc.archive.unit import Task
from octc.archive.worker import Setup
from octc.core.clock import utc_now
from octc.core.errors import OctcError
from octc.core.faults import writing_to
from octc.core.files import TEMPORARY, entries, remove_leftovers, replacing, write_bytes, write_json
from octc.core.optional import need
from octc.core.progress import LogReporter, Reporter, Step, spell_seconds
from octc.core.several import several
from octc.core.targets import TARGETS
from octc.imaging.decode import DECODING
from octc.imaging.preprocess import VIEWS
from octc.machine.cpu import read_cpus, usable_threads
from octc.runtimes.answers import has_rules
from octc.runtimes.inputs import log_test_images
from octc.runtimes.model import Model, located
from octc.runtimes.scans import aggregation_of
from octc.store.find import Found
from octc.store.monitor_store import open_store
from octc.volumes.identity import read_identity_key

ENGINES = ("local", "ray")
SUSPICIOUS = 0.5  # share of the first inputs from which on something is wrong
SAID = 60.0  # seconds between two lines about how far it is


@dataclass(frozen=True)
class ArchiveOptions:
    """Options of `octc.predict_archive`.

    Attributes:
        views: "none", "hflip" or "5": test-time augmentation. batch: images per call of the engine.
        aggregation: how the B-scans of an eye are combined; None: as the artifact states. allow_cut: use the intact B-scans of
            a volume that is cut short. identity_key: file with the site's secret key, for the hash of the patient.
        workers: processes, each with its own engine; None: one per free core. threads: of each engine.
        engine: "local", or "ray" with the address of its cluster (None: a cluster on this machine).
        shard: "I/N": only that part, for array jobs. retry_failed: try failed inputs again.
        anyway: continue although the first inputs look wrong. time_limit: seconds allowed for reading one input.
        run_dir: folder of the runs; if inputs are test images of the artifact's run, its test-set log records the reading.
        monitor: store that receives a sketch of each prediction (`octc.monitor`).
    """

    views: str = "none"
    batch: int = 8
    aggregation: str | None = None
    allow_cut: bool = False
    identity_key: Path | None = None
    workers: int | None = None
    threads: int = 1
    engine: str = "local"
    address: str | None = None
    shard: str = "1/1"
    retry_failed: bool = False
    anyway: bool = False
    time_limit: float = 120.0
    run_dir: Path = Path("runs")
    monitor: Path | None = None

    def __post_init__(self) -> None:
        cpus = len(read_cpus().usable)
        wrong = [
            (self.views not in VIEWS, "views", self.views, f"one of: {', '.join(VIEWS)}"),
            (not 1 <= self.batch <= 256, "batch", self.batch, "1 to 256"),
            (self.engine not in ENGINES, "engine", self.engine, f"one of: {', '.join(ENGINES)}"),
            (self.workers is not None and not 1 <= self.workers <= 4096, "workers", self.workers, "1 to 4096"),
            (not 1 <= self.threads <= cpus, "threads", self.threads, f"1 to {cpus}"),
            (not 0 < self.time_limit < 86_400, "time limit", self.time_limit, "seconds, below a day"),
        ]
        for is_wrong, name, value, hint in wrong:
            if is_wrong:
                raise OctcError("OCT-E104", f"{name} {value!r}", hint=hint, place=name)
        if self.address is not None and self.engine != "ray":
            raise OctcError("OCT-E102", "an address without ray", hint="--engine ray --address ADDRESS", place="--address")
        shard_of(self.shard)


@dataclass(frozen=True)
class ArchiveResult:
    """Contents of a folder of results, and the work of this call.

    Attributes:
        inputs, scans, eyes, failed: inputs, rows of B-scans, rows of eyes, inputs that failed. units: of work in total; done:
            by this call. complete: whether every unit is done. seconds: duration of this call.
        bookkeeping: share of the processes' time spent on hashing, rows and files in this call. idle: share without work,
            starting included. Both are None if there was nothing to do.
    """

    folder: Path
    inputs: int
    scans: int
    eyes: int
    failed: int
    units: int
    done: int
    complete: bool
    seconds: float
    bookkeeping: float | None
    idle: float | None


def shard_of(text: str) -> Shard:
    """ "2/10" as a shard (OctcError E104 where it is none)."""
    with suppress(ValueError):
        index, count = (int(part) for part in text.split("/"))
        if 1 <= index <= count <= 100_000:
            return Shard(index, count)
    raise OctcError("OCT-E104", f"shard {text!r}", hint="--shard 1/10 to --shard 10/10", place="--shard")


def predict_archive(
    artifact: str | os.PathLike[str] | Model,
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    options: ArchiveOptions | None = None,
    reporter: Reporter | None = None,
) -> ArchiveResult:
    """Classify an archive of any size into a folder of Parquet files. Calling it again resumes a run that was stopped.

    Args:
        artifact: an artifact's or a run's folder, or a model of `octc.load`.
        inputs: folders, globs, images and volumes; or one table (Parquet, CSV) of paths, whose other columns are kept.
        out: folder of results: one row per B-scan in `scans/`, one per eye in `eyes/`, `failed.parquet`, `manifest.json`, and
            `_SUCCESS` once everything is done. Rows that exist for the same bytes, artifact and options are not computed again.
        options: views, workers, shard and the rest.
        reporter: receives progress; None: the log `octc`.

    Returns: counts of inputs, rows and failures, and the seconds that this call took.

    Raises:
        OctcError: E901 pyarrow is not installed; E104, E201, E209 inputs that cannot be used; E106, E108, E110 the folder holds
            something else, is being written by another process, or holds results of another artifact; E802 the first inputs
            look wrong; E611 the engine crashes again and again; E904, E906 the machine lacks disk, memory or locks. Finished
            work is kept. An input that cannot be read does not raise: it becomes a row of `failed.parquet`.

    >>> import octc
    >>> done = octc.predict_archive("artifacts/onnx-fp32", ["a.png", "eye.vol"], "results")
    >>> done.inputs, done.failed
    (2, 0)
    """
    need("pyarrow.parquet")
    begun = time.monotonic()
    asked, tell = options or ArchiveOptions(), reporter or LogReporter()
    words = [os.fspath(one) for one in several(inputs)]
    if not words:
        raise OctcError("OCT-E104", "no input", hint="a folder, a glob, a table or files", place="inputs")
    found = Found(artifact.folder, artifact.artifact) if isinstance(artifact, Model) else located(artifact)
    folder, shard, user = Path(out), shard_of(asked.shard), user_schema(words)
    columns = schemas_of(found.artifact.classes, user, rules=has_rules(found.artifact))["failed"]
    identity = _identity(found, asked, user)
    _check_words(words, folder / FOLDER)
    if asked.monitor is not None:
        open_store(asked.monitor, make=True).close()  # its errors before any work
    with holding(folder, shard) as is_last, writing_to(folder):
        now = _planned(folder, shard, identity, words, user, tell)
        job = _Job(found, folder, shard, asked, tell, _setup(folder, found, identity, asked))
        spent = job.run(now)
        with planning(folder):  # of several processes whoever comes last sees the units of all
            done = read_journals(folder)
            if is_last():
                _close(folder, identity, columns, done)
        return _result(folder, done, spent, time.monotonic() - begun, job.workers)


def _check_words(words: Sequence[str], plan: Path) -> None:
    """Refuse a word that names nothing (E201), unless it is an input of before that has gone: what a plan has once it keeps."""
    absent = [_absolute(word) for word in words if is_absent(word)]
    known = planned_among(plan_files(plan), absent)
    for name in absent:
        if name not in known:
            raise OctcError(
                "OCT-E201", f"nothing at {name}", hint="check the path, and whether its disk is mounted", place=name
            )


def _identity(found: Found, asked: ArchiveOptions, user: Any) -> dict[str, Any]:
    """What decides the rows."""
    artifact = found.artifact
    key = None if asked.identity_key is None else read_identity_key(asked.identity_key)
    options = {
        "views": asked.views,
        "batch": asked.batch,
        "aggregation": aggregation_of(artifact, asked.aggregation).to_json(),
        "allow_cut": asked.allow_cut,
        "identity_key": None if key is None else hmac.new(key, b"octc archive", "sha256").hexdigest()[:16],
        "decoding": DECODING,
    }
    return {
        "artifact": {
            "name": artifact.name,
            "model": artifact.model,
            "classes": list(artifact.classes),
            "task": artifact.task,
            "digest": artifact.sha256,
        },
        "options": {**options, "digest": digest(options)},
        "columns": [f"{one.name}: {one.type}" for one in user],
    }


def _setup(folder: Path, found: Found, identity: Mapping[str, Any], asked: ArchiveOptions) -> Setup:
    return Setup(
        results=str(folder.resolve()),
        artifact=str(found.folder.resolve()),
        artifact_digest=identity["artifact"]["digest"],
        options_digest=identity["options"]["digest"],
        options=identity["options"],
        key=None if asked.identity_key is None else str(asked.identity_key.resolve()),
        threads=asked.threads,
        limit=asked.time_limit,
        monitor=None if asked.monitor is None else str(asked.monitor.resolve()),
    )


def _planned(
    folder: Path, shard: Shard, identity: Mapping[str, Any], words: list[str], user: Any, tell: Reporter
) -> dict[int, str] | None:
    """Write or extend the plan; unit -> digest of its inputs as they are now, None where nobody looked.

    A process of an array takes the plan as it is, so that all of them have one.
    """
    plan = folder / FOLDER
    index = [folder / f"{TEMPORARY}{os.getpid()}-{name}.sqlite" for name in ("names", "plan")]

    left: Counter[str] = Counter()

    def listing() -> Iterator[Entry]:
        index[0].unlink(missing_ok=True)
        left.clear()
        return entries_of([_absolute(word) for word in words], index[0], left)

    try:
        with planning(folder):
            open_results(folder, identity)
            if not plan_files(plan):
                write_plan(plan, listing(), user, first=True)
                _tell_left(tell, left)
                return None
            if shard.count > 1:
                return None
            digests, fresh = compare_plan(plan, read_units(plan), listing, index[1])
            write_plan(plan, fresh, user, first=False)
            _tell_left(tell, left)
            return dict(enumerate(digests))
    finally:
        for path in index:
            path.unlink(missing_ok=True)


def _tell_left(tell: Reporter, left: Counter[str]) -> None:
    """Say what the folders hold that is no input."""
    if left:
        tell.say("  left out of the folders: " + ", ".join(f"{count:,} {why}" for why, count in left.most_common()))


def paths_of(folder: Path, units: Iterable[Unit]) -> Iterator[Path]:
    """The inputs of units of a folder of results, one by one."""
    return (Path(path) for unit in units for path in read_unit(folder / FOLDER, unit)[0])


def _absolute(word: str) -> str:
    """So that the same archive is the same from every folder; links stay what they are."""
    return os.path.abspath(word)  # noqa: PTH100 - keeps links


@dataclass
class _Job:
    """One call: which units are left, and what is done with them."""

    found: Found
    folder: Path
    shard: Shard
    asked: ArchiveOptions
    tell: Reporter
    setup: Setup
    workers: int = 0
    failed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, now: dict[int, str] | None) -> list[Done]:
        """Do what is left; the units that this call did."""
        units = read_units(self.folder / FOLDER)
        done = read_journals(self.folder)
        mine = [unit for unit in units if self.shard.has(unit.number)]
        tasks = [task for unit in mine if (task := self._task(unit, done.get(unit.number), now)) is not None]
        self.failed = sum(one.failed for one in done.values())
        total = sum(unit.inputs for unit in mine)
        left = sum(task.unit.inputs for task in tasks)
        self.tell.say(f"  {total:,} inputs in {len(mine):,} units, {total - left:,} inputs are done already")
        if again := sum(task.again for task in tasks):
            self.tell.say(f"  {again:,} inputs that failed are tried again")
        elif (kept := sum(done[unit.number].failed for unit in mine if unit.number in done)) and not self.asked.retry_failed:
            self.tell.say(f"  {kept:,} inputs failed before and stay so: --retry-failed tries them again")
        spent: list[Done] = []
        if not tasks:
            return spent
        log_test_images(self.found, paths_of(self.folder, (task.unit for task in tasks)), self.asked.run_dir, self.tell)
        (self.folder / SUCCESS).unlink(missing_ok=True)
        journal = Journal(self.folder, self.shard)
        first = mine[0]
        opening = [task for task in tasks if task.unit == first]
        with (
            self.tell.progress("inputs", left) as step,
            self._crew().working(self.setup, self._counting(step, left)) as work,
        ):
            for some in (opening, tasks[len(opening) :]):
                for one in work(some):
                    self._keep(journal, one, done)
                    spent.append(one)
                if first.number in done and not self.asked.anyway:
                    look(done[first.number], self.folder)
            for one in work([Task(units[one.unit]) for one in spent if damaged_parts(self.folder, done[one.unit])]):
                self._keep(journal, one, done)  # a lost node was taken for dead while it still wrote
        return spent

    def _keep(self, journal: Journal, one: Done, done: dict[int, Done]) -> None:
        journal.add(one)
        for kind in KINDS:  # no rows of before stay beside those of a unit that was done again
            if kind not in one.parts:
                part_path(self.folder, kind, one.unit).unlink(missing_ok=True)
        with self._lock:
            self.failed += one.failed - (done[one.unit].failed if one.unit in done else 0)
        done[one.unit] = one

    def _task(self, unit: Unit, done: Done | None, now: dict[int, str] | None) -> Task | None:
        """What is left of a unit."""
        if done is None:
            return Task(unit)
        if bad := damaged_parts(self.folder, done):
            self.tell.warn("OCT-W808", f"{bad[0].name} is missing, cut or altered: its rows are made again", str(bad[0]))
            return Task(unit)
        if now is not None and now.get(unit.number, done.state) != done.state:
            return Task(unit, reuse=True, again=done.failed)
        return Task(unit, reuse=True, again=done.failed) if self.asked.retry_failed and done.failed else None

    def _crew(self) -> Local | OnRay:
        target = TARGETS[self.found.artifact.target]
        cores = usable_threads()[0]
        self.workers = self.asked.workers or (1 if target.on_gpu else max(1, cores // self.asked.threads))
        return OnRay(self.workers, self.asked.address) if self.asked.engine == "ray" else Local(self.workers)

    def _counting(self, step: Step, left: int) -> Step:
        """Progress from several threads, and a line about rate, time left and failures."""
        begun = said = time.monotonic()
        finished = 0

        def count(number: int) -> None:
            nonlocal finished, said
            with self._lock:
                finished += number
                step(number)
                now = time.monotonic()
                if now - said >= SAID and finished > 0:
                    said = now
                    rate = finished / (now - begun)
                    time_left = spell_seconds((left - finished) / rate)
                    self.tell.say(f"  {finished:,} of {left:,} inputs, {rate:.1f}/s, {time_left} left, {self.failed:,} failed")

        return count


def look(first: Done, folder: Path) -> None:
    """Stop where the first inputs look wrong (OctcError E802): before a million is done in vain."""
    seen = [
        (first.failed, first.inputs, "cannot be read: see failed/"),
        (first.unlike, first.judged, "B-scans are unlike the training images: another device, another export?"),
        (first.volumes - first.sides, first.volumes, "volumes do not name their eye"),
    ]
    found = [f"{count} of {total} {words}" for count, total, words in seen if total and count >= SUSPICIOUS * total]
    if found:
        text = f"the first {first.inputs} inputs look wrong: {'; '.join(found)}"
        hint = "the same command with --anyway goes on; what is done stays"
        raise OctcError("OCT-E802", text, hint=hint, place=str(folder))


def _result(folder: Path, done: dict[int, Done], spent: list[Done], seconds: float, workers: int) -> ArchiveResult:
    units = read_units(folder / FOLDER)
    counts = _counts(done.values())
    busy = sum(one.seconds for one in spent)
    return ArchiveResult(
        folder=folder,
        inputs=sum(done[unit.number].inputs if unit.number in done else unit.inputs for unit in units),
        scans=counts["scans"],
        eyes=counts["eyes"],
        failed=counts["failed_inputs"],
        units=len(units),
        done=len(spent),
        complete=all(unit.number in done for unit in units),
        seconds=seconds,
        bookkeeping=sum(one.bookkeeping for one in spent) / busy if busy else None,
        idle=max(0.0, 1 - busy / (seconds * workers)) if busy else None,
    )


def _counts(done: Iterable[Done]) -> dict[str, int]:
    """Rows of each table, and inputs that failed."""
    found = dict.fromkeys((*KINDS, "failed_inputs", "inputs"), 0)
    for one in done:
        found["failed_inputs"] += one.failed
        found["inputs"] += one.inputs
        for kind, part in one.parts.items():
            found[kind] += part.rows
    return found


def _close(folder: Path, identity: Mapping[str, Any], columns: Any, done: dict[int, Done]) -> None:
    """Where every unit is done: failed.parquet of all in order, the manifest with every file, and _SUCCESS last.

    What a worker that was lost left half-written goes, and rows of a unit that has none any more, where the process ended
    before it removed them: whoever reads the folder takes every file of it for rows.
    """
    units = read_units(folder / FOLDER)
    if (folder / SUCCESS).exists() or not all(unit.number in done for unit in units):
        return
    for kind in KINDS:
        remove_leftovers(folder / kind)
    parquet = need("pyarrow.parquet")
    with (
        replacing(folder / FAILED) as temporary,
        parquet.ParquetWriter(temporary, columns, compression="zstd", write_statistics=bounded_columns(columns)) as writer,
    ):
        for unit in units:
            if "failed" in done[unit.number].parts:
                writer.write_table(parquet.read_table(part_path(folder, "failed", unit.number)))
    files = {
        part_path(folder, kind, unit.number).relative_to(folder).as_posix(): asdict(part)
        for unit in units
        for kind, part in done[unit.number].parts.items()
    }
    for kind in KINDS:
        for path in entries(folder / kind):
            if PART.fullmatch(path.name) and f"{kind}/{path.name}" not in files:
                path.unlink()
    more = {"complete": True, "finished": utc_now(), "counts": _counts(done.values()), "files": files}
    write_json(folder / MANIFEST, {**read_manifest(folder), **identity, **more})
    write_bytes(folder / SUCCESS, b"")
