"""Work on a Ray cluster: a Ray Data pipeline of lines in and lines out, an actor for each share of the machines."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError, first_line
from octc.core.faults import error_json, error_of
from octc.core.files import parse_json
from octc.core.optional import need
from octc.core.scratch import scratch
from octc.core.telemetry import SWITCHES

# The head of a cluster asks the cloud's metadata service where it runs, also where usage statistics are switched off.
NOWHERE = "http://127.0.0.1:9"
CLOSED = {
    **dict.fromkeys(("HTTP_PROXY", "http_proxy"), NOWHERE), **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
}  # fmt: skip
LONGEST = 40  # characters of Ray's folder: the names of its sockets are 67 longer, and may have 107
HERE = "local"  # instead of an address: a cluster of this machine alone
AHEAD = 2  # pieces of work in hand for each actor: the next one is there when one is done


@dataclass(frozen=True)
class Actors:
    """How many there are at most, and what each takes of its machine."""

    most: int
    processors: int = 1
    gpus: int = 0


def answers(actor: type, lines: Sequence[Mapping[str, str]], actors: Actors) -> Iterator[Any]:
    """What the actors say of each piece of work, as soon as it is done, in no order.

    Args:
        actor: a class; called with a batch of one line (column -> values), it gives {"answer": [JSON]} with "done", or with
            "fault" and an error (`octc.core.faults.error_json`). A lost actor or machine costs the pieces that it was at:
            others do them.
        lines: of work. Whatever an actor needs is in each of them: what it was made of is lost with the machine it came from.

    Raises:
        OctcError: the first fault of an actor.
    """
    if not lines:
        return
    data = need("ray.data")
    pieces = data.from_items(list(lines), override_num_blocks=len(lines))
    pool = data.ActorPoolStrategy(size=min(actors.most, len(lines)), max_tasks_in_flight_per_actor=AHEAD)
    taken = {"num_cpus": actors.processors} if not actors.gpus else {"num_gpus": actors.gpus}
    for row in pieces.map_batches(actor, compute=pool, batch_size=1, **taken).iter_rows():
        value = parse_json(row["answer"])
        if "fault" in value:
            raise error_of(value["fault"])
        yield value["done"]


def answered(work: Callable[..., Any], *columns: Iterable[Any]) -> dict[str, list[str]]:
    """What an actor returns: `work` done with each row of the columns of its batch (as text), or why it could not be."""

    def one(row: tuple[Any, ...]) -> dict[str, Any]:
        try:
            return {"done": work(*map(str, row))}
        except Exception as error:
            return {"fault": error_json(error)}

    return {"answer": [json.dumps(one(row)) for row in zip(*columns, strict=True)]}


@contextmanager
def joined(address: str | None, processors: int) -> Iterator[None]:
    """A cluster to work on: that at an address, or one of so many processors of this machine, which ends with this.

    One that was joined before stays joined.

    Raises:
        OctcError: E901 Ray is not installed, E903 no cluster at the address.
    """
    ray, data = need("ray"), need("ray.data")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    data.DataContext.get_current().enable_progress_bars = False
    if ray.is_initialized():
        yield
        return
    before = dict(os.environ)
    os.environ.update(SWITCHES)
    leaving = ExitStack()
    common = {"log_to_driver": False, "configure_logging": False}
    begun = False
    try:
        if address is None:
            place = leaving.enter_context(_place())
            os.environ.update(CLOSED)
            here = {"_node_ip_address": "127.0.0.1", "_temp_dir": str(place), "include_dashboard": False}
            ray.init(num_cpus=processors, **here, **common)
        else:
            ray.init(address=address, **common)
        begun = True
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        text = f"no Ray cluster{'' if address is None else f' at {address}'}: {first_line(error)}"
        raise OctcError("OCT-E903", text, hint="ray status shows a cluster; without one this machine works alone") from error
    finally:
        for name in CLOSED:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]
        if not begun:
            _leave(ray, leaving)
    try:
        yield
    finally:
        _leave(ray, leaving)


def _leave(ray: Any, leaving: ExitStack) -> None:
    ray.shutdown()
    leaving.close()


@contextmanager
def _place() -> Iterator[Path]:
    """Where a cluster of this job alone keeps its sockets and logs, for as long as it lives."""
    with scratch("ray") as usual:
        if len(str(usual)) <= LONGEST:
            yield usual
            return
    with scratch("ray", "/tmp") as short:
        yield short
