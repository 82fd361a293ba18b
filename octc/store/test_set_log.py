"""The test-set log of a run, test-set.jsonl: one row for every reading of its test images, whoever reads.

A reading is a command that runs a network on images of the test part and shows or stores what it said, or that shows such an
image. A row is appended before the first image is read, and never changed. The first line says since when the log is kept: for
a run of this octc since it was made, for an older run since its first reading by this octc; what older ones noted in run.json
and verify-plan.json is counted with it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from octc.core.errors import OctcError
from octc.core.files import append_whole, canonical_json, parse_json, read_json, sha256_file
from octc.core.locks import lock
from octc.schemas.common import builtins, convert
from octc.schemas.logs import LogHead, Reading

if TYPE_CHECKING:
    from octc.datasets.split import Split

LOG = "test-set.jsonl"
SCHEMA = "1.0"
PARTS = ("test", "official")  # parts of a split that nothing may be chosen on
PLANNED: Literal["planned"] = "planned"
EXPLORATORY: Literal["exploratory"] = "exploratory"


@dataclass(frozen=True)
class ReadingLog:
    """Attributes:
    readings: in their order. since: when the log began.
    complete: whether nothing can be missing; else readings before `since` were not all recorded.
    """

    readings: tuple[Reading, ...]
    since: str | None
    complete: bool

    @property
    def uses(self) -> int:
        """Readings that could tell something new: the same artifacts again with the same options are none."""
        seen: set[tuple[str, str, str, bytes]] = set()
        count = 0
        for one in self.readings:
            keys = {(one.command, one.part, sha, _plain(one.options)) for sha in one.artifacts.values()}
            count += not keys or not keys <= seen
            seen |= keys
        return count

    def to_json(self) -> dict[str, Any]:
        return {
            "readings": len(self.readings),
            "uses": self.uses,
            "since": self.since,
            "complete": self.complete,
            "rows": [builtins(one) for one in self.readings],
        }


def _plain(options: Mapping[str, Any]) -> bytes:
    """Options as they are compared: 2 and 2.0 are one."""
    return canonical_json({k: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in options.items()})


def begin_log(run: Path, now: str) -> None:
    """Begin the log of a run (OSError where the folder cannot be written)."""
    with (run / LOG).open("xb") as stream:
        stream.write(_line({"schema_version": SCHEMA, "log": "test set", "since": now, "complete": True}))


def log_reading(run: Path, reading: Reading) -> ReadingLog:
    """Append one reading, before the first image is read; the log with it.

    Raises:
        OctcError: E109 the run cannot be written, so that nothing may be read; E709 the log cannot be read.
    """
    path = run / LOG
    try:
        with path.open("ab+") as stream:
            lock(stream, wait=True)
            stream.seek(0)
            before = stream.read()
            _parsed(before, path)
            whole = before[: before.rfind(b"\n") + 1]
            if whole != before:  # a row that was cut off while it was written: its reading never began
                stream.truncate(len(whole))
            older = [*map(len, _before(run))]
            head = {"schema_version": SCHEMA, "log": "test set", "since": reading.time_utc, "complete": False, "older": older}
            data = (b"" if whole else _line(head)) + _line(builtins(reading))
            append_whole(stream.fileno(), data)
            os.fsync(stream.fileno())
            return _log(run, whole + data)
    except OSError as error:
        text = f"the reading of the test images cannot be written down: {error.strerror}"
        hint = "make the run's folder writable, or copy the run: cp -r; nothing was read"
        raise OctcError("OCT-E109", text, hint=hint, place=str(path)) from error


def log_part(run: Path, split: Split, part: str, artifacts: Mapping[str, str], command: str, now: str, **options: Any) -> None:
    """`log_reading` of a part of a run's split; nothing for a part that something is chosen on."""
    if part in PARTS:
        log_reading(run, Reading(now, command, part, len(split.parts[part]), split.digest, dict(artifacts), options))


def log_files(
    run: Path, paths: Iterable[Path], artifacts: Mapping[str, str], command: str, now: str, *, named: bool = False
) -> int:
    """`log_reading` of those files that are test images of the run's split, by their checksums; how many there are. Of volumes
    their B-scans count.

    Where the run holds no split, or none of them is one, nothing is logged. named: look at files only that are called as a
    test image is, so that of many others none is read twice.
    """
    from octc.datasets.split import read_split

    split = read_split(run / "split.json") if (run / "split.json").is_file() else None
    held = {} if split is None else {sample.sha256: part for part in PARTS for sample in split.parts.get(part, ())}
    if named and split is not None:
        names = {sample.file.rpartition("/")[2] for part in PARTS for sample in split.parts.get(part, ())}
        paths = [path for path in paths if path.name in names]
    volumes = any(sample.scan is not None for part in PARTS for sample in (split.parts.get(part, ()) if split else ()))
    found = Counter(held[one] for path in paths if held and path.is_file() for one in _sums(path, volumes) if one in held)
    for part, count in found.items():
        assert split is not None
        log_reading(run, Reading(now, command, part, count, split.digest, dict(artifacts)))
    return sum(found.values())


