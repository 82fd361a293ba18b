"""Watches a folder for new files; each is processed once, when it is complete and no longer written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from octc.core.errors import OctcError
from octc.core.faults import fault_of
from octc.core.files import write_bytes
from octc.serve.logs import LOG

QUIET = 2.0  # seconds that size and modification time of a file must be unchanged
PATIENCE = 600.0  # seconds to wait for an unchanged but truncated file, in case a slow copy continues
HIDDEN = (".", "~")
UNFINISHED = (".part", ".partial", ".tmp", ".filepart", ".crdownload", ".swp")
REFUSED = ".refused"
CUT = ("OCT-E201", "OCT-E220", "OCT-E226")
CHANGED = "OCT-E239"
HEADER = 132  # bytes of a DICOM object until it says that it is one; the first 128 are zeros
Facts = tuple[int, int]  # bytes, time of the last change


@dataclass
class Watch:
    """Watches the files of a folder and its subfolders.

    Attributes:
        take: function that stores a file safely; the file is then removed. If it raises OctcError, the file is moved to
            `FOLDER/.refused` with the reason in a file beside it.
        seen: size and modification time of files, and since when they are unchanged.
        away: why the folder cannot be looked into at the moment, None while it can. closed: how many folders below it cannot.
    """

    folder: Path
    take: Callable[[Path], None]
    seen: dict[Path, tuple[Facts, float]] = field(default_factory=dict)
    away: str | None = None
    closed: int = 0
    _mount: Path = field(init=False)

    def __post_init__(self) -> None:
        self._mount = _mount_of(self.folder)

    def look(self, now: float) -> int:
        """Process the files that are ready; returns their number. now: seconds on a monotonic clock."""
        self.away = self._why_away()
        if self.away is not None:
            self.seen = {}  # what is there when it comes back may be half of what was copied
            return 0
        there = self._files()
        self.seen = {path: known for path, known in self.seen.items() if path in there}
        taken = 0
        for path, facts in there.items():
            known, since = self.seen.get(path, (None, now))
            if known != facts:
                self.seen[path] = (facts, now)
            elif now - since >= QUIET:
                try:
                    taken += self._taken(path, facts, now - since)
                except OSError as error:
                    if fault_of(error) is not None:
                        raise
                    self.seen[path] = (facts, now + PATIENCE)  # affects this file only, for example if it cannot be removed
                    LOG.error("watch: %s, a file is left where it is", type(error).__name__)
        return taken

    def _why_away(self) -> str | None:
        """Why the folder is not there, or not the one that was watched: without its file system a mount point is empty."""
        try:
            with os.scandir(self.folder) as entries:
                next(entries, None)
            mount = _mount_of(self.folder)
        except OSError as error:
            return error.strerror or type(error).__name__
        if mount != self._mount and self._mount.is_relative_to(mount):
            return "its file system is not mounted"
        self._mount = mount  # a file system that was mounted since counts from now on
        return None

    def _files(self) -> dict[Path, Facts]:
        """Candidate files: no links, no hidden files, no names of unfinished copies."""
        found, closed = {}, list[OSError]()
        for place, folders, names in os.walk(self.folder, onerror=closed.append, followlinks=False):
            folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN))
            for name in sorted(names):
                path = Path(place) / name
                if name.startswith(HIDDEN) or path.suffix.lower() in UNFINISHED:
                    continue
                with contextlib.suppress(OSError):
                    if path.is_file() and not path.is_symlink():
                        found[path] = facts_of(path)
        if closed and len(closed) != self.closed:
            LOG.warning("watch: %d folders below the watched one cannot be looked into: %s", len(closed), closed[0].strerror)
        self.closed = len(closed)
        return found

    def _taken(self, path: Path, facts: Facts, quiet: float) -> int:
        try:
            self.take(path)
        except FileNotFoundError:
            return 0  # it was removed meanwhile
        except OctcError as error:
            begun = error.code in CUT or _has_only_begun(path, facts[0])
            if error.exit_code == 4 or error.code == CHANGED or (begun and quiet < PATIENCE):
                return 0  # a problem of the machine, or an unfinished copy: retry later
            self._refuse(path, error)
            return 0
        with contextlib.suppress(FileNotFoundError):
            if facts_of(path) == facts:  # else it was replaced meanwhile by another file
                path.unlink()
        return 1

    def _refuse(self, path: Path, error: OctcError) -> None:
        folder = self.folder / REFUSED
        folder.mkdir(exist_ok=True)
        name, number = path.name, 1
        while (folder / name).exists():
            name, number = f"{path.stem}-{number}{path.suffix}", number + 1
        write_bytes(folder / f"{name}.txt", f"{error.code}: {error.message}\n{error.hint}\n".encode(errors="replace"))
        with contextlib.suppress(FileNotFoundError):
            path.rename(folder / name)


def _mount_of(folder: Path) -> Path:
    """The place where the file system of a folder is mounted."""
    place = folder.resolve()
    return next((one for one in (place, *place.parents) if one.is_mount()), place)


def _has_only_begun(path: Path, size: int) -> bool:
    """Whether a file is empty, or zeros that may become the beginning of an object: nobody can say yet what it will be."""
    with contextlib.suppress(OSError):
        return size < HEADER and not any(path.read_bytes()[:HEADER])
    return True


def facts_of(path: Path) -> Facts:
    """Size and time of the last change, in ns."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns
