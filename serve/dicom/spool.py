"""A durable queue on disk: a volume is in exactly one state, a state is a folder, and a transition is one rename.

    incoming/            being received, not acknowledged; emptied when the queue is opened
    queue/KEY.dcm        received and acknowledged; KEY.tries beside it: number of attempts to classify it
    outbox/KEY/          classified: the objects to send, and state.json with the attempts
    done/KE/KEY.json     sent; remembered, so that the same volume is not reported twice
    dead/KEY/            given up: reason.json, and the source (source.dcm) or the objects
    kept/KEY.dcm         classified sources, if they are kept permanently
    audit.jsonl          a line for every step; no identity

KEY is a digest of the SOP instance UID and identifies nobody. Every file is on disk (fsync) before it is renamed, and the
rename before the sender is told. After a crash, files are in one of the folders above, or incomplete in `incoming`. What
arrived later has a later time of change than all that waits, also where the clock was set back: it is the order.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from octc.core.errors import OctcError
from octc.core.faults import naming, writing_to
from octc.core.files import (
    append_whole,
    entries,
    publishing,
    read_json,
    remove_leftovers,
    sha256_bytes,
    sync_folder,
    write_json,
)
from octc.core.locks import must_lock

STATES = ("incoming", "queue", "outbox", "done", "dead", "kept")
SOURCE, REASON, STATE = "source.dcm", "reason.json", "state.json"
NUMBERS = ("attempts", "waited", "due")  # of state.json
AUDIT, LOCK = "audit.jsonl", "lock"
LONGEST = 600.0  # maximum seconds between two attempts to send
TICK = 10_000_000  # ns between two in their order, where the clock says less or was set back (exFAT has no less)
MOST_TRIES = 25  # maximum attempts to classify a volume, in case it crashes the process


def key_of(uid: str) -> str:
    """The name of a source in the queue: a digest of its SOP instance UID."""
    return sha256_bytes(f"octc spool\x1f{uid}".encode())[:32]


@dataclass(frozen=True)
class Waiting:
    """Objects to send. attempts: failed attempts; waited: total pause, seconds; due: next attempt, seconds since 1970."""

    key: str
    objects: tuple[Path, ...]
    attempts: int = 0
    waited: float = 0.0
    due: float = 0.0

    def left(self, now: float) -> float:
        """Seconds until the next attempt, 0: now. More than LONGEST means that the clock was set back."""
        left = self.due - now
        return left if 0 < left <= LONGEST else 0.0


def _refuse_strange(folder: Path) -> None:
    """Refuse a non-empty folder that is not a queue (OctcError E106), because opening a queue empties `incoming`."""
    begun = {*STATES, LOCK}  # made by a process that was killed before it wrote an audit log; the log may also be rotated away
    own = (folder / AUDIT).is_file() or all((folder / name).exists() for name in begun)
    found = [] if own else entries(folder)
    if any(path.name not in begun or (path.is_dir() and entries(path)) for path in found):
        text = f"{folder} is not a queue of octc, and not empty: {found[0].name}"
        raise OctcError("OCT-E106", text, hint="name a new folder: --spool DIR", place=str(folder))


def _time_of(path: Path) -> int | None:
    """Time of the last change, ns; None for what went meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return None


def _set_time(path: int | Path, moment: int) -> None:
    with contextlib.suppress(OSError):  # where the file system does not take it, the clock decides
        os.utime(path, ns=(moment, moment))


def _facts(path: Path) -> dict[str, Any]:
    """What a small file of the queue says; {} where it is absent or damaged: it may not hold up everybody's reports."""
    try:
        found = read_json(path)
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(found, dict) or any(not isinstance(found.get(name, 0), int | float) for name in NUMBERS):
        return {}
    return found


