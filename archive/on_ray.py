"""Units on a Ray cluster: one Ray Data pipeline, an actor for each engine. Every machine sees the archive and the results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from octc.archive.executors import Run
from octc.archive.hand import Hand
from octc.archive.store import Done
from octc.archive.unit import Task
from octc.archive.worker import Setup, task_from, task_json
from octc.core.files import parse_json
from octc.core.progress import Step
from octc.machine.ray_cluster import Actors, answered, answers, joined


@dataclass(frozen=True)
class OnRay:
    """Actors of a cluster. address: of the cluster; None: one of this machine alone, which ends with the job."""

    workers: int
    address: str | None

    @contextmanager
    def working(self, setup: Setup, step: Step) -> Iterator[Run]:
        """As `Local.working`. A lost actor, worker or node costs the units that it was at.

        Raises:
            OctcError: E901 Ray is not installed, E903 no cluster at the address, and what `Hand.complete` raises.
        """

        def run(tasks: Sequence[Task]) -> Iterator[Done]:
            made = json.dumps(asdict(setup))
            lines = [{"task": json.dumps(task_json(task)), "setup": made} for task in tasks]
            for value in answers(Engine, lines, Actors(self.workers, setup.threads)):
                one = Done.from_json(value)
                step(one.inputs)
                yield one

        with joined(self.address, self.workers * setup.threads):
            yield run


class Engine:
    """An actor: one supervised process."""

    def __init__(self) -> None:
        self._hand: Hand | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        return answered(self._one, batch["task"], batch["setup"])

    def _one(self, line: str, setup: str) -> dict[str, Any]:
        if self._hand is None:
            self._hand = Hand(Setup(**parse_json(setup)))
        return self._hand.complete(task_from(parse_json(line))).to_json()
