"""What a box remembers of its predictions: a SQLite file that only grows. Sketches: no image, no name, no path.

Rows are written by triggers' leave only: nothing is changed or deleted. A picture is known by a hash under a key that the file
itself holds, so that the same picture counts once and a label that arrives later finds its answer; nobody without the picture
can tell which it was.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import resource
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from octc.core.errors import OctcError
from octc.core.faults import fault_of, full, read_only
from octc.core.files import parse_json

VERSION = "1"
WAIT = 30.0  # seconds for another writer
ROOM = 64 << 10  # bytes that SQLite may write at once: pages, and the index of its log
TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE seen (seq INTEGER PRIMARY KEY AUTOINCREMENT, day TEXT NOT NULL, artifact TEXT NOT NULL, key TEXT NOT NULL,
  label TEXT, confidence REAL, sketch TEXT NOT NULL, UNIQUE (artifact, key));
CREATE TABLE truth (seq INTEGER PRIMARY KEY AUTOINCREMENT, day TEXT NOT NULL, artifact TEXT NOT NULL, key TEXT NOT NULL,
  correct REAL NOT NULL, images INTEGER NOT NULL, UNIQUE (artifact, key));
CREATE TABLE golden (seq INTEGER PRIMARY KEY AUTOINCREMENT, day TEXT NOT NULL, artifact TEXT NOT NULL, ok INTEGER NOT NULL,
  delta REAL);
"""
KEPT = ("meta", "seen", "truth", "golden")


@dataclass(frozen=True)
class Seen:
    """A prediction: the day, the artifact's digest, the picture's keyed hash, its answer and its sketch (stream -> value)."""

    day: str
    artifact: str
    key: str
    label: str | None
    confidence: float | None
    sketch: dict[str, float | None]


@dataclass(frozen=True)
class Truth:
    """Labels of a patient that arrived: share of right answers, of so many images. keys: of those images, sorted."""

    day: str
    artifact: str
    keys: tuple[str, ...]
    correct: float
    images: int


@dataclass(frozen=True)
class Replay:
    """A replay of the golden images: whether they held, and the largest difference over the scale."""

    day: str
    artifact: str
    ok: bool
    delta: float | None


