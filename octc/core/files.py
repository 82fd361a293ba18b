"""Atomic files and folders (temporary name, flush, fsync, rename), checksums, strict JSON."""

from __future__ import annotations

import codecs
import ctypes
import errno
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from octc.core.errors import OctcError
from octc.core.faults import naming
from octc.core.locks import lock

T = TypeVar("T")
MOST_JSON = 256 << 20  # bytes
MOST_DEPTH = 64  # objects and lists in one another
TEMPORARY = ".tmp-"  # what is half-written begins so, and every scan passes it over
WRITER = re.compile(rf"{re.escape(TEMPORARY)}(\d+)-")
OLD = re.compile(rf"{re.escape(TEMPORARY)}\d+-old-(.+)")
COUNTED = re.compile(r"[0-9a-f]{8,}|\d+")  # what differs between names of one kind: numbers, times, digests
QUIET = 3600.0  # seconds without a change, after which a process of another container or machine is not there either
EXCHANGE, HERE = 2, -100  # RENAME_EXCHANGE, AT_FDCWD of renameat2(2)


def entries(folder: Path) -> list[Path]:
    """The entries of a folder, sorted by name; [] if there is no such folder.

    Raises:
        OctcError: E231 the system does not let it be read: what lies there would seem to be missing.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise closed_folder(folder, error.strerror) from error


def closed_folder(folder: str | Path, why: str | None) -> OctcError:
    """E231: a folder that cannot be read. why: what the system said."""
    text = f"folder {folder} cannot be read, so nobody knows what is in it: {why}"
    hint = f"chmod -R u+rX {shlex.quote(str(folder))}   (or have its owner do it), or move it elsewhere"
    return OctcError("OCT-E231", text, hint=hint, place=str(folder))


def stamped(folder: Path, word: str) -> Path:
    """folder/WORD-<time, UTC>, with a number behind it where that is taken: a name that nothing has yet."""
    stem = time.strftime(f"{word}-%Y%m%d-%H%M%S", time.gmtime())
    names = (folder / (f"{stem}-{number}" if number else stem) for number in range(1000))
    return next(path for path in names if not path.exists())


def at_free_name(free: Callable[[], Path], write: Callable[[Path], T]) -> tuple[Path, T]:
    """Write to a name that is free, and to the next one where another process takes it meanwhile (E106 of `publishing`).

    Args:
        free: a name that nothing has yet, `stamped` for example. write: makes what it is given.

    Returns: the name, and what `write` gave.
    """
    while True:
        path = free()
        try:
            return path, write(path)
        except OctcError as error:
            if error.code != "OCT-E106" or not os.path.lexists(path):
                raise


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes, as hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, as hex; read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """The canonical JSON bytes of a value, for digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(
        errors="surrogatepass"
    )


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def started(pid: int) -> str | None:
    """When a process was started (Linux, in ticks since boot), so that a reused PID is not taken for it; None: none there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


def remove_leftovers(folder: Path) -> list[str]:
    """Remove what killed processes left half-written anywhere in a folder that the caller owns; the names of what is gone.

    `.tmp-PID-NAME` goes when process PID is not there (or was started after it) and nobody holds its lock; names without a PID
    (`.tmp-export-...`) are made by owners alone, and go. A folder that was moved aside for its new version, which never came,
    takes its name again.
    """
    gone = []
    for place, folders, files in os.walk(folder):
        for name in [name for name in (*folders, *files) if name.startswith(TEMPORARY)]:
            path = Path(place) / name
            if name in folders:
                folders.remove(name)
            if not _in_use(path):
                _take_away(path)
                gone.append(name)
    return gone


def _take_away(path: Path) -> None:
    """Remove what a killed process left; a folder that it moved aside takes its name again, where nothing has that."""
    old = OLD.match(path.name)
    if old is not None and path.is_dir() and not (path.parent / old[1]).exists():
        path.rename(path.parent / old[1])
    else:
        _remove(path)


def _remove(path: Path) -> None:
    """Remove a file, a link (not what it names) or a folder, where it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


_cleared: set[tuple[Path, str]] = set()  # by this process


def _clear_before(path: Path) -> None:
    """Remove what killed processes left beside `path` when they wrote it, or another of its kind (`COUNTED`): once a process.

    The folder may be anybody's: names of other kinds stay, and so does what was written to within `QUIET`.
    """
    kind = "[0-9a-f]+".join(map(re.escape, COUNTED.split(path.name)))
    if (path.parent, kind) in _cleared:
        return
    _cleared.add((path.parent, kind))
    alike = re.compile(rf"{WRITER.pattern}(?:old-)?{kind}")
    with suppress(OSError), os.scandir(path.parent) as found:
        for name in [one.name for one in found if alike.fullmatch(one.name)]:
            left = path.parent / name
            with suppress(OSError):
                if time.time() - left.lstat().st_mtime > QUIET and not _in_use(left):
                    _take_away(left)


def _in_use(path: Path) -> bool:
    """Whether the process that a temporary name tells is still there and may have made it, or anybody holds its lock."""
    found = WRITER.match(path.name)
    if found is None:
        return False
    ticks = started(int(found[1]))
    try:
        written = path.lstat().st_mtime
    except FileNotFoundError:  # its writer has just ended: it has its own name by now
        return True
    if ticks is not None and _boot() + int(ticks) / os.sysconf("SC_CLK_TCK") <= written + 2:
        return True
    if ticks is not None and _may_have_open(int(found[1]), path):  # a clock that was set on makes its start seem later
        return True
    handle = None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        return lock(handle) is False  # where the file system has no locks the process decides
    except OSError:
        return False
    finally:
        if handle is not None:
            os.close(handle)


