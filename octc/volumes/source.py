"""A file as its readers see it: bounded reads at stated places, and one error for one that ends too early."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError

MAX_READ = 512 << 20  # bytes at once: one B-scan of 64 megapixels of float32, and some
NOT_THERE = (errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR)  # links in a circle, names that can be none
EPOCH = datetime(1601, 1, 1)


class Source:
    """A file and its size; every read opens it anew, so that threads can read one volume at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size

    def take(self, offset: int, count: int) -> bytes:
        """Exactly so many bytes. Raises: OctcError E226 where the file ends before, E222 where a length cannot be."""
        if offset < 0 or count < 0 or count > MAX_READ:
            raise corrupt(self.path, f"a length of {count} bytes at {offset} cannot be")
        if offset + count > self.size:
            raise cut_short(self.path, f"byte {offset + count} is needed, the file has {self.size}")
        with self.path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(count)
        if len(data) != count:
            raise cut_short(self.path, f"byte {offset + count} is needed, the file has {self.size}")
        return data

    def head(self, count: int) -> bytes:
        """The first bytes, as many as there are."""
        return self.take(0, min(count, self.size))

    def numbers(self, layout: str, offset: int) -> tuple[Any, ...]:
        """Numbers of a `struct` layout."""
        return struct.unpack(layout, self.take(offset, struct.calcsize(layout)))

    def array(self, kind: str, offset: int, shape: tuple[int, int]) -> npt.NDArray[Any]:
        """An image of numbers: [rows, columns]."""
        count = shape[0] * shape[1] * np.dtype(kind).itemsize
        return np.frombuffer(self.take(offset, count), np.dtype(kind)).reshape(shape)


def stored_at(
    source: Source, kind: str, places: Sequence[int], shape: tuple[int, int], turn: Callable[[Any], Any] | None = None
) -> Callable[[int], npt.NDArray[Any]]:
    """Reads B-scan k, `shape` numbers of a kind at places[k]; turn: how it is set upright."""
    return partial(_stored, source, kind, tuple(places), shape, turn)


def _stored(
    source: Source,
    kind: str,
    places: Sequence[int],
    shape: tuple[int, int],
    turn: Callable[[Any], Any] | None,
    index: int,
) -> npt.NDArray[Any]:
    found = source.array(kind, places[index], shape)
    return found if turn is None else turn(found)


def unsupported(path: Path, what: str, hint: str = "export it as grey pictures of 8 or 16 bits") -> OctcError:
    """E229: a whole file of a kind that is not read."""
    return OctcError("OCT-E229", f"{path.name} is of a kind that is not read here: {what}", hint=hint, place=str(path))


def corrupt(path: Path, why: str) -> OctcError:
    """E222: what the file says cannot be."""
    text = f"{path.name} is damaged, or of a version that is not known: {why}"
    return OctcError("OCT-E222", text, hint="export it again, as DICOM where the device can", place=str(path))


def cut_short(path: Path, why: str, whole: int | None = None) -> OctcError:
    """E226: the file ends too early. whole: B-scans that are there."""
    hint = "copy or export the file again"
    if whole:
        hint += f"; --allow-cut (allow_cut=True) reads the {whole} B-scans that are whole"
    return OctcError("OCT-E226", f"{path.name} is cut short: {why}", hint=hint, place=str(path))


def text_of(data: bytes) -> str:
    """A zero-terminated text."""
    return data.split(b"\0", 1)[0].decode("latin-1").strip()


def filetime(ticks: int) -> str | None:
    """Windows FILETIME (units of 100 ns from 1601) as ISO 8601; None for what is no date of an OCT."""
    try:
        moment = EPOCH + timedelta(microseconds=ticks // 10)
    except OverflowError:
        return None
    return moment.isoformat(timespec="seconds") if 1990 <= moment.year <= 2200 else None


def moment_of(numbers: tuple[int, ...]) -> str | None:
    """(year, month, day, hour, minute, second) as ISO 8601; None where they are no date."""
    try:
        return datetime(*numbers).isoformat(timespec="seconds")  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a parser raises on altered bytes becomes E222; our own errors and the machine's faults pass."""
    from octc.core.faults import fault_of, may_be_of_one_file

    try:
        yield
    except (OctcError, NameError):
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        hint = "check the path" if not path.is_dir() else "name a file (octc predict takes folders)"
        raise OctcError("OCT-E201", f"cannot be read: {error.strerror}", hint=hint, place=str(path)) from error
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and (may_be_of_one_file(error) or error.errno in NOT_THERE):
            raise OctcError("OCT-E201", f"cannot be read: {error.strerror}", hint="check the path", place=str(path)) from error
        fault = fault_of(error, path)
        if fault is not None:
            raise fault from error
        raise corrupt(path, str(error) or type(error).__name__) from error
    except Exception as error:  # parsers of others raise classes of their own on altered bytes
        raise corrupt(path, f"{type(error).__name__}: {error}"[:200]) from error