def _sums(path: Path, volumes: bool) -> Iterator[str]:
    """The sum of a file, and those of its B-scans where test images are such."""
    from octc.datasets.pictures import scan_digests
    from octc.volumes.formats import format_of, read_volumes

    yield sha256_file(path)
    if volumes:
        with suppress(OctcError):  # what cannot be read is no test image that anything can be said of
            for volume in read_volumes(path) if format_of(path) is not None else ():
                yield from scan_digests(volume)[1]


def read_log(run: Path) -> ReadingLog:
    """The log of a run; of an older run what its run.json and its plan tell.

    Raises:
        OctcError: E709 it cannot be read.
    """
    path = run / LOG
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ReadingLog(_older(run), None, False)
    except OSError as error:
        raise _bad(str(error.strerror), path) from error
    return _log(run, data)


def _line(value: Mapping[str, Any]) -> bytes:
    return canonical_json(value) + b"\n"


def _bad(why: str, path: Path) -> OctcError:
    text = f"the record of the uses of the test set cannot be read: {why}"
    return OctcError("OCT-E709", text, hint="restore this file from a copy; it is not made anew", place=str(path))


def _parsed(data: bytes, path: Path) -> tuple[LogHead | None, list[Reading]]:
    """The first line and the readings. What stands behind the last line break was cut off while it was written."""
    try:
        lines = [parse_json(line) for line in data[: data.rfind(b"\n") + 1].decode().splitlines()]
        head = convert(lines[0], LogHead, path) if lines else None
        return head, [convert(line, Reading) for line in lines[1:]]
    except ValueError as error:
        raise _bad(str(error), path) from error


def _log(run: Path, data: bytes) -> ReadingLog:
    head, rows = _parsed(data, run / LOG)
    if head is None:
        return ReadingLog(_older(run), None, False)
    older = () if head.complete else _older(run, head)
    return ReadingLog((*older, *rows), head.since, head.complete)


def _before(run: Path) -> tuple[list[Reading], list[Reading]]:
    """Evaluations in run.json and uses by verify beside the plan, each in its order: what an octc without this log noted."""
    stages: list[Reading] = []
    uses: list[Reading] = []
    try:
        for stage in read_json(run / "run.json")["stages"]:
            if stage.get("stage") in ("evaluated", "ptq") and stage.get("part") in PARTS:
                command = "eval" if stage["stage"] == "evaluated" else "ptq"
                artifacts = {"weights": str(stage.get("sha256"))}
                options = {"tta": stage.get("tta")}
                stages.append(Reading(str(stage["time_utc"]), command, stage["part"], None, None, artifacts, options))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a run without a readable run.json has other readers that say so
    try:
        for use in read_json(run / "verify-plan.json")["uses"]:
            uses.append(Reading(use["time_utc"], "verify", "test", None, None, dict(use["artifacts"]), dict(use["options"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # the plan's own reader says so
    return stages, uses


def _older(run: Path, head: LogHead | None = None) -> tuple[Reading, ...]:
    """What was read before the log began: by number, since a clock that was set back would hide readings."""
    stages, uses = _before(run)
    if head is not None and head.older is not None:
        stages, uses = stages[: head.older[0]], uses[: head.older[1]]
    elif head is not None:
        stages, uses = ([one for one in rows if one.time_utc < head.since] for rows in (stages, uses))
    return tuple(sorted((*stages, *uses), key=lambda one: one.time_utc))


def spelled(log: ReadingLog) -> str:
    """How often, by whom and when the test images were read, as a sentence without its full stop."""
    if not log.readings:
        counted = "the test images were not read"
        return counted if log.complete else f"readings of the test images were not recorded{_until(log)}"
    by = Counter(one.command for one in log.readings)
    parts = []
    for command in by:
        mine = [one for one in log.readings if one.command == command]
        when = ", ".join(one.time_utc + ("" if one.plan is None else f" {one.plan}") for one in mine)
        parts.append(f"octc {command} {len(mine)} ({when})")
    count = len(log.readings)
    text = f"the test images were read {count} time{'' if count == 1 else 's'}: {', '.join(parts)}"
    if log.uses != count:
        text += f"; {count - log.uses} of them repeat an earlier one (the same artifacts and options)"
    return text if log.complete else f"{text}; other readings were not recorded{_until(log)}"


def _until(log: ReadingLog) -> str:
    return " by the octc that made this run" if log.since is None else f" before {log.since}"
