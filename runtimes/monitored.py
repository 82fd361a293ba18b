"""Predictions on their way into a monitor's store: a sketch of each eye, or of each picture that is none of a volume."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path

from octc.core.clock import utc_now
from octc.core.errors import OctcError
from octc.core.files import sha256_bytes, sha256_file
from octc.imaging.input_statistics import ORDER, STATISTICS
from octc.runtimes.predict import Record
from octc.stats.reference_sketch import OWN, rounded
from octc.store.artifacts import Artifact
from octc.store.find import Found
from octc.store.monitor_store import MonitorStore, Seen

PICTURE = (*STATISTICS, *ORDER)
STREAMS = (*PICTURE, *OWN)
AT_ONCE = 64  # rows of one transaction


class Watcher:
    """Adds records of an artifact to a store; rows wait until there are some, or `flush`."""

    def __init__(self, store: MonitorStore, artifact: Artifact, digest: str) -> None:
        self.store, self.artifact, self.digest = store, artifact, digest
        self._waiting: list[Seen] = []
        self._scans: list[Record] = []

    def add(self, record: Record, content: str | None = None) -> None:
        """A record; of B-scans the one of their eye, which comes behind them. content: digest of the file, if known."""
        if record.scan is not None:
            self._scans.append(record)
            return
        inside, self._scans = self._scans if record.eye is not None else [], []
        if record.eye is None and _is_machine(record.error):
            return
        digest = content or content_of(record.path)
        if digest is not None:
            self._waiting.append(self._row(record, inside, digest))
        if len(self._waiting) >= AT_ONCE:
            self.flush()

    def _row(self, record: Record, scans: list[Record], content: str) -> Seen:
        likeness = scans[len(scans) // 2].likeness if scans else record.likeness
        values = dict(zip(PICTURE, likeness.values, strict=False)) if likeness is not None else {}
        unread = record.probabilities is None or record.error is not None
        label = None if record.label is None else self.artifact.classes[record.label]
        sketch = {
            **{name: rounded(value) for name, value in values.items()},
            "distance": None if likeness is None else rounded(likeness.distance),
            "confidence": rounded(record.confidence),
            "label": None if record.label is None else float(record.label),
            "unread": float(unread),
        }
        key = picture_key(self.store, content, None if record.eye is None else record.eye.laterality)
        return Seen(today(), self.digest, key, label, rounded(record.confidence), sketch)

    def flush(self) -> None:
        """Write what waits (E109 where that cannot be done)."""
        rows, self._waiting = self._waiting, []
        if rows:
            self.store.add(rows)


def watched(records: Iterable[Record], found: Found, store: MonitorStore) -> Generator[Record, None, None]:
    """The same records, each added to a store; what was added stays added where the records end early."""
    watcher = Watcher(store, found.artifact, found.artifact.sha256)
    try:
        for record in records:
            watcher.add(record)
            yield record
    finally:
        watcher.flush()


def today() -> str:
    """The day, UTC; no time of day: it could tell who was there."""
    return utc_now()[:10]


def picture_key(store: MonitorStore, content: str, eye: str | None) -> str:
    """By what a store knows a picture, or an eye of a volume. eye: "R", "L", or None where it is none or not known."""
    return store.key_of(f"{content}:{eye or ''}")


def _is_machine(error: OctcError | None) -> bool:
    return error is not None and error.exit_code == 4


def content_of(path: Path) -> str | None:
    """The digest of a file; of what is no file its name's, so that a volume of several counts once; None where it is gone."""
    place = Path(str(path).split("#", maxsplit=1)[0])
    try:
        return sha256_file(place) if place.is_file() else sha256_bytes(str(path).encode(errors="surrogatepass"))
    except OSError:
        return None
