"""Faults of the machine, in one table: full disks, read-only file systems, no temporary folder, limits, memory.

Libraries say it in many ways: an errno, a class, or a sentence in an exception of their own (engines, Rust, the loader of
shared libraries). Whoever turns an exception into an error about a file asks `fault_of` first: no file is blamed for it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError

NO_MEMORY = "memory is exhausted"
NOTHING = 128 << 10  # bytes: a disk with less is full, whatever is said of it
LITTLE = 16 << 20  # bytes: a disk with less is named as one that is full


@dataclass(frozen=True)
class Fault:
    """errors: names of errno. texts: what libraries say of it (a regular expression). disk: a folder with room resolves it."""

    code: str
    what: str
    hint: str
    errors: tuple[str, ...] = ()
    texts: str = r"(?!)"
    disk: bool = False


FAULTS = (
    Fault(
        "OCT-E906", "no usable temporary folder", "make a folder that you may write to: mkdir -p ~/tmp && export TMPDIR=~/tmp",
        texts=r"No usable temporary directory",
    ),
    Fault(
        "OCT-E904", NO_MEMORY, "close other programs, raise the limit (ulimit -v), or use a smaller batch",
        errors=("ENOMEM",),
        texts=r"bad_alloc|bad allocation|allocate memory(?! in static TLS)|alloc(ate|ation)? .{0,40}(failed|bytes)"
        r"|failed to map segment|[Oo]ut of memory|OutOfMemory|out_of_memory|[Nn]ot enough memory|\(os error 12\)|MemoryError"
        r"|_ALLOC_FAILED",
    ),
    Fault(
        "OCT-E904", "no space left on the disk", "free some space, or give a folder on another disk: --run-dir DIR, TMPDIR=DIR",
        errors=("ENOSPC",), texts=r"No space left on device|\(os error 28\)|database or disk is full", disk=True,
    ),
    Fault(
        "OCT-E904", "the quota of this user is used up", "free some space, or give another disk: --run-dir DIR, TMPDIR=DIR",
        errors=("EDQUOT",), texts=r"[Qq]uota exceeded|\(os error 122\)", disk=True,
    ),
    Fault(
        "OCT-E904", "a file would be larger than this process may write", "raise the limit: ulimit -f unlimited",
        errors=("EFBIG",), texts=r"File too large|\(os error 27\)",
    ),
    Fault(
        "OCT-E906", "the file system is read-only", "give folders that can be written: --run-dir DIR, TMPDIR=DIR",
        errors=("EROFS",), texts=r"Read-only file system|\(os error 30\)",
    ),
    Fault(
        "OCT-E906", "the file system has no locks, so nobody can see whether another process works there",
        "name a folder on a local disk, or have it mounted with locks (NFS: without nolock)",
        errors=("ENOLCK",), texts=r"No locks available|\(os error 37\)",
    ),
    Fault(
        "OCT-E906", "too many open files", "raise the limit: ulimit -n 4096",
        errors=("EMFILE", "ENFILE"), texts=r"Too many open files|\(os error 24\)",
    ),
    Fault(
        "OCT-E906", "too many processes or threads", "close other programs, or raise the limit: ulimit -u",
        texts=r"can't start new thread|pthread_create|Resource temporarily unavailable|\(os error 11\)",
    ),
    Fault(
        "OCT-E906", "the disk does not read or write", "look at the system's log (dmesg), and copy the files to another disk",
        errors=("EIO", "ESTALE", "EREMOTEIO"), texts=r"Input/output error|Stale file handle|\(os error 5\)|disk I/O error",
    ),
)  # fmt: skip
BY_ERRNO = {getattr(errno, name): fault for fault in FAULTS for name in fault.errors if hasattr(errno, name)}


def fault_of(error: BaseException | None, place: str | Path | None = None) -> OctcError | None:
    """The error about the machine, if an exception or one of its causes is about disk, memory or limits; else None.

    Args:
        error: any exception. An OctcError is looked through to what it was raised from; one that ends with 4 stays what it is.
        place: file or folder that is named where the exception names none.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OctcError) and error.exit_code == 4:
            return None
        fault = _fault(error)
        if fault is not None:
            return _told(fault, error, place)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def may_be_of_one_file(error: BaseException) -> bool:
    """Whether a fault of the disk (EIO) may be of the one file that is read: the others are read all the same."""
    return isinstance(error, OSError) and error.errno == errno.EIO


