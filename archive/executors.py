"""Who does the units: processes of this machine (here), or actors of a Ray cluster (`archive/on_ray.py`)."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

from octc.archive.hand import Hand
from octc.archive.store import Done
from octc.archive.unit import Task
from octc.archive.worker import Setup
from octc.core.progress import Step
from octc.machine.cpu import read_cpus

AHEAD = 2  # units in hand for each process: the next one is there when one is done
Run = Callable[[Sequence[Task]], Iterator[Done]]


@dataclass(frozen=True)
class Local:
    """Processes of this machine, each pinned to cores of its own, as far as there are enough."""

    workers: int

    @contextmanager
    def working(self, setup: Setup, step: Step) -> Iterator[Run]:
        """A function that does units, in the order in which they are done. step: is called with inputs that are done, from any
        thread. The processes are gone when this ends.

        Raises:
            OctcError: what the machine lacks, E611 of `Hand.complete`.
        """
        hands = [Hand(replace(setup, processors=place), step) for place in _places(self.workers, setup.threads)]
        free: queue.SimpleQueue[Hand] = queue.SimpleQueue()
        for hand in hands:
            free.put(hand)

        def work(task: Task) -> Done:
            hand = free.get()
            try:
                return hand.complete(task)
            finally:
                free.put(hand)

        pool = ThreadPoolExecutor(self.workers)

        def run(tasks: Sequence[Task]) -> Iterator[Done]:
            left = iter(tasks)
            jobs: set[Future[Done]] = set()
            while True:
                jobs |= {pool.submit(work, task) for task in islice(left, AHEAD * self.workers - len(jobs))}
                if not jobs:
                    return
                finished, jobs = wait(jobs, return_when=FIRST_COMPLETED)
                for job in finished:
                    yield job.result()

        try:
            yield run
        finally:
            for hand in hands:
                hand.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            for hand in hands:
                hand.close()


def _places(workers: int, threads: int) -> list[tuple[int, ...]]:
    """Processors of each worker: one of each core, in order; () for all where there are not enough."""
    cpus = read_cpus()
    cores: dict[str, int] = {}
    for cpu in cpus.usable:
        cores.setdefault(cpus.core_of[cpu], cpu)
    chosen = list(cores.values())
    if workers * threads > len(chosen):
        return [()] * workers
    return [tuple(chosen[place * threads : (place + 1) * threads]) for place in range(workers)]