class MonitorStore:
    """An open store. `open_store` makes one."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._secret = bytes.fromhex(str(self._one("SELECT value FROM meta WHERE name = 'secret'")))

    def _one(self, words: str) -> object:
        row = self._connection.execute(words).fetchone()
        if row is None:
            raise sqlite3.DatabaseError("a fact of the file is missing")
        return row[0]

    def key_of(self, content: str) -> str:
        """The keyed hash of a picture, from the digest of its content."""
        return hmac.new(self._secret, content.encode(), "sha256").hexdigest()[:32]

    def draw(self, what: str) -> float:
        """A uniform number for a row and a stream, the same at every look, that nobody can choose."""
        digest = hmac.new(self._secret, b"draw:" + what.encode(), hashlib.sha256).digest()
        return (int.from_bytes(digest[:7], "big") + 0.5) / 2**56

    def add(self, rows: Sequence[Seen | Truth | Replay]) -> int:
        """Append rows, all or none of them; those that are there already are passed over, of labels those of a patient of whom
        an image is. How many are new.

        Raises:
            OctcError: E904, E906 or E109 they cannot be written.
        """
        with _speaking(self.path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            before = self._connection.total_changes
            for row in _uncounted(rows, self.truth):
                self._connection.execute(*_insert(row))
            return self._connection.total_changes - before

    def seen(self, artifact: str) -> list[Seen]:
        """Predictions of an artifact in the order in which they came."""
        words = "SELECT day, artifact, key, label, confidence, sketch FROM seen WHERE artifact = ? ORDER BY seq"
        with _speaking(self.path):
            rows = self._connection.execute(words, (artifact,)).fetchall()
            return [Seen(day, digest, key, label, sure, parse_json(text)) for day, digest, key, label, sure, text in rows]

    def seen_of_others(self, artifact: str) -> int:
        """How many predictions are of other artifacts, or of this one before its manifest was changed."""
        with _speaking(self.path):
            row = self._connection.execute("SELECT count(*) FROM seen WHERE artifact != ?", (artifact,)).fetchone()
            return int(row[0])

    def truth(self, artifact: str) -> list[Truth]:
        """Labels in the order in which they came."""
        words = "SELECT day, artifact, key, correct, images FROM truth WHERE artifact = ? ORDER BY seq"
        with _speaking(self.path):
            rows = self._connection.execute(words, (artifact,)).fetchall()
            return [Truth(day, digest, tuple(keys.split(" ")), right, images) for day, digest, keys, right, images in rows]

    def replays(self, artifact: str) -> list[Replay]:
        """Replays of the golden images in their order."""
        words = "SELECT day, artifact, ok, delta FROM golden WHERE artifact = ? ORDER BY seq"
        with _speaking(self.path):
            return [Replay(row[0], row[1], bool(row[2]), row[3]) for row in self._connection.execute(words, (artifact,))]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> MonitorStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _uncounted(
    rows: Sequence[Seen | Truth | Replay], truth: Callable[[str], Sequence[Truth]]
) -> Iterator[Seen | Truth | Replay]:
    """The rows without labels of patients of whom an image counts already, in the store or in a row before."""
    counted: dict[str, set[str]] = {}
    for row in rows:
        if isinstance(row, Truth):
            if row.artifact not in counted:
                counted[row.artifact] = {key for one in truth(row.artifact) for key in one.keys}
            if not counted[row.artifact].isdisjoint(row.keys):
                continue
            counted[row.artifact].update(row.keys)
        yield row


def _insert(row: Seen | Truth | Replay) -> tuple[str, tuple[object, ...]]:
    if isinstance(row, Seen):
        words = "INSERT OR IGNORE INTO seen (day, artifact, key, label, confidence, sketch) VALUES (?, ?, ?, ?, ?, ?)"
        sketch = json.dumps(row.sketch, allow_nan=False, separators=(",", ":"))
        return words, (row.day, row.artifact, row.key, row.label, row.confidence, sketch)
    if isinstance(row, Truth):
        words = "INSERT OR IGNORE INTO truth (day, artifact, key, correct, images) VALUES (?, ?, ?, ?, ?)"
        return words, (row.day, row.artifact, " ".join(row.keys), row.correct, row.images)
    words = "INSERT INTO golden (day, artifact, ok, delta) VALUES (?, ?, ?, ?)"
    return words, (row.day, row.artifact, int(row.ok), row.delta)


def open_store(path: Path, *, make: bool = False) -> MonitorStore:
    """Open a store. make: where there is none yet, to add to it.

    Every page of a store that is read from is looked at. Who adds a row does not wait for that, which takes longer the
    larger it is: SQLite refuses a file that is cut short, and a page that is none when it meets it.

    Raises:
        OctcError: E107 there is none, E712 it is no store or damaged, E904, E906 or E109 it cannot be written.
    """
    if not make and not path.is_file():
        raise OctcError("OCT-E107", f"no store at {path}", hint="octc predict --monitor FILE makes one", place=str(path))
    connection = None
    try:
        with _speaking(path):
            connection = sqlite3.connect(path, timeout=WAIT, check_same_thread=False)
            if (strange := _tables(connection)) and not set(KEPT) <= strange:  # before anything of it is changed
                raise sqlite3.DatabaseError("no store of octc")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # a row that was written is there after a power loss
            if make:
                _lay_out(connection)
            if not set(KEPT) <= _tables(connection):
                raise sqlite3.DatabaseError("no store of octc")
            found = connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
            if found is None or found[0] != VERSION:
                raise sqlite3.DatabaseError("not a store of this version")
            if not make and connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("not whole")
            return MonitorStore(path, connection)
    except BaseException:
        if connection is not None:
            connection.close()
        raise


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _lay_out(connection: sqlite3.Connection) -> None:
    """Tables and the triggers that let them only grow, where there is nothing yet."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            for words in filter(str.strip, TABLES.split(";")):
                connection.execute(words)
            for table in KEPT:
                for event in ("UPDATE", "DELETE"):
                    connection.execute(
                        f"CREATE TRIGGER {table}_{event.lower()} BEFORE {event} ON {table} "
                        "BEGIN SELECT RAISE(ABORT, 'rows are only added'); END"
                    )
            facts = [("version", VERSION), ("secret", secrets.token_hex(32))]
            connection.executemany("INSERT INTO meta (name, value) VALUES (?, ?)", facts)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def _too_long(path: Path) -> OctcError | None:
    """E904 where the files of the store are as long as this process may write (ulimit -f): SQLite says that the disk does not
    work."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if most == resource.RLIM_INFINITY:
        return None
    files = [path, *(path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal"))]
    longest = max((file.stat().st_size for file in files if file.is_file()), default=0)
    return fault_of(OSError(errno.EFBIG, os.strerror(errno.EFBIG)), path) if longest + ROOM > most else None


@contextmanager
def _speaking(path: Path) -> Iterator[None]:
    """What SQLite raises, as errors with a hint."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        if (fault := full(path.parent) or _too_long(path) or fault_of(error, path) or read_only(path.parent)) is not None:
            raise OctcError(fault.code, fault.message, hint=fault.hint, place=str(path)) from error
        hint = "look at the folder, its space and its permissions; or name another file"
        raise OctcError("OCT-E109", f"the monitor's store cannot be used: {error}", hint=hint, place=str(path)) from error
    except (sqlite3.DatabaseError, ValueError) as error:
        hint = "keep it for whoever looks into it, and begin a new one: another --monitor FILE"
        raise OctcError("OCT-E712", f"the monitor's store is damaged: {error}", hint=hint, place=str(path)) from error
