"""Temporary folders, in one place: gone when their work is done, and, where their process was killed, when octc needs the next.

A folder is locked (flock(2)) as long as its process holds it, and a lock ends with its process: what has the name and the
owner of such a folder, and no lock, was left. Where the file system has no locks nobody can see that, and nothing is removed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from octc.core.locks import lock

NAME = "octc-tmp-"  # begins the name of every folder; what follows is what it is for, and what mkdtemp(3) adds
OURS = re.compile(rf"\.?{NAME}[a-z]+-[a-z0-9_]{{8}}")


@contextmanager
def scratch(what: str, place: str | Path | None = None, *, hidden: bool = False) -> Iterator[Path]:
    """A temporary folder that only this user can read. Those of processes that were killed are removed first.

    Args:
        what: it is for, a word of small letters, as part of the name.
        place: where it lies; None: the temporary folder (TMPDIR).
        hidden: the name begins with a dot, so that scans of `place` pass it over.

    Raises:
        OSError: `place` cannot be written, or there is no temporary folder (`octc.core.faults` knows them).
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{'.' * hidden}{NAME}{what}-", dir=place))
        try:  # somebody else may see it before it is locked, and take it for one that was left
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        lock(handle, wait=True)
        if _is_at(folder, handle):
            break
        os.close(handle)
    try:
        remove_left(folder.parent)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def remove_left(place: Path) -> list[str]:
    """Remove this user's temporary folders of octc in `place` that no process holds; their names."""
    gone = []
    with suppress(OSError), os.scandir(place) as found:
        for name in [one.name for one in found if OURS.fullmatch(one.name)]:
            with suppress(OSError):
                if _removed(place / name):
                    gone.append(name)
    return gone


def _removed(folder: Path) -> bool:
    handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        facts = os.fstat(handle)
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o777 != stat.S_IRWXU:
            return False
        if not lock(handle):
            return False
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()
    finally:
        os.close(handle)


def _is_at(folder: Path, handle: int) -> bool:
    """Whether an open folder is the one at a path."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(handle))
    except OSError:
        return False
