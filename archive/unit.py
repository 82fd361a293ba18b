"""One unit: its inputs read, answered and written, in one process. The same work for every executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from octc.archive.files import File, Opener, Rows, changed, unread_frame
from octc.archive.listing import GONE, state_of
from octc.archive.plan import FOLDER, Unit, digest_of, lies_in_plan, plan_files, planned_among, read_unit
from octc.archive.reading import Readers, too_late
from octc.archive.rows import eye_row, failed_row, scan_row, shown, write_rows
from octc.archive.store import KINDS, Done, Part, part_path
from octc.core.errors import OctcError
from octc.core.optional import need
from octc.imaging.preprocess import VIEWS
from octc.runtimes.base import Runtime
from octc.runtimes.monitored import Watcher
from octc.runtimes.predict import Prepared, Record, Scan, answer_group, known_inputs
from octc.runtimes.room import Batch
from octc.runtimes.scans import Reading, answer_of
from octc.stats.aggregation import Aggregation
from octc.store.artifacts import Artifact
from octc.store.monitor_store import MonitorStore

READERS = 2  # threads of a process that read and decode while the engine runs
LATER = ("OCT-E238", "OCT-E239")  # not read in time, changed meanwhile: nothing is known of the input yet
AHEAD = 4  # groups of pictures that are ready before the engine needs them


@dataclass(frozen=True)
class Task:
    """What of a unit is to be done.

    Attributes:
        files: first and last (exclusive) of its inputs, None: all. frames: the same of the B-scans of a single input.
        skip: place of an input -> why it is not tried; or "PLACE:NUMBER" for one B-scan of it. write: whether rows are kept.
        reuse: rows that are there are taken where the input has the same digest. again: inputs that failed and are tried again.
    """

    unit: Unit
    files: tuple[int, int] | None = None
    frames: tuple[int, int] | None = None
    skip: Mapping[str, str] = field(default_factory=dict)
    write: bool = True
    reuse: bool = False
    again: int = 0


@dataclass(frozen=True)
class Shop:
    """What units are done with.

    marks: the columns artifact, options and device. schemas: of the tables. monitor: store of sketches, or None.
    """

    folder: Path
    artifact: Artifact
    runtime: Runtime
    views: str
    batch: int
    aggregation: Aggregation
    how: Reading
    limit: float
    marks: Mapping[str, str]
    schemas: Mapping[str, Any]
    monitor: MonitorStore | None = None


@dataclass
class _Rows:
    """Rows of a unit in the making, and what is counted of them. folders: inputs that are none any more."""

    scans: list[dict[str, Any]] = field(default_factory=list)
    eyes: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    volumes: int = 0
    sides: int = 0
    bookkeeping: float = 0.0
    folders: int = 0
    states: dict[int, tuple[int, int]] = field(default_factory=dict)
    watcher: Watcher | None = None

    def watch(self, record: Record, file: File) -> None:
        """A volume of several files is known by its first one, as everywhere else, not by the digest of all. What is tried
        again is heard then: a store remembers the first word on a picture, and looking for its digest may hang once more."""
        again = record.error is not None and record.error.code in LATER
        if self.watcher is not None and not again:
            several = any(volume.others for volume in file.volumes)
            self.watcher.add(record, None if several else file.sha256)


@dataclass(frozen=True)
class _Item:
    """A picture or B-scan on its way. number: of the B-scan in its input. last: no other of this volume follows."""

    file: File
    prepared: Prepared
    milliseconds: float
    number: int = 0
    last: bool = True


Tell = Callable[[str, int], None]


def do_unit(shop: Shop, task: Task, tell: Tell) -> Done | None:
    """Do a unit and write its rows; None where only a part of it was tried.

    Args:
        tell: ("inputs" | "frames", count): inputs that were done; B-scans of the only input, as soon as they are known.

    Raises:
        OctcError: what the machine lacks; what the engine raises.
    """
    begun = time.perf_counter()
    paths, user = read_unit(shop.folder / FOLDER, task.unit)
    kept = _kept(shop.folder, task.unit) if task.reuse else {}
    names = VIEWS[shop.views]
    planned = partial(planned_among, [shop.folder / FOLDER / task.unit.file])
    inside = partial(lies_in_plan, plan_files(shop.folder / FOLDER))
    opener = Opener(shop.artifact, names, known_inputs(shop.artifact), shop.how, kept, planned, inside)
    readers = Readers(READERS, shop.limit)
    start, stop = task.files or (0, len(paths))
    wanted = [(place, paths[place]) for place in range(start, stop)]
    rows = _Rows()
    if shop.monitor is not None and task.write:
        rows.watcher = Watcher(shop.monitor, shop.artifact, shop.marks["artifact"])
    try:
        items = _items(readers, opener, wanted, task, max(1, shop.batch // len(names)), tell)
        for file, answered in _by_file(_answered(shop, items)):
            _take(shop, rows, file, answered, user[file.place])
            tell("inputs", 1)
    finally:
        readers.close()
    if not task.write:
        return None
    state = digest_of((path, rows.states.get(place, GONE)) for place, path in enumerate(paths))
    writing = time.perf_counter()
    parts = _write(shop, task.unit.number, rows)
    if rows.watcher is not None:
        rows.watcher.flush()
    now = time.perf_counter()
    rows.bookkeeping += now - writing
    judged = [row["unlike"] for row in rows.scans if row["unlike"] is not None]
    return Done(
        task.unit.number, state, len(paths) - rows.folders, len({row["file"] for row in rows.failed}), sum(judged), len(judged),
        rows.volumes, rows.sides, parts, round(now - begun, 4), round(rows.bookkeeping, 4), task.again,
    )  # fmt: skip


def _write(shop: Shop, number: int, rows: _Rows) -> dict[str, Part]:
    """The table of B-scans last: a unit that has it has the others."""
    found = {}
    for kind, table in (("failed", rows.failed), ("eyes", rows.eyes), ("scans", rows.scans)):
        if table or kind == "scans":
            found[kind] = write_rows(part_path(shop.folder, kind, number), table, shop.schemas[kind])
    return found


def _kept(folder: Path, unit: Unit) -> dict[tuple[str, str], Rows]:
    """Rows of a unit by file and digest, of inputs that were done wholly; none where a file of them is missing."""
    tables: dict[str, list[dict[str, Any]]] = {}
    parquet = need("pyarrow.parquet")
    for kind in KINDS:
        path = part_path(folder, kind, unit.number)
        tables[kind] = parquet.read_table(path).to_pylist() if path.is_file() else []
    torn = {row["file"] for row in tables["failed"]}
    found: dict[tuple[str, str], Rows] = {}
    for place, kind in enumerate(("scans", "eyes")):
        for row in tables[kind]:
            if row["file"] not in torn:
                found.setdefault((row["file"], row["sha256"]), ([], []))[place].append(row)
    return found


def _items(
    readers: Readers, opener: Opener, wanted: Sequence[tuple[int, str]], task: Task, each: int, tell: Tell
) -> Iterator[_Item | File]:
    """Pictures and B-scans in order, as soon as they are ready; an input without any as itself."""

    def late(numbered: tuple[int, str]) -> File:
        place, name = numbered
        return File(place, name, GONE, error=too_late(readers.limit, name))

    def opened(numbered: tuple[int, str]) -> File:
        place, name = numbered
        why = task.skip.get(str(place))
        return opener.open(numbered) if why is None else File(place, name, state_of(name), error=_killer(why, name))

    for file in readers.ahead(opened, wanted, late, AHEAD * each):
        if file.prepared is not None:
            yield _Item(file, file.prepared, file.milliseconds)
        elif not file.volumes:
            yield file
        else:
            yield from _frames(readers, opener, file, task, each, tell)


def _frames(readers: Readers, opener: Opener, file: File, task: Task, each: int, tell: Tell) -> Iterator[_Item]:
    scans = [Scan(volume, index) for volume in file.volumes for index in range(volume.frames)]
    if task.files is not None and task.files[1] - task.files[0] == 1:
        tell("frames", len(scans))
    first, last = task.frames or (0, len(scans))
    numbers = {id(scan): number for number, scan in enumerate(scans)}

    def read(scan: Scan) -> tuple[Prepared, float]:
        why = task.skip.get(f"{file.place}:{numbers[id(scan)]}")
        return opener.frame(scan) if why is None else (unread_frame(scan, _killer(why, file.name)), 0.0)

    def late(scan: Scan) -> tuple[Prepared, float]:
        return unread_frame(scan, too_late(readers.limit, scan.volume.name)), readers.limit * 1000

    prepared = readers.ahead(read, scans[first:last], late, AHEAD * each)
    for scan, (one, spent) in zip(scans[first:last], prepared, strict=True):
        yield _Item(file, one, spent, numbers[id(scan)], scan.index == scan.volume.frames - 1)
        tell("inputs", 0)  # a volume may take longer than a process may be silent


def _killer(why: str, name: str) -> OctcError:
    hint = "octc verify the artifact here; send this image to whoever makes the engine"
    return OctcError("OCT-E610", f"the process ends on this image: {why}", hint=hint, place=name)


Answer = tuple[File, Record | None, bool, float]  # of an input: a record, the last of its volume, milliseconds


def _answered(shop: Shop, items: Iterator[_Item | File]) -> Iterator[Answer]:
    """Through the engine in groups of one size, in order."""
    each = max(1, shop.batch // len(VIEWS[shop.views]))
    waiting: list[_Item | File] = []
    for one in items:
        waiting.append(one)
        if sum(isinstance(entry, _Item) and entry.prepared.images is not None for entry in waiting) == each:
            yield from _group(shop, waiting)
            waiting = []
    yield from _group(shop, waiting)


def _group(shop: Shop, waiting: Sequence[_Item | File]) -> Iterator[Answer]:
    items = [one for one in waiting if isinstance(one, _Item)]
    begun = time.perf_counter()
    records = iter(
        list(answer_group(shop.runtime, [one.prepared for one in items], Batch(shop.batch, asked=True), shop.artifact))
    )
    share = (time.perf_counter() - begun) * 1000 / max(1, sum(one.prepared.images is not None for one in items))
    for one in waiting:
        if isinstance(one, File):
            yield one, None, True, 0.0
        else:
            yield one.file, next(records), one.last, one.milliseconds + share


def _by_file(answers: Iterator[Answer]) -> Iterator[tuple[File, list[Answer]]]:
    for _, group in groupby(answers, key=lambda answer: answer[0].place):
        found = list(group)
        yield found[0][0], found


def _take(shop: Shop, rows: _Rows, file: File, answers: Sequence[Answer], user: Mapping[str, Any]) -> None:
    """The rows of one input."""
    begun = time.thread_time()  # not the time in which other threads of this process had the interpreter
    rows.states[file.place] = file.state
    rows.folders += file.is_folder
    origin = {"file": shown(file.name), "sha256": file.sha256, "volume": None, **user}
    if file.volumes and state_of(file.name) != file.state:
        rows.failed.append({**origin, **failed_row(changed(file.name))})
    elif file.kept is not None:
        rows.scans += [{**row, **user} for row in file.kept[0]]
        rows.eyes += [{**row, **user} for row in file.kept[1]]
        _count_eyes(rows, file.kept[1])
    elif file.error is not None:
        rows.failed.append({**origin, **failed_row(file.error)})
        rows.watch(Record(Path(file.name), error=file.error), file)
    else:
        of_volume: list[Record] = []
        for _, record, last, spent in answers:
            if record is not None:
                _row(shop, rows, origin, record, spent)
                rows.watch(record, file)
                of_volume += [] if record.scan is None else [record]
                if of_volume and last:
                    _eye(shop, rows, file, origin, of_volume)
                    of_volume = []
    rows.bookkeeping += time.thread_time() - begun + file.hashing


def _row(shop: Shop, rows: _Rows, origin: Mapping[str, Any], record: Record, spent: float) -> None:
    volume = None if record.scan is None else record.scan.volume
    own = {**origin, "volume": None if volume is None else volume.part}
    if record.error is not None:
        rows.failed.append({**own, **failed_row(record.error, None if record.scan is None else record.scan.index)})
        return
    taken = {} if volume is None else {"scanner": volume.device.value, "acquired": volume.acquired.value}
    row = scan_row(record, shop.artifact.classes)
    rows.scans.append({**own, **row, **taken, **shop.marks, "milliseconds": spent})


def _eye(shop: Shop, rows: _Rows, file: File, origin: Mapping[str, Any], records: list[Record]) -> None:
    scan = records[0].scan
    assert scan is not None
    answer = answer_of(records, shop.artifact, shop.aggregation)
    rows.watch(answer, file)
    row = eye_row(answer, shop.artifact.classes)
    taken = {"scanner": scan.volume.device.value, "acquired": scan.volume.acquired.value}
    rows.eyes.append({**origin, "volume": scan.volume.part, **row, **taken, **shop.marks})
    _count_eyes(rows, [row])


def _count_eyes(rows: _Rows, eyes: Sequence[Mapping[str, Any]]) -> None:
    rows.volumes += len(eyes)
    rows.sides += sum(row["eye"] is not None for row in eyes)
