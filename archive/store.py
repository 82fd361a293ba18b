"""A folder of results: what made it, which units are done, who writes. Every file is whole or not there.

manifest.json            artifact, options, counts, files with their checksums (complete: once every unit is done)
plan/plan-000.parquet    the inputs, a row group a unit
scans/ eyes/ failed/     part-000000.parquet of each unit that has such rows
journal-*.jsonl          a line a unit that is done, synced; written by one process each
failed.parquet           all of failed/ in order, at the end
_SUCCESS                 last
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.faults import fault_of, naming, writing_to
from octc.core.files import (
    append_whole,
    canonical_json,
    entries,
    parse_json,
    read_json,
    remove_leftovers,
    sha256_bytes,
    sha256_file,
    write_json,
)
from octc.core.locks import must_lock

FORMAT = 1
MANIFEST, SUCCESS, FAILED = "manifest.json", "_SUCCESS", "failed.parquet"
KINDS = ("scans", "eyes", "failed")
DIVISION = ".lock-of-"  # begins the name of a lock that all processes of one division share
COUNTED = ("unit", "inputs", "failed", "unlike", "judged", "volumes", "sides")
MOST_LINE = 64 << 10
PART_LOCK = re.compile(r"\.lock-\d+-of-\d+")
PART = re.compile(r"part-\d{6,}\.parquet")


@dataclass(frozen=True)
class Shard:
    """Which units a process does: those whose number leaves `index` (from 1) of `count`."""

    index: int = 1
    count: int = 1

    @property
    def name(self) -> str:
        return "all" if self.count == 1 else f"{self.index}-of-{self.count}"

    def has(self, unit: int) -> bool:
        return unit % self.count == self.index - 1


@dataclass(frozen=True)
class Part:
    """A written file of rows."""

    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Done:
    """A unit that is done.

    Attributes:
        state: digest of its inputs as they were when it was done (`octc.archive.plan.digest_of`).
        inputs, failed: inputs, and those of them that failed; unlike, judged: B-scans that are unlike the training images, and
            those whose likeness is known. volumes, sides: volumes, and those whose eye is known.
        parts: kind -> the file of rows. seconds: spent, and of these on bookkeeping (hashing, rows, writing).
        again: inputs that had failed before and were tried once more.
    """

    unit: int
    state: str
    inputs: int
    failed: int
    unlike: int
    judged: int
    volumes: int
    sides: int
    parts: Mapping[str, Part]
    seconds: float
    bookkeeping: float
    again: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: Any) -> Done:
        parts = {kind: Part(str(one["sha256"]), int(one["bytes"]), int(one["rows"])) for kind, one in value["parts"].items()}
        numbers: dict[str, Any] = {name: int(value[name]) for name in COUNTED}
        numbers |= {name: float(value[name]) for name in ("seconds", "bookkeeping")}
        numbers["again"] = int(value.get("again", 0))  # older journals have none
        if not set(parts) <= set(KINDS):
            raise ValueError("parts")
        return Done(state=str(value["state"]), parts=parts, **numbers)


def part_path(folder: Path, kind: str, unit: int) -> Path:
    """Where the rows of a unit lie."""
    return folder / kind / f"part-{unit:06d}.parquet"


@contextmanager
def holding(folder: Path, shard: Shard) -> Iterator[Callable[[], bool]]:
    """The right to write into a folder of results: of its own part for a process of an array, of all for any other.

    Yields a function for the end of the work, to be called while `planning`: it gives up this part, and says whether nobody
    works on another one. Of parts that end together the last one is told so, and rows of one that works still may change.

    Raises:
        OctcError: E108 somebody else has it, E109 E904 E906 the folder cannot be written.
    """
    with writing_to(folder), ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        _lock(stack, folder / ".lock", shared=shard.count > 1)
        part = stack.enter_context(ExitStack())
        if shard.count > 1:
            with planning(folder):  # whoever looks whether this part is worked on has its lock for a moment
                _lock(part, folder / f".lock-{shard.name}")
            _of_one_division(stack, folder, shard)
        elif (folder / MANIFEST).is_file():  # else nobody knows whose folder it is
            remove_leftovers(folder)
        yield partial(_is_last, folder, part)


def _is_last(folder: Path, part: ExitStack) -> bool:
    part.close()
    with ExitStack() as looking:
        try:
            for other in entries(folder):
                if PART_LOCK.fullmatch(other.name):
                    _lock(looking, other)
        except OctcError as error:
            if error.code != "OCT-E108":
                raise
            return False
    return True


def _of_one_division(stack: ExitStack, folder: Path, shard: Shard) -> None:
    """Refuse a part of another division beside those that are at work (E108): they would have units in common."""
    own = folder / f"{DIVISION}{shard.count}"
    _lock(stack, own, shared=True)
    for other in entries(folder):
        if other.name.startswith(DIVISION) and other != own:
            with ExitStack() as looking:
                _lock(looking, other)


@contextmanager
def planning(folder: Path) -> Iterator[None]:
    """One process of an array writes the plan, the others wait for it."""
    with ExitStack() as stack:
        _lock(stack, folder / ".lock-plan", wait=True)
        yield


def _lock(stack: ExitStack, path: Path, *, shared: bool = False, wait: bool = False) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    stack.callback(os.close, handle)
    if not must_lock(handle, path, shared=shared, wait=wait):
        text = f"another process writes into {path.parent}"
        hint = "wait for it, name another --out, or give each process its part: --shard 1/2, --shard 2/2"
        raise OctcError("OCT-E108", text, hint=hint, place=str(path.parent))


def open_results(folder: Path, identity: Mapping[str, Any]) -> None:
    """Begin a folder of results, or go on with one of the same artifact and options.

    identity: "artifact" and "options" of the manifest, with their digests.

    Raises:
        OctcError: E106 the folder holds something else, E110 results of another artifact, other options or another table.
    """
    if not (folder / MANIFEST).is_file():
        others = [one.name for one in entries(folder) if not one.name.startswith((".lock", ".tmp-"))]
        if others:
            text = f"{folder} is no folder of results, and not empty: {others[0]}"
            raise OctcError("OCT-E106", text, hint="name another --out", place=str(folder))
        write_json(folder / MANIFEST, {"format": FORMAT, **identity, "complete": False})
        return
    found = read_manifest(folder)
    for name in identity:
        if found.get(name) != identity[name]:
            text = f"{folder} holds results of another {name.replace('_', ' ')}: rows of two never stand in one folder"
            hint = f"another --out, or the same as before: {_difference(found.get(name), identity[name])}"
            raise OctcError("OCT-E110", text, hint=hint, place=str(folder))


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key) and key != "digest"]
        return "; ".join(f"{key} was {json.dumps(before.get(key))[:80]}" for key in keys[:3]) or "its digest"
    return json.dumps(before)[:200]


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json of a folder of results.

    Raises:
        OctcError: E107 there is none, E502 it is damaged or of another format.
    """
    path = folder / MANIFEST
    try:
        value = read_json(path)
        if value["format"] != FORMAT or not isinstance(value["artifact"], dict) or not isinstance(value["options"], dict):
            raise ValueError(f"format {value['format']}")
    except FileNotFoundError as error:
        hint = "octc predict ARTIFACT INPUT... --out RESULTS makes one"
        raise OctcError("OCT-E107", f"no results at {folder}", hint=hint, place=str(folder)) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        if (fault := fault_of(error, path)) is not None:
            raise fault from error
        text = f"{path} is not valid: {str(error)[:200]}"
        raise OctcError(
            "OCT-E502", text, hint="name another --out; the rows in scans/ are as they were", place=str(path)
        ) from error
    return dict(value)


