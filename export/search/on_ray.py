"""Workers of a search on a Ray cluster: tasks that claim and train trials as every worker does.

Every machine sees images and run folder under the same paths. The process that was given the command measures and plans before
the first of them begins, starts another one for each that is lost, and ends the search when nothing is left to train. A task
begins with nothing but its order: the folder in which the command was given, the variables of octc, and what is to be done.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError, first_line
from octc.core.faults import error_json, error_of
from octc.core.optional import need
from octc.machine.cpu import usable_threads
from octc.machine.ray_cluster import HERE, joined
from octc.schemas.search import SearchOptions
from octc.store.claims import claiming

SIGN = ".ray"  # a claim in the folder of the search, as long as its workers work: who sees it sees the run folder
LOOK = 2.0  # seconds between two looks at what was trained
GRACE = 20.0  # seconds in which the other workers see that nothing is left to train
SEEN = 10.0  # seconds in which a shared file system shows a new file
LOSSES = 5  # workers in a row that may be lost while no trial is done
LOST = ("WorkerCrashedError", "NodeDiedError", "LocalRayletDiedError", "OutOfMemoryError")  # of ray.exceptions
VARIABLES = "OCTC_"


def check_ray(options: SearchOptions) -> None:
    """Refuse workers that no cluster can give.

    Raises:
        OctcError: E901 Ray is not installed, E102 a GPU by its number.
    """
    if options.ray is None:
        return
    need("ray.data")
    if ":" in options.device:
        text = f"--ray and --device {options.device}: the cluster gives each worker a GPU"
        raise OctcError("OCT-E102", text, hint="--device cuda", place="--device")


@dataclass(frozen=True)
class Order:
    """What a worker has to know before it begins. folder: in which the command was given; sign: a file in the run folder."""

    folder: str
    sign: str
    variables: dict[str, str]


@dataclass(frozen=True)
class Crew:
    """Workers of a cluster. address: None: of one of this machine alone. device: as `--device`. folder: of the search."""

    count: int
    address: str | None
    device: str
    folder: Path

    def check(self) -> None:
        """Refuse, before any work, a cluster with too little room and machines that do not see the run folder.

        Raises:
            OctcError: E903 no cluster at the address, or not such a one.
        """
        if self.address is None:
            return
        ray = need("ray")
        with claiming(self._sign), joined(self.address, 1):
            self._taken(ray, self.count)
            pinned = need("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
            places = [pinned(node["NodeID"], soft=False) for node in _nodes(ray)]
            looks = [ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=place)(_worker) for place in places]
            for one in [look.remote(self._order()) for look in looks]:
                _raise_fault(_answer(ray, one))

    def work(
        self, work: Callable[..., None], given: tuple[Any, ...], tell: Callable[[], int], say: Callable[[str], None]
    ) -> None:
        """Have all of them do `work(*given)` until one of them says that nothing is left.

        Args:
            work: a function of a module, which a worker imports. given: what it is called with there.
            tell: is called again and again; the number of pieces that are done.

        Raises:
            OctcError: E903 as `check`, or the cluster has no machine any more; E305 workers end again and again; and what
                the work raises.
        """
        ray = need("ray")
        with claiming(self._sign), joined(self.address, max(self.count, usable_threads()[0])):
            taken = self._taken(ray, self.count)
            task = ray.remote(max_retries=0, scheduling_strategy="SPREAD", **taken)(_worker)

            def begin() -> Any:
                return task.remote(self._order(), work, given)

            at = [begin() for _ in range(self.count)]
            say(f"  {self.count} workers on Ray ({self.address or 'this machine'}), each with {_words(taken)}")
            done, losses = tell(), 0
            while True:
                ready, at = ray.wait(at, timeout=LOOK)
                before, done = done, tell()
                losses = 0 if done > before else losses
                answer = _answer(ray, ready[0]) if ready else {}
                if "lost" in answer:
                    losses += 1
                    self._check_losses(losses, answer["lost"])
                    say(f"! a worker was lost ({answer['lost']}): another one begins")
                    at.append(begin())
                elif ready:
                    _raise_fault(answer)
                    break
                self._taken(ray, 1)  # a machine is left
            if at:
                ray.wait(at, num_returns=len(at), timeout=GRACE)
            tell()

    def _check_losses(self, losses: int, why: str) -> None:
        """Refuse (E305) to begin workers for ever that end before they have done anything."""
        if losses > LOSSES:
            text = f"{losses} workers in a row were lost while no trial was done: {why}"
            hint = "Ray's logs say why; fewer --workers leave more memory for each; the same command goes on"
            raise OctcError("OCT-E305", text, hint=hint, place=str(self.folder))

    @property
    def _sign(self) -> Path:
        return self.folder / f"{SIGN}-{socket.gethostname()}-{os.getpid()}"

    def _order(self) -> Order:
        known = {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}
        return Order(str(Path.cwd()), str(self._sign.absolute()), known)

    def _taken(self, ray: Any, count: int) -> dict[str, int]:
        """What one of so many workers takes of its machine: a GPU where there are any, else as many processors as leave room
        for all."""
        found = [node["Resources"] for node in _nodes(ray)]
        kind = "GPU" if self.device == "cuda" or (self.device == "auto" and any(one.get("GPU") for one in found)) else "CPU"
        rooms = [int(one.get(kind, 0)) for one in found]
        if sum(rooms) < count:
            what = "GPUs" if kind == "GPU" else "processors"
            text = f"{count} workers, and the cluster has {sum(rooms)} {what}"
            hint = f"--workers {sum(rooms)}" if sum(rooms) else "ray status shows what there is; the same command goes on"
            raise OctcError("OCT-E903", text, hint=hint, place=self.address or HERE)
        if kind == "GPU":
            return {"num_cpus": 0, "num_gpus": 1}
        return {"num_cpus": next(k for k in range(max(rooms), 0, -1) if sum(room // k for room in rooms) >= count)}


def crew_of(options: SearchOptions, folder: Path) -> Crew | None:
    """The workers that a search starts itself; None where everybody is given the command."""
    if options.ray is None:
        return None
    return Crew(options.workers, None if options.ray == HERE else options.ray, options.device, folder)


def _nodes(ray: Any) -> list[dict[str, Any]]:
    """Machines of the cluster that can work."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def _words(taken: Mapping[str, int]) -> str:
    return "a GPU" if "num_gpus" in taken else f"{taken['num_cpus']} of its processors"


