"""Cached logits on a Ray cluster: each missing view of a teacher is a piece of work for whichever machine is free.

Every machine sees the runs, the teacher and the cache under the same paths. A view is written whole or not at all, so that a
lost machine costs the views that it was at, and the same command computes what is left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from octc.core.errors import OctcError
from octc.core.files import parse_json
from octc.core.optional import need
from octc.datasets.split import read_split
from octc.imaging.preprocess import Preprocess
from octc.machine.cpu import usable_threads
from octc.machine.ray_cluster import HERE, Actors, answered, answers, joined
from octc.schemas.common import convert
from octc.train.distill.cached_logits import Drawn, folder_of, missing_views, write_view
from octc.train.distill.loading import load_teacher
from octc.train.distill.precision import in_precision
from octc.train.distill.teachers import fast
from octc.train.loop.processes import make_accelerator
from octc.train.loop.training import Data


@dataclass(frozen=True)
class Order:
    """What a machine needs to fill a view.

    Attributes:
        teacher, split, cache: the checkpoint's folder, split.json, the folder of caches. images: of the training part, prepared
            (.npy). key: of the cache, which the machine has to arrive at too.
    """

    teacher: str
    split: str
    images: str
    cache: str
    preprocess: Preprocess
    drawn: Drawn
    key: dict[str, Any]


def fill_on_ray(orders: Sequence[Order], address: str, tell: Callable[[int, int], None] = lambda _done, _all: None) -> None:
    """Compute the missing views of the caches of some teachers, on one cluster.

    address: of the cluster; HERE: one of this machine alone.

    Raises:
        OctcError: E901 Ray is not installed, E903 no cluster at the address, E311 a machine would compute other numbers, and
            what `write_view` raises.
    """
    lines = [
        {"view": str(view), "order": json.dumps(asdict(order))}
        for order in orders
        for view in missing_views(folder_of(Path(order.cache), order.key), order.drawn.views)
    ]
    if not lines:
        return
    cores, gpu = usable_threads()[0], orders[0].drawn.device != "cpu"
    with joined(None if address == HERE else address, cores):
        found = need("ray").cluster_resources()
        most = int(found.get("GPU" if gpu else "CPU", 0))
        if most < 1:
            text = f"no {'GPU' if gpu else 'processor'} in the cluster"
            raise OctcError("OCT-E903", text, hint="ray status; or without --cached-views-on", place=address)
        for done, _ in enumerate(answers(Filler, lines, Actors(most, 1, int(gpu))), 1):
            tell(done, len(lines))


class Filler:
    """An actor: a teacher on a machine, another one when its views are next."""

    def __init__(self) -> None:
        self._ready: tuple[str, _Ready] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        return answered(self._one, batch["view"], batch["order"])

    def _one(self, view: str, packed: str) -> int:
        if self._ready is None or self._ready[0] != packed:  # another teacher than the last one
            self._ready = packed, _ready(convert(parse_json(packed), Order))
        self._ready[1].write(int(view))
        return int(view)


@dataclass(frozen=True)
class _Ready:
    order: Order
    net: Callable[[torch.Tensor], torch.Tensor]
    data: Data
    accelerator: Any

    def write(self, view: int) -> None:
        def ask(x: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode(), self.accelerator.autocast():
                return self.net(x)

        order = self.order
        folder = folder_of(Path(order.cache), order.key)
        write_view(folder, order.key, view, ask, self.data, order.drawn, self.accelerator.device)


def _ready(order: Order) -> _Ready:
    drawn, pre = order.drawn, order.preprocess
    accelerator = make_accelerator("cpu" if drawn.device == "cpu" else "auto", drawn.precision)
    net, known = load_teacher(Path(order.teacher), read_split(Path(order.split)), pre, accelerator.device)
    mine = drawn.key(known.sha256, str(order.key["split"]))
    if accelerator.device.type != drawn.device or mine != order.key:
        other = [name for name in mine if mine[name] != order.key[name]] or ["device"]
        text = "a machine of the cluster would compute other logits than this one: it differs in " + ", ".join(other)
        hint = "machines with one torch and one kind of processor; or without --cached-views-on"
        raise OctcError("OCT-E311", text, hint=hint, place=order.cache)
    images = np.load(order.images, mmap_mode="r")
    data = Data(images, [0] * len(images), images[:0], [], pre)
    asked = in_precision(fast(net, drawn.stage.size, accelerator.device), drawn.teacher_precision)
    return _Ready(order, asked, data, accelerator)
