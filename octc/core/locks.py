"""File locks by flock(2): a lock ends with its process. Not every file system has locks."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import IO


def lock(handle: int | IO[bytes] | IO[str], *, shared: bool = False, wait: bool = False) -> bool | None:
    """Lock an open file or folder as long as it is open. False: somebody else has it; None: the file system has no locks."""
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def must_lock(handle: int | IO[bytes] | IO[str], path: Path, *, shared: bool = False, wait: bool = False) -> bool:
    """Like `lock`, for work that two processes must not do at once.

    Raises:
        OSError: ENOLCK, which `octc.core.faults` knows: the file system has no locks.
    """
    if (mine := lock(handle, shared=shared, wait=wait)) is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(path))
    return mine