def _answer(ray: Any, one: Any) -> dict[str, Any]:
    """What a task says, or that it was lost."""
    try:
        found: dict[str, Any] = ray.get(one)
    except ray.exceptions.RayError as error:
        if type(error).__name__ not in LOST:
            text = f"a machine of the cluster cannot work: {first_line(error)}"
            hint = "the same Python and octc[train,export,ray] on every machine"
            raise OctcError("OCT-E903", text, hint=hint, why=str(error)[-300:]) from error
        return {"lost": first_line(error)}
    return found


def _raise_fault(answer: Mapping[str, Any]) -> None:
    if "fault" in answer:
        raise error_of(answer["fault"])


def _worker(order: Order, work: Callable[..., Any] | None = None, given: tuple[Any, ...] = ()) -> dict[str, Any]:
    """On a machine of the cluster: one worker; without work, whether it sees what it has to."""
    try:
        _enter(order)
        if work is not None:
            work(*given)
    except Exception as error:
        fault = error_json(error)
        return {"fault": {**fault, "message": f"{socket.gethostname()}: {fault['message']}"}}
    return {"done": True}


def _enter(order: Order) -> None:
    """Be where the command was given (E903 where that is not here, or the run folder is another one)."""
    hint = "mount the same file system under the same path on every machine; or give the command on each that sees it"
    try:
        os.chdir(order.folder)
    except OSError as error:
        text = f"the folder of the command is not on this machine of the cluster: {error.strerror}"
        raise OctcError("OCT-E903", text, hint=hint, place=order.folder) from error
    until = time.monotonic() + SEEN
    while not Path(order.sign).is_file():
        if time.monotonic() > until:
            folder = str(Path(order.sign).parent)
            raise OctcError("OCT-E903", "this machine of the cluster does not see the run folder", hint=hint, place=folder)
        time.sleep(LOOK / 10)
    os.environ.update(order.variables)
