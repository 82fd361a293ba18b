"""The served artifacts and their lanes, with reload while requests run."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from octc.core.errors import OctcError
from octc.imaging.preprocess import Float32, UInt8
from octc.runtimes.monitored import Watcher
from octc.runtimes.predict import Record
from octc.schemas.requests import ServeOptions
from octc.serve.metrics import Metrics
from octc.serve.models import Opened, open_models, share_of
from octc.serve.pool import Pool
from octc.serve.tensors import Wanted, answers
from octc.store.monitor_store import open_store

ENGINE_SECONDS = 3600.0  # timeout of a batch of an upload; the upload's own limit is shorter


@dataclass(frozen=True)
class Engine:
    """An artifact as a callable for `octc.runtimes.predict.classify`: uint8 [N, C, S, S] -> logits, run by the pool."""

    pool: Pool
    model: Opened

    def __call__(self, batch: UInt8) -> Float32:
        return self.pool.submit(self.model, batch, timeout=ENGINE_SECONDS, bounded=False).result()


class Site:
    """The served artifacts and their users. All methods are thread-safe."""

    def __init__(self, places: Sequence[str | Path], options: ServeOptions) -> None:
        self.options = options
        self._store = None if options.monitor is None else open_store(Path(options.monitor), make=True)
        self._watching = threading.Lock()
        self.metrics = Metrics()
        self._places = tuple(places)
        self._lock = threading.Lock()
        self._reloading = threading.Lock()
        self.faults: Callable[[], Sequence[str]] = list
        self._users: Counter[Opened] = Counter()
        self._models = open_models(self._places, options)
        self.pool = Pool(
            share_of(options).lanes,
            queue=options.queue,
            delay=options.delay / 1000,
            heard=self.metrics.ran,
            working=self._working,
        )
        self.metrics.watch(self.pool, lambda: self._models)

    def tell_faults(self, faults: Callable[[], Sequence[str]]) -> None:
        """Take what else may fail while the artifacts can be used: it is told with the health and counted in the metrics."""
        self.faults = faults
        self.metrics.count_faults(lambda: len(faults()))

    @property
    def models(self) -> tuple[Opened, ...]:
        return self._models

    def _working(self) -> int:
        """Number of requests in progress."""
        with self._lock:
            return self._users.total()

    @contextmanager
    def use(self, name: str | None = None, version: str | None = None) -> Iterator[Opened]:
        """A model that stays open during the context. None: the first one.

        Raises:
            OctcError: E107 there is no model with this name or version.
        """
        with self._lock:
            model = self._find(name, version)
            self._users[model] += 1
        try:
            yield model
        finally:
            with self._lock:
                self._users[model] -= 1
                unused = not self._users[model] and model not in self._models
                if not self._users[model]:
                    del self._users[model]  # else every artifact of before would be held for good
            if unused:
                model.close()

    def _find(self, name: str | None, version: str | None) -> Opened:
        named = [one for one in self._models if name in (None, one.name)]
        found = [one for one in named if version in (None, one.version)]
        if found:
            return found[0]
        what = f"model {name!r}" if not named else f"version {version!r} of {name}"
        hint = "served are: " + ", ".join(f"{one.name} {one.version}" for one in self._models)
        raise OctcError("OCT-E107", f"{what[:200]} is not served here", hint=hint)

    def engine(self, model: Opened) -> Engine:
        """A model as a callable for `classify`; calls go through the queue."""
        return Engine(self.pool, model)

    async def infer(self, model: Opened, wanted: Wanted) -> dict[str, npt.NDArray[Any]]:
        """Outputs of a checked request by name, within its timeout and the server's. Raises as `Pool.submit` and `answers`."""
        limit = min(self.options.timeout, wanted.timeout or self.options.timeout)
        logits = await asyncio.wrap_future(self.pool.submit(model, wanted.images, timeout=limit))
        return answers(model, logits, wanted.outputs)

    def reload(self, *, wait: bool = False) -> tuple[Opened, ...]:
        """Reload and check all artifacts, then serve them; running requests finish with the old ones.

        Args:
            wait: wait for another reload to end instead of raising.

        Raises:
            OctcError: E908 another reload is running; and the errors of `open_models`. In both cases the old artifacts stay.
        """
        if not self._reloading.acquire(blocking=wait):
            raise OctcError("OCT-E908", "a reload is already running", hint="wait until it has finished")
        try:
            fresh = open_models(self._places, self.options)
            with self._lock:
                old, self._models = self._models, fresh
                unused = [one for one in old if not self._users[one]]
            for one in unused:
                one.close()
            return fresh
        finally:
            self._reloading.release()

    @property
    def watches(self) -> bool:
        """Whether there is a monitor store, which needs image statistics in addition to the prediction."""
        return self._store is not None

    def watch(self, model: Opened, records: Sequence[Record]) -> None:
        """Add records to the monitor store, if there is one (OctcError E109: it cannot be written)."""
        if self._store is None:
            return
        with self._watching:
            watcher = Watcher(self._store, model.artifact, model.sha256)
            for record in records:
                watcher.add(record)
            watcher.flush()

    def close(self) -> None:
        """Finish the waiting requests, then release the engines."""
        self.pool.close()
        if self._store is not None:
            self._store.close()
        for one in self._models:
            one.close()
