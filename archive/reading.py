"""Inputs read ahead in threads, in order, each within a time limit. A reader that hangs is left behind with its thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, TypeVar

from octc.core.errors import OctcError

T = TypeVar("T")
R = TypeVar("R")


def too_late(limit: float, place: str) -> OctcError:
    """E238 of an input that was not read in time."""
    text = f"not read within {limit:g} s"
    hint = "look whether the file server answers, then --retry-failed; a longer limit: --time-limit SECONDS"
    return OctcError("OCT-E238", text, hint=hint, place=place)


@dataclass
class Readers:
    """Threads that read. limit: seconds for one job. A thread that hangs is left behind, and ends with the process."""

    threads: int
    limit: float
    _pool: ThreadPoolExecutor = field(init=False)
    _waiting: list[deque[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads)

    def ahead(self, work: Callable[[T], R], items: Iterable[T], late: Callable[[T], R], most: int) -> Iterator[R]:
        """`work` of each item, in order, at most so many ahead; `late` of one that takes longer than the limit.

        What `work` raises is raised in its place.
        """
        jobs: deque[_Job[T, R]] = deque()
        self._waiting.append(jobs)
        try:
            for item in items:
                jobs.append(_Job(work, item, self._pool.submit(work, item)))
                if len(jobs) > most:
                    yield self._first(jobs, late)
            while jobs:
                yield self._first(jobs, late)
        finally:
            self._waiting = [one for one in self._waiting if one is not jobs]
            for job in jobs:
                job.future.cancel()

    def _first(self, jobs: deque[_Job[T, R]], late: Callable[[T], R]) -> R:
        job = jobs.popleft()
        try:
            return job.future.result(self.limit)
        except Late:
            if job.future.done():  # it raised a TimeoutError of its own
                raise
            self._pool.shutdown(wait=False)
            self._pool = ThreadPoolExecutor(self.threads)
            for other in chain.from_iterable(self._waiting):
                if other.future.cancel():  # it waited behind the one that hangs
                    other.future = self._pool.submit(other.work, other.item)
            return late(job.item)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass
class _Job(Generic[T, R]):
    work: Callable[[T], R]
    item: T
    future: Future[R]
