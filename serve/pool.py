"""Engines in threads: dynamic batching of requests from several clients, with a bounded queue and timeouts.

A lane is a worker thread with one engine of every artifact; lanes share the engines of an artifact that has fewer. A free lane
takes waiting images, oldest request first, up to the largest batch size that does not exceed their number: nothing is padded,
and engines that compile per batch size see few sizes. With `delay` 0 an image waits only while all lanes are busy. If nothing
else waits or runs and no other request is in progress (for example decoding files), a call uses the artifact's engine with the
most threads.
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

MEMORY = 0.9  # decay factor of the running mean of seconds per image


@dataclass(eq=False)
class _Job:
    """The images of one request. taken: number given to a lane; done: number finished."""

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
    """One call of an engine: numbers of images and requests, its duration, and the longest wait before it, seconds."""

    model: str
    version: str
    images: int
    requests: int
    seconds: float
    waited: float


class Pool:
    """Lanes and their queue. queue: maximum number of waiting images; delay: maximum wait of an image for others, seconds.

    heard: callback after every call of an engine. working: function that returns the number of requests in progress.
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
        self._waiting = 0  # number of images
        self._busy = 0  # number of lanes
        self._running: set[int] = set()  # ids of engines
        self._each = 0.01  # seconds per image, running mean
        self._closed = False
        self._threads = [threading.Thread(target=self._lane, args=(k,), name=f"lane-{k}", daemon=True) for k in range(lanes)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Number of waiting images."""
        return self._waiting

    def submit(self, model: Opened, images: UInt8, *, timeout: float, bounded: bool = True) -> Future[Float32]:
        """Queue images uint8 [N, C, S, S]; returns a future of their logits. bounded: apply the limit of the queue.

        Raises:
            OctcError: E908 too many images wait. The future raises E909 if no engine was free in time, and the errors of the
                engine.
        """
        now = time.monotonic()
        job = _Job(model, images, now + timeout, now)
        with self._wake:
            if self._closed:
                raise OctcError("OCT-E908", "the server is shutting down", hint="retry when it is back")
            if bounded and self._waiting and self._waiting + len(images) > self.queue:
                text = f"the queue is full: {self._waiting} of at most {self.queue} images wait, {len(images)} more requested"
                raise OctcError("OCT-E908", text, hint=f"retry in {self.retry_after()} s")
            self._jobs.setdefault(model, deque()).append(job)
            self._waiting += len(images)
            self._wake.notify()
        return job.future

    def retry_after(self) -> int:
        """Estimated seconds until the queue is empty, at least 1."""
        return max(1, math.ceil(self._waiting * self._each / self.lanes))

    def close(self) -> None:
        """Finish the waiting requests, then end the lanes."""
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
        """Idle engines of a model, the lane's own one first."""
        own = number % len(model.runtimes)
        return [one for one in (*model.runtimes[own:], *model.runtimes[:own]) if id(one) not in self._running]

    def _take(self) -> list[_Part]:
        """The parts of the next call; empty if there is nothing to do yet."""
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
            self._wake.notify()  # for another free lane
        return parts

    def _drop_late(self) -> None:
        """Remove jobs that timed out or were cancelled."""
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
        except BaseException as error:  # passed on to the requests
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
            with self._wake:  # before the results are sent: an immediate next request then counts as single
                self._busy -= 1
                self._running.discard(id(runtime))
                if self._waiting:
                    self._wake.notify()  # for a lane that waits for one of its engines

    def _share(self, parts: Sequence[_Part], logits: Float32) -> None:
        at = 0
        for part in parts:
            job, count = part.job, part.stop - part.start
            with self._wake:  # several lanes may finish parts of one job
                if job.logits is None:
                    job.logits = np.empty((len(job.images), logits.shape[1]), np.float32)
                job.logits[part.start : part.stop] = logits[at : at + count]
                job.done += count
                whole = job.done == len(job.images)
            at += count
            if whole:
                _settle(job.future, job.logits)


def _wanted(job: _Job, now: float) -> bool:
    """Whether a job is still needed; if it timed out, its future gets the error."""
    if job.future.done():  # cancelled, or a part failed
        return False
    if now > job.deadline:
        text = f"no engine was free within {job.deadline - job.since:g} s"
        _settle(job.future, OctcError("OCT-E909", text, hint="retry, or raise --timeout"))
        return False
    return True


def _settle(future: Future[Any], value: Any) -> None:
    """Set the result or error of a future, unless it is already done or cancelled."""
    with _SETTLING:
        if future.done():
            return
        if isinstance(value, BaseException):
            future.set_exception(value)
        else:
            future.set_result(value)


_SETTLING = threading.Lock()
