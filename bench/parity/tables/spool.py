"""What a comparison of large tables keeps outside of memory: temporary files without a name, gone when the process is."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import IO

from octc.core.faults import fault_of, writing_to

HELD = 8 << 20  # bytes that are kept in memory before a file is made


class Spool:
    """Bytes that are written one after another, and read once all are: in memory while they are few, else in a file.

    The file lies in the temporary folder (TMPDIR) and has no name there, so that nothing is left of it however a process ends.

    Raises:
        OctcError: E904 the disk is full, E906 there is no temporary folder, from `write` and from the first reading.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._file: IO[bytes] | None = None
        self._map: mmap.mmap | None = None

    def write(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > HELD:
            self._flush()

    def _flush(self) -> None:
        place = _folder()
        with writing_to(place):
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115  (`close` closes it)
            self._file.write(self._held)
            self._file.flush()
        self._held = bytearray()

    def read(self, start: int, count: int) -> bytes:
        """Some of the bytes."""
        if self._file is None:
            return bytes(self._held[start : start + count])
        if self._held:
            self._flush()
        self._file.seek(start)
        return self._file.read(count)

    def view(self) -> bytearray | mmap.mmap:
        """All bytes, to be read anywhere; those of a file are mapped."""
        if self._file is None:
            return self._held
        if self._held:
            self._flush()
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
        if self._file is not None:
            with suppress(OSError):  # of a full disk: what could not be written is tried again, and is not wanted any more
                self._file.close()
        self._held = bytearray()


def _folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError as error:
        raise fault_of(error) or error from error


@contextmanager
def workspace() -> Iterator[Callable[[], Spool]]:
    """What makes spools; all of them are closed at the end."""
    with ExitStack() as kept:
        yield lambda: kept.enter_context(closing(Spool()))
