"""Who does a piece of work, of several processes that share a folder, on one machine or on several.

A claim is a file that one process has made, and holds locked as long as it lives (flock(2)); its name, its machine and when it
was started stand in it. Whatever ends the process ends its lock, so that another one may go on: on the same machine, as long
as that has not been started again, the process itself is looked for; else the lock decides, where the file system's locks
reach other machines. Where they do not, or nobody knows, the claim of another machine stands until somebody removes the file.
A name is not enough: two machines may have the same one, and after a restart a process may have the number of one before.
Clocks decide nothing.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from octc.core.clock import utc_now
from octc.core.files import append_whole, parse_json, started
from octc.core.locks import lock
from octc.core.progress import silent
from octc.machine.mounts import locks_reach
from octc.schemas.common import convert
from octc.schemas.logs import Owner

T = TypeVar("T")
LONGEST = 4096  # bytes of a claim
LOOKS = 50  # at a claim whose process is gone, while somebody has it locked
BOOT = Path("/proc/sys/kernel/random/boot_id")
PAUSE = (0.02, 1.0)  # seconds between two looks at a claim of somebody else, at first and later


@dataclass(frozen=True)
class Claim:
    """A claim of this process. left: whose it was, where that one ended without giving it back."""

    path: Path
    handle: int
    left: Owner | None = None

    def give_back(self) -> None:
        """Others may take it."""
        if _is_at(self.path, self.handle):
            self.path.unlink(missing_ok=True)
        os.close(self.handle)


def take_claim(path: Path) -> Claim | Owner:
    """A claim, or who has it. OSError: the folder cannot be written."""
    left: Owner | None = None
    while True:
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        except FileExistsError:
            owner, here = _look(path)
            if here:
                return owner
            left = owner if owner.since else left
            continue
        mine = Claim(path, handle, left)
        held = lock(handle, wait=True)
        if not _is_at(path, handle):  # somebody saw it empty, and took it for one that was left
            os.close(handle)
            continue
        me = os.getpid()
        facts = {"pid": me, "host": socket.gethostname(), "since": utc_now(), "start": started(me), "boot": boot()}
        try:
            append_whole(handle, json.dumps({**facts, "held": bool(held) and locks_reach(path.parent)}).encode())
        except OSError:
            mine.give_back()
            raise
        return mine


@contextmanager
def claiming(path: Path) -> Iterator[Claim | Owner]:
    """`take_claim`, given back at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = take_claim(path)
    try:
        yield found
    finally:
        if isinstance(found, Claim):
            found.give_back()


@contextmanager
def waiting_for(path: Path, say: Callable[[str], None] = silent, what: str = "") -> Iterator[Claim]:
    """A claim, as soon as nobody else has it. say: is told once of whom one waits for, with `what` that one does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found, pause = take_claim(path), PAUSE[0]
    if isinstance(found, Owner) and what:
        say(f"  waiting for process {found.pid} on {found.host}: {what}")
    while isinstance(found, Owner):
        time.sleep(pause)
        found, pause = take_claim(path), min(2 * pause, PAUSE[1])
    try:
        yield found
    finally:
        found.give_back()


def divided(
    left: Callable[[], Sequence[T]], claim_of: Callable[[T], Path], waits: Callable[[Sequence[Owner]], None] = lambda _: None
) -> Generator[T, None, None]:
    """Pieces of work, each claimed by this process until it asks for the next one; ends when nothing is left to anybody.

    Args:
        left: the pieces that are not done, as the folder shows it now, in the order in which they are begun. What a piece makes
            has to be there before the next one is asked for.
        claim_of: where a piece is claimed. waits: is told who has what is left, before this process waits for them.
    """
    pause = PAUSE[0]
    while pieces := left():
        others: list[Owner] = []
        done = False
        for piece in pieces:
            with claiming(claim_of(piece)) as claim:
                if isinstance(claim, Owner):
                    others.append(claim)
                elif piece in left():  # nobody has done it meanwhile
                    yield piece
                    done = True
            if done:
                break
        if others and not done:
            waits(others)
        pause = PAUSE[0] if done else min(2 * pause, PAUSE[1])
        if not done:
            time.sleep(pause)


def boot() -> str | None:
    """What names this start of this machine (random(4)); None where the kernel does not say it."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return None


def is_here(owner: Owner) -> bool:
    """Whether a claim is of this machine since it was started, so that its process can be looked for. An older octc did not
    note the start."""
    return owner.host == socket.gethostname() and owner.boot in (None, boot())


def words_of(owner: Owner) -> str:
    """Whose a claim is, for an error."""
    return f"process {owner.pid} on {owner.host} since {owner.since}"


def _look(path: Path) -> tuple[Owner, bool]:
    """Who has a claim, and whether it stands; one that was left is removed. No `since`: there is none any more.

    Whoever removes a claim holds its lock meanwhile, so that of several that find one that was left a single one does.
    """
    owner = Owner(pid=0, host="", since="")
    for _ in range(LOOKS):
        try:
            handle = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return Owner(pid=0, host="", since=""), False
        try:
            free = lock(handle)
            owner = _read(handle)
            if _stands(owner, path, free=bool(free)):
                return owner, True
            if free is not False:
                if _is_at(path, handle):
                    path.unlink(missing_ok=True)
                return owner, False
        finally:
            os.close(handle)
        time.sleep(PAUSE[0])  # its process is gone: somebody else looks at it, or a child of it is still there
    return owner, True


def _stands(owner: Owner, path: Path, *, free: bool) -> bool:
    if is_here(owner):
        return bool(owner.pid and started(owner.pid) is not None and started(owner.pid) == owner.start)
    return not (free and owner.held and locks_reach(path.parent))


def _read(handle: int) -> Owner:
    """What stands in a claim; of one that is damaged, nobody on this machine."""
    try:
        return convert(parse_json(os.pread(handle, LONGEST, 0)), Owner)
    except ValueError:
        return Owner(pid=0, host=socket.gethostname(), since="unknown")


def _is_at(path: Path, handle: int) -> bool:
    """Whether an open file is the one at a path. It is opened for that: a network's file system looks at the server then."""
    try:
        other = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.path.sameopenfile(handle, other)
    finally:
        os.close(other)