def _linked(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system has no such names (FAT, many shares)."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        shutil.copyfile(source, target)


class Spool:
    """The queue in a folder, for one process; a context manager.

    Attributes:
        arrived, answered: events, set if there is something to classify, or to send.
    """

    def __init__(self, folder: Path, *, keep: bool = False, clock: Callable[[], float] = time.time) -> None:
        """Open the queue, and recover the state after a crash. keep: keep classified sources permanently.

        Raises:
            OctcError: E108 another process uses it; E106 the folder has other content; E109, E904, E906 it cannot be written.
        """
        self.folder, self._keep, self._clock = folder, keep, clock
        self.arrived, self.answered = threading.Event(), threading.Event()
        self._guard = threading.RLock()
        with writing_to(folder):
            self._begin(folder)

    def _begin(self, folder: Path) -> None:
        _refuse_strange(folder)
        for name in STATES:
            (folder / name).mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # volumes and reports contain identities
        self._lock = (folder / LOCK).open("w")
        try:
            mine = must_lock(self._lock, folder / LOCK)
        except OSError:
            self._lock.close()
            raise
        if not mine:
            self._lock.close()
            text = f"another process serves from {folder}"
            raise OctcError("OCT-E108", text, hint="stop it, or name another folder: --spool DIR", place=str(folder))
        self._audit = self._opened_audit()
        self._recover()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._audit.close()
        self._lock.close()

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    def _opened_audit(self) -> IO[bytes]:
        stream = (self.folder / AUDIT).open("a+b", buffering=0)
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":  # the last line is incomplete after a power failure
                stream.write(b"\n")
        return stream

    def _audit_moved(self) -> bool:
        """Whether the open log was renamed or removed (log rotation), so that a new one must be opened."""
        try:
            return not os.path.samestat((self.folder / AUDIT).stat(), os.fstat(self._audit.fileno()))
        except FileNotFoundError:
            return True

    def audit(self, event: str, key: str = "", **facts: Any) -> None:
        """Write a line to the audit log and sync it to disk. facts: values that identify no patient."""
        moment = datetime.fromtimestamp(self._clock(), timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": moment, "event": event, **({"key": key} if key else {}), **facts}) + "\n"
        with self._guard:
            if self._audit_moved():
                self._audit.close()
                self._audit = self._opened_audit()
            with naming(self.folder / AUDIT):
                append_whole(self._audit.fileno(), line.encode())  # a partial line would corrupt the next one
                os.fsync(self._audit.fileno())

    def _recover(self) -> None:
        """Finish all interrupted transitions: a later state wins over an earlier one."""
        shutil.rmtree(self.incoming)
        self.incoming.mkdir()
        for name in ("outbox", "dead", "done", "queue"):
            remove_leftovers(self.folder / name)
        for one in self._names("outbox"):
            if self._done(one).is_file():
                self._remove("outbox", one)
        for one in self._names("dead"):
            if (self.folder / "outbox" / one).is_dir() or self.source(one).is_file():
                self._remove("dead", one)  # interrupted while it was given up or sent again: it is retried
        for key in [path.stem for path in (self.folder / "queue").glob("*.dcm")]:
            if self._is_answered(key):
                self._forget_source(key)
        for tries in (self.folder / "queue").glob("*.tries"):
            if not self.source(tries.stem).is_file():  # left over from an interrupted removal
                tries.unlink(missing_ok=True)
        there = [*(self.folder / "queue").glob("*.dcm"), *(self.folder / "outbox").glob("*/*.dcm")]
        self._newest = max((moment for one in there if (moment := _time_of(one)) is not None), default=0)
        self.audit("opened", queue=len(self.queued()), outbox=len(self._names("outbox")))
        self.arrived.set()
        self.answered.set()

    def _names(self, state: str) -> list[str]:
        return sorted(path.name for path in (self.folder / state).iterdir() if not path.name.startswith("."))

    def _done(self, key: str) -> Path:
        return self.folder / "done" / key[:2] / f"{key}.json"

    def state_of(self, key: str) -> str | None:
        """The state of a source: "queue", "outbox", "done" or "dead"; None if unknown."""
        if self._done(key).is_file():
            return "done"
        if (self.folder / "outbox" / key).is_dir():
            return "outbox"
        if (self.folder / "queue" / f"{key}.dcm").is_file():
            return "queue"
        return "dead" if (self.folder / "dead" / key).is_dir() else None

    def receive(self, file: Path, key: str, **facts: Any) -> bool:
        """Move a complete file from `incoming` into the queue, synced to disk. False: it is already known.

        A source that was given up is accepted again, as a request for another attempt.
        """
        with self._guard:
            state = self.state_of(key)
            if state in ("queue", "outbox", "done"):
                self.audit("repeated", key, state=state, **facts)
                file.unlink()
                return False
            handle = os.open(file, os.O_RDONLY)
            try:
                _set_time(handle, self._turn())
                os.fsync(handle)
                size = os.fstat(handle).st_size
            finally:
                os.close(handle)
            file.rename(self.folder / "queue" / f"{key}.dcm")
            sync_folder(self.folder / "queue")
            if state == "dead":
                self._remove("dead", key)
            self.audit("received", key, bytes=size, **facts)
        self.arrived.set()
        return True

    def _turn(self) -> int:
        """A time of change for what comes next, ns: now, but later than that of all that was there when the queue was opened,
        or came since. Folders are not looked through for it: the other thread takes away what it has sent."""
        with self._guard:
            self._newest = max(int(self._clock() * 1e9), self._newest + TICK)
            return self._newest

    def queued(self) -> list[str]:
        """Keys of waiting sources: those with fewest attempts first, then by time of arrival."""
        return [key for *_, key in sorted((self.tries(key), facts.st_mtime_ns, key) for key, facts in self._sources())]

    def queued_bytes(self) -> int:
        return sum(facts.st_size for _, facts in self._sources())

    def _sources(self) -> Iterator[tuple[str, os.stat_result]]:
        """Keys and file status of waiting sources; those finished meanwhile by another thread are skipped."""
        for path in (self.folder / "queue").glob("*.dcm"):
            with contextlib.suppress(FileNotFoundError):
                yield path.stem, path.stat()

    def source(self, key: str) -> Path:
        return self.folder / "queue" / f"{key}.dcm"

    def tries(self, key: str) -> int:
        """Number of attempts to classify a source."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "queue" / f"{key}.tries").stat().st_size
        return 0

    def begin(self, key: str) -> int:
        """Record an attempt before it starts; returns the number of attempts."""
        with (self.folder / "queue" / f"{key}.tries").open("ab", buffering=0) as stream:
            stream.write(b".")
            os.fsync(stream.fileno())
            return stream.tell()

    def put_off(self, key: str) -> None:
        """Undo the count of `begin` after an attempt that failed without a crash."""
        tries = self.folder / "queue" / f"{key}.tries"
        with contextlib.suppress(OSError):
            os.truncate(tries, max(0, tries.stat().st_size - 1))

    @contextlib.contextmanager
    def answering(self, key: str, **facts: Any) -> Iterator[Path]:
        """Yield a folder for the objects to send; on success it becomes the outbox entry atomically."""
        with publishing(self.folder / "outbox" / key) as folder:
            yield folder
            moment = self._turn()
            for one in folder.glob("*.dcm"):
                _set_time(one, moment)
        self.audit("answered", key, **facts)
        self._forget_source(key)
        self.answered.set()

    def settle(self, key: str) -> bool:
        """Whether a waiting source already has its result because a later step failed (full disk); finishes that step."""
        if not self._is_answered(key):
            return False
        self.audit("answered", key)
        self._forget_source(key)
        self.answered.set()
        return True

    def _is_answered(self, key: str) -> bool:
        return self.state_of(key) in ("outbox", "done")

    def keeps(self, key: str) -> bool:
        """Whether a source is kept permanently."""
        return (self._keep and self.source(key).is_file()) or (self.folder / "kept" / f"{key}.dcm").is_file()

    def _forget_source(self, key: str) -> None:
        if self._keep and self.source(key).is_file():
            self.source(key).rename(self.folder / "kept" / f"{key}.dcm")
            sync_folder(self.folder / "kept")
        self.source(key).unlink(missing_ok=True)
        (self.folder / "queue" / f"{key}.tries").unlink(missing_ok=True)
        sync_folder(self.folder / "queue")

    def waiting(self) -> list[Waiting]:
        """The objects to send, sorted by due time, then in the order of their answers."""
        found = []
        for key in self._names("outbox"):
            if self._done(key).is_file():  # sent, but a later step failed (full disk)
                self._finish(key, **_facts(self._done(key)))
                continue
            folder = self.folder / "outbox" / key
            state = _facts(folder / STATE)
            facts = {name: state[name] for name in NUMBERS if name in state}
            objects = tuple(sorted(folder.glob("*.dcm")))
            answered = max((moment for one in objects if (moment := _time_of(one)) is not None), default=0)
            found.append((answered, Waiting(key, objects, **facts)))
        return [one for _, one in sorted(found, key=lambda pair: (pair[1].due, pair[0], pair[1].key))]

    def failed(self, one: Waiting, pause: float, reason: str) -> None:
        """Record a failed attempt; the next one is after `pause` seconds. Pauses are added up instead of using clock times,
        because the clock of a device without a battery may jump by years."""
        state = {"attempts": one.attempts + 1, "waited": one.waited + pause, "due": self._clock() + pause}
        write_json(self.folder / "outbox" / one.key / STATE, state)
        self.audit("not-sent", one.key, attempts=one.attempts + 1, reason=reason)

    def sent(self, one: Waiting, **facts: Any) -> None:
        """Record that all objects were sent."""
        write_json(self._done(one.key), {"attempts": one.attempts + 1, **facts})
        self._finish(one.key, attempts=one.attempts + 1, **facts)

    def _finish(self, key: str, **facts: Any) -> None:
        self.audit("sent", key, **facts)
        self._remove("outbox", key)
        self._remove("dead", key)  # left over from an interrupted attempt to give it up

    def give_up(self, key: str, code: str, reason: str) -> None:
        """Move a source, or a report that cannot be delivered, to the dead-letter folder with the reason."""
        with self._guard:
            self._remove("dead", key)
            folder = self.folder / "outbox" / key
            with publishing(self.folder / "dead" / key) as place:
                write_json(place / REASON, {"code": code, "reason": reason})
                if folder.is_dir():
                    for file in folder.glob("*.dcm"):
                        shutil.copyfile(file, place / file.name)
                else:
                    _linked(self.source(key), place / SOURCE)
            self.audit("gave-up", key, code=code)
            if folder.is_dir():
                self._remove("outbox", key)
            else:
                self._forget_source(key)

    def _remove(self, state: str, key: str) -> None:
        """Remove a folder atomically: it is renamed before its files are deleted."""
        folder = self.folder / state / key
        if folder.is_dir():
            gone = folder.with_name(f".tmp-{os.getpid()}-gone-{key}")
            folder.rename(gone)
            sync_folder(folder.parent)
            shutil.rmtree(gone)