def digest(value: Any) -> str:
    """Of a JSON value."""
    return sha256_bytes(canonical_json(value))


class Journal:
    """A line for each unit that is done. A torn last line, which a full disk or a kill leaves, does not count."""

    def __init__(self, folder: Path, shard: Shard) -> None:
        self._path = folder / f"journal-{shard.name}.jsonl"
        with self._path.open("ab") as stream:
            if stream.tell() and not self._path.read_bytes().endswith(b"\n"):
                stream.write(b"\n")

    def add(self, done: Done) -> None:
        line = json.dumps(done.to_json()).encode() + b"\n"
        with naming(self._path), self._path.open("ab", buffering=0) as stream:
            append_whole(stream.fileno(), line)
            os.fsync(stream.fileno())


def read_journals(folder: Path) -> dict[int, Done]:
    """Unit -> what is known of it; of several lines the one whose files are there counts, of these the last."""
    found: dict[int, list[Done]] = {}
    for path in entries(folder):
        if path.name.startswith("journal-") and path.suffix == ".jsonl":
            with path.open("rb") as stream:
                while line := stream.readline(MOST_LINE):
                    with suppress(ValueError, KeyError, TypeError, AttributeError):
                        one = Done.from_json(parse_json(line))
                        found.setdefault(one.unit, []).append(one)
    return {unit: _standing(folder, lines) for unit, lines in found.items()}


def _standing(folder: Path, lines: list[Done]) -> Done:
    if len(lines) == 1:
        return lines[0]
    return next((one for one in reversed(lines) if not damaged_parts(folder, one)), lines[-1])


def damaged_parts(folder: Path, done: Done, kinds: Sequence[str] = KINDS) -> list[Path]:
    """Files of a unit that are missing, cut or altered."""
    wanted = [(part_path(folder, kind, done.unit), part) for kind, part in done.parts.items() if kind in kinds]
    return [path for path, part in wanted if not _fits(path, part)]


def _fits(path: Path, part: Part) -> bool:
    try:
        return path.stat().st_size == part.bytes and sha256_file(path) == part.sha256
    except OSError:
        return False