def _may_have_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open, or what it has open cannot be seen."""
    try:
        handles = list(Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True
    for handle in handles:
        with suppress(OSError):  # closed meanwhile, or another kind of thing
            if handle.samefile(path):
                return True
    return False


def _boot() -> float:
    """When this machine was started, in seconds since 1970."""
    lines = Path("/proc/stat").read_text().splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith("btime")), 0.0)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder that is being written, which ends with the process; where there are no locks, none."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle)
        yield
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed onto `path`, else removed.

    Raises:
        OctcError: OCT-E109 `path` is no file but a device, a pipe or a socket (/dev/null of a container's root, for example).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _may_be_replaced(path):
        text = f"{path} is a device, a pipe or a socket, and a file would take its place"
        raise OctcError("OCT-E109", text, hint="name a file", place=str(path))
    _clear_before(path)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with naming(path, temporary):
            yield temporary
        handle = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _may_be_replaced(path: Path) -> bool:
    """Whether a path is free or names a file, itself or by a link; of a folder the rename says that it is none."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def append_whole(handle: int, data: bytes) -> None:
    """Write at the end of an open file all of `data` or, where that fails, nothing: write(2) may write a part (a full disk).

    Raises:
        OSError: it cannot be written; the file is as long as it was.
    """
    end, at = os.fstat(handle).st_size, 0
    try:
        while at < len(data):
            at += os.pwrite(handle, data[at:], end + at)
    except OSError:
        with suppress(OSError):
            os.ftruncate(handle, end)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and Infinity are refused (ValueError), missing is null."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(
        path, text.encode(errors="surrogatepass")
    )  # file names may hold bytes that are not UTF-8; parse_json takes them


def parse_json(data: bytes | str, most: int = MOST_JSON) -> Any:
    """The one reader of JSON: UTF-8 (a byte order mark is passed over), every key once, finite numbers.

    A second key of one name would win over the first without a word: another order of classes is another diagnosis.

    Args:
        most: bytes (characters of a text) that are taken at most.

    Raises:
        ValueError: not such JSON, larger than `most`, or nested more than MOST_DEPTH deep. The caller makes an error of its
            own area of it.
    """
    if len(data) > most:
        raise ValueError(f"{len(data)} bytes of JSON, the limit is {most}")
    if isinstance(data, bytes | bytearray):
        if not json.detect_encoding(data).startswith("utf-8"):
            raise ValueError("JSON that is not UTF-8")
        data = data.removeprefix(codecs.BOM_UTF8).decode(errors="surrogatepass")
    try:
        value = json.loads(data, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)
    except RecursionError as error:
        raise ValueError(f"JSON that is nested more than {MOST_DEPTH} deep") from error
    level = [value]
    for _ in range(MOST_DEPTH):
        inner = (child for node in level for child in _children(node))
        level = [child for child in inner if isinstance(child, dict | list)]
        if not level:
            return value
    raise ValueError(f"JSON that is nested more than {MOST_DEPTH} deep")


def _children(node: Any) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"a key that stands twice: {', '.join(repr(name[:100]) for name in twice[:3])}")
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} where JSON has a number or null")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:30]} is too large")
    return value


def finite(value: Any) -> Any:
    """A value as plain JSON: numbers that are not finite become null, paths text, arrays lists."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [finite(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return finite(value.tolist())
    return str(value)


def read_json(path: Path, most: int = MOST_JSON) -> Any:
    """Read a JSON file, as strictly as `parse_json`. The caller turns ValueError into an error of its own area."""
    if (size := path.stat().st_size) > most:
        raise ValueError(f"{size} bytes of JSON, the limit is {most}")
    return parse_json(path.read_bytes(), most)


def _exists(folder: Path) -> OctcError:
    return OctcError("OCT-E106", f"output exists: {folder}", hint="another name, or --force", place=str(folder))


def refuse_mount(folder: Path) -> None:
    """E109 for a folder where a disk is mounted (a volume of a container): it has that name as long as it is."""
    if os.path.ismount(folder):
        raise _mounted(folder)


def _mounted(folder: Path) -> OctcError:
    text = f"a disk is mounted at {folder}, so no other folder can take its place in one step"
    return OctcError("OCT-E109", text, hint=f"name a new folder in it: {folder / 'octc'}", place=str(folder))


@contextmanager
def publishing(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; on success it takes its name in one step, else it is removed.

    Raises:
        OctcError: OCT-E106 when `folder` exists without `force`, also where another process made it meanwhile. With `force` the
            old folder stays until the swap. OCT-E109 a disk is mounted there: another folder cannot take its name.
    """
    refuse_mount(folder)
    if os.path.lexists(folder) and not force:
        raise _exists(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_before(folder)
    temporary = folder.with_name(f"{TEMPORARY}{os.getpid()}-{folder.name}")
    old = folder.with_name(f"{TEMPORARY}{os.getpid()}-old-{folder.name}")
    _remove(temporary)
    temporary.mkdir()
    try:
        with naming(folder, temporary), _locked(temporary):
            yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
        if os.path.lexists(folder) and not force:
            raise _exists(folder)
        if not (os.path.lexists(folder) and _exchanged(temporary, folder)):
            try:
                if os.path.lexists(folder):
                    folder.rename(old)
                temporary.rename(folder)
            except OSError as error:
                if error.errno in (errno.EBUSY, errno.EXDEV):  # a part of this very disk, mounted there
                    raise _mounted(folder) from error
                raise
        sync_folder(folder.parent)
        _remove(old)
    finally:
        if os.path.lexists(old) and not os.path.lexists(folder):
            old.rename(folder)
        _remove(temporary)


def _exchanged(one: Path, other: Path) -> bool:
    """Two names for one another in one step, so that a killed process leaves the old folder or the new one; False where the
    system, or this file system, cannot."""
    try:
        call = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    return bool(call(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0)