def of_machine(error: BaseException) -> OctcError | None:
    """`fault_of`, also where an error says itself that disk, memory or a limit is at fault: it is about no file and no network,
    and nothing may be concluded from it."""
    if isinstance(error, OctcError) and error.code in {fault.code for fault in FAULTS}:
        return error
    return fault_of(error)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one of its causes, says that memory is exhausted: of this machine, or of its GPU."""
    told = error if isinstance(error, OctcError) and error.exit_code == 4 else fault_of(error)
    return told is not None and (told.code == "OCT-E302" or told.message == NO_MEMORY)


def _fault(error: BaseException) -> Fault | None:
    if isinstance(error, MemoryError):
        return next(fault for fault in FAULTS if "ENOMEM" in fault.errors)
    if isinstance(error, OSError) and error.errno in BY_ERRNO:
        return BY_ERRNO[error.errno]
    if isinstance(error, (OctcError, KeyError)):
        return None
    named = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno is not None:  # the name of a file is no sentence of the system
        named = str(error.strerror)
    return next((fault for fault in FAULTS if re.search(fault.texts, named)), None)


def _told(fault: Fault, error: BaseException, place: str | Path | None) -> OctcError:
    named = getattr(error, "filename", None) or getattr(error, "filename2", None)
    where = place if named is None else os.fsdecode(named)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = next((line for line in lines if re.search(fault.texts, line)), lines[0] if lines else None)
    why = telling[:300] if telling is not None and not isinstance(error, OSError) else None
    if fault.disk and where is None:
        where = next(iter(_full()), None)
    if fault.texts.startswith("No usable"):
        why = f"tried: TMPDIR={os.environ['TMPDIR']}, then /tmp, /var/tmp, ." if os.environ.get("TMPDIR") else None
    return OctcError(fault.code, fault.what, hint=fault.hint, place=None if where is None else str(where), why=why)


def read_only(folder: Path) -> OctcError | None:
    """E906 where a folder lies on a file system that is mounted read-only, as root finds out by writing alone; else None."""
    try:
        mounted = bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError as error:
        return fault_of(error, folder)
    return fault_of(OSError(errno.EROFS, os.strerror(errno.EROFS)), folder) if mounted else None


def full(folder: Path) -> OctcError | None:
    """E904 where the file system of a folder has no room, of which some libraries say that the disk does not work."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return fault_of(error, folder)
    return fault_of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), folder) if free < NOTHING else None


def _full() -> Iterator[str]:
    """Folders that octc writes to and that have no room, as they are now."""
    for place in (".", os.environ.get("TMPDIR") or tempfile.tempdir or "/tmp"):
        try:
            if shutil.disk_usage(place).free < LITTLE:
                yield str(Path(place).resolve())
        except OSError:
            continue


@contextmanager
def filling(folder: Path) -> Iterator[None]:
    """What a library raises that writes into a folder is about its disk, where that has no room: some say it in words that
    are about the file ("Protobuf serialization failed")."""
    try:
        yield
    except Exception as error:
        if (fault := full(folder)) is not None:
            raise fault from error
        raise


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """An OSError that names no file (a write to a full disk, for example) is about `path`.

    Args:
        temporary: a file or folder that takes the name of `path` when it is whole, and is gone when the error is read: what
            names it, or something in it, names that of `path`.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        elif temporary is not None and error.filename is not None:
            error.filename = _final(error.filename, path, temporary)
        raise
    except OctcError as error:
        if temporary is not None and error.place is not None:
            error.place = _final(error.place, path, temporary)
        raise


def _final(named: Any, path: Path, temporary: Path) -> Any:
    """A place in `temporary` as it will be called; any other as it is."""
    try:
        inside = Path(os.fsdecode(named)).relative_to(temporary)
    except (TypeError, ValueError):  # a handle of an open file, for example
        return named
    return str(path / inside)


@contextmanager
def writing_to(place: str | Path) -> Iterator[None]:
    """Turn failures to write a place into errors with a hint: a fault of the machine, else E109."""
    try:
        yield
    except OSError as error:
        if (fault := fault_of(error, place)) is not None:
            raise fault from error
        text = f"{place} cannot be written: {error.strerror}"
        raise OctcError("OCT-E109", text, hint="make the folder writable, or name another one", place=str(place)) from error


def error_json(error: Exception) -> dict[str, Any]:
    """An exception as JSON for another process."""
    if (fault := fault_of(error)) is not None:
        error = fault
    if not isinstance(error, OctcError):
        text = f"internal error: {type(error).__name__}: {error}"[:300]
        error = OctcError("OCT-E999", text, hint="report this")
    return {"code": error.code, "message": error.message, "hint": error.hint, "place": error.place, "why": error.why}


def error_of(value: Mapping[str, Any]) -> OctcError:
    """The exception from `error_json`."""
    return OctcError(value["code"], value["message"], hint=value["hint"], place=value["place"], why=value["why"])
