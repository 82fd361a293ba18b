"""Engines in threads: requests of several clients are run together, no more wait than may, and none waits for ever.

A lane is a thread with one engine of every artifact; lanes share the engines of an artifact that has fewer. A free lane takes
what waits, the oldest request first, as many images as the largest batch size that is not larger than their number: nothing is
padded, and engines that compile for each batch size see few of them. Where `delay` is 0 an image waits only while all lanes are
busy. A call takes the artifact's engine with the most threads while nothing else waits or runs and no other request is worked
on, whose files are being decoded, say.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from octc.core.errors import OctcError
from octc.imaging.preprocess import Float32, UInt8
from octc.runtimes.base import Runtime
from octc.serve.models import Opened

MEMORY = 0.9  # of the running mean of the seconds of an image


@dataclass(eq=False)
class _Job:
    """Images of one request; `taken` of them have been given to a lane, `done` are answered."""

    model: Opened
    images: UInt8
    deadline: float
    since: float
    future: Future[Float32] = field(default_factory=Future)
    taken: int = 0
    done: int = 0
    logits: Float32 | None = None


@dataclass(frozen=True)
class _Part:
    job: _Job
    start: int
    stop: int


@dataclass(frozen=True)
class Ran:
    """One call of an engine: how many images of how many requests, seconds of it, the longest time that one waited before."""

    model: str
    version: str
    images: int
    requests: int
    seconds: float
    waited: float


class Pool:
    """Lanes and what waits for them. queue: images that may wait; delay: seconds that one waits for others.

    heard: is told of every call of an engine. working: how many requests are worked on.
    """

    def __init__(
        self,
        lanes: int,
        *,
        queue: int,
        delay: float = 0.0,
        heard: Callable[[Ran], None] = lambda _: None,
        working: Callable[[], int] = lambda: 0,
    ) -> None:
        self.lanes, self.queue = lanes, queue
        self._delay, self._heard, self._working = delay, heard, working
        self._wake = threading.Condition()
        self._jobs: dict[Opened, deque[_Job]] = {}
        self._waiting = 0  # images
        self._busy = 0  # lanes
        self._running: set[int] = set()  # ids of engines
        self._each = 0.01  # seconds of an image, running mean
        self._closed = False
        self._threads = [threading.Thread(target=self._lane, args=(k,), name=f"lane-{k}", daemon=True) for k in range(lanes)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Images that wait."""
        return self._waiting

    def submit(self, model: Opened, images: UInt8, *, timeout: float, bounded: bool = True) -> Future[Float32]:
        """The logits to come of uint8 [N, C, S, S]. bounded: refuse more than may wait; else the caller bounds himself.

        Raises:
            OctcError: E908 too many images wait; the future has E909 where its time ran out before an engine was free, and what
                the engine raises.
        """
        now = time.monotonic()
        job = _Job(model, images, now + timeout, now)
        with self._wake:
            if self._closed:
                raise OctcError("OCT-E908", "the server is ending", hint="ask again when it is back")
            if bounded and self._waiting and self._waiting + len(images) > self.queue:
                text = f"{self._waiting} images wait, of which {self.queue} may, and {len(images)} came"
                raise OctcError("OCT-E908", text, hint=f"ask again in {self.retry_after()} s")
            self._jobs.setdefault(model, deque()).append(job)
            self._waiting += len(images)
            self._wake.notify()
        return job.future

    def retry_after(self) -> int:
        """Seconds after which the queue is probably empty, at least one."""
        return max(1, math.ceil(self._waiting * self._each / self.lanes))

    def close(self) -> None:
        """Answer what waits, then end the lanes."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _lane(self, number: int) -> None:
        while True:
            with self._wake:
                while not (parts := self._take()):
                    if self._closed and not self._waiting:
                        return
                    self._wake.wait((self._delay or None) if self._jobs else None)
                model = parts[0].job.model
                alone = not self._busy and not self._waiting and self._working() <= 1
                runtime = model.alone if alone and model.alone is not None else self._free(model, number)[0]
                self._busy += 1
                self._running.add(id(runtime))
            self._run(runtime, parts)

    def _free(self, model: Opened, number: int = 0) -> list[Runtime]:
        """Engines of a model that nobody runs, a lane's own one first."""
        own = number % len(model.runtimes)
        return [one for one in (*model.runtimes[own:], *model.runtimes[:own]) if id(one) not in self._running]

    def _take(self) -> list[_Part]:
        """The parts of the next call; empty where there is nothing to do yet."""
        self._drop_late()
        heads = [jobs[0] for jobs in self._jobs.values()]
        now = time.monotonic()
        for head in sorted(heads, key=lambda job: job.since):
            sizes = head.model.sizes
            jobs = self._jobs[head.model]
            there = sum(len(job.images) - job.taken for job in jobs)
            if not self._free(head.model):
                continue
            if there < sizes[-1] and now - head.since < self._delay and not self._closed:
                continue
            return self._fill(jobs, max(size for size in sizes if size <= there))
        return []

    def _fill(self, jobs: deque[_Job], size: int) -> list[_Part]:
        parts, left = [], size
        while left:
            job = jobs[0]
            stop = min(len(job.images), job.taken + left)
            parts.append(_Part(job, job.taken, stop))
            left -= stop - job.taken
            job.taken = stop
            if stop == len(job.images):
                jobs.popleft()
        if not jobs:
            del self._jobs[parts[0].job.model]
        self._waiting -= size
        if self._waiting:
            self._wake.notify()  # for another lane that is free
        return parts

    def _drop_late(self) -> None:
        """Forget jobs that nobody waits for any more."""
        now = time.monotonic()
        for model, jobs in list(self._jobs.items()):
            for job in [job for job in jobs if not _wanted(job, now)]:
                jobs.remove(job)
                self._waiting -= len(job.images) - job.taken
            if not jobs:
                del self._jobs[model]

    def _run(self, runtime: Runtime, parts: list[_Part]) -> None:
        model, start = parts[0].job.model, time.monotonic()
        try:
            logits = self._call(runtime, parts)
        except BaseException as error:  # of any engine; whoever asked hears it
            for job in {id(part.job): part.job for part in parts}.values():
                _settle(job.future, error)
            return
        seconds = time.monotonic() - start
        self._each = MEMORY * self._each + (1 - MEMORY) * seconds / len(logits)
        waited = start - min(part.job.since for part in parts)
        self._heard(Ran(model.name, model.version, len(logits), len(parts), seconds, waited))
        self._share(parts, logits)

    def _call(self, runtime: Runtime, parts: Sequence[_Part]) -> Float32:
        batch = [part.job.images[part.start : part.stop] for part in parts]
        try:
            return runtime(batch[0] if len(batch) == 1 else np.concatenate(batch))
        finally:
            with self._wake:  # before anybody is answered: who asks again at once is alone
                self._busy -= 1
                self._running.discard(id(runtime))
                if self._waiting:
                    self._wake.notify()  # for a lane that found none of its engines free

    def _share(self, parts: Sequence[_Part], logits: Float32) -> None:
        at = 0
        for part in parts:
            job, count = part.job, part.stop - part.start
            with self._wake:  # several lanes may answer parts of one job
                if job.logits is None:
                    job.logits = np.empty((len(job.images), logits.shape[1]), np.float32)
                job.logits[part.start : part.stop] = logits[at : at + count]
                job.done += count
                whole = job.done == len(job.images)
            at += count
            if whole:
                _settle(job.future, job.logits)


def _wanted(job: _Job, now: float) -> bool:
    """Whether an answer is still waited for; of one whose time is over the future says so."""
    if job.future.done():  # cancelled, or a part of it failed
        return False
    if now > job.deadline:
        text = f"no engine was free within {job.deadline - job.since:g} s"
        _settle(job.future, OctcError("OCT-E909", text, hint="ask again, or raise --timeout"))
        return False
    return True


def _settle(future: Future[Any], value: Any) -> None:
    """Give a future its result or error, unless it was cancelled or settled before."""
    with _SETTLING:
        if future.done():
            return
        if isinstance(value, BaseException):
            future.set_exception(value)
        else:
            future.set_result(value)


_SETTLING = threading.Lock()
