"""An artifact that is opened and checked in a thread, while whoever wants answers reads what they are to be of.

No answer is one before all golden images have come out: `finish` waits for them, and raises what is wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import numpy as np

from octc.core.errors import OctcError
from octc.imaging.preprocess import Float32, UInt8
from octc.runtimes.base import Runtime
from octc.runtimes.golden import GoldenReport, judge, read_prepared, require_golden
from octc.runtimes.registry import import_engine, open_runtime
from octc.runtimes.room import Batch, shape
from octc.store.artifacts import Golden
from octc.store.find import Found

T = TypeVar("T")


@dataclass(frozen=True)
class Checked:
    """An artifact whose golden images came out on this machine."""

    runtime: Runtime
    golden: Golden
    report: GoldenReport


class _InTurn:
    """A runtime that threads share: their images go through it one call after the other."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._lock = runtime, threading.Lock()

    def __call__(self, images: UInt8) -> Float32:
        with self._lock:
            return self._runtime(images)

    def resize(self, batch: int) -> None:
        with self._lock:
            shape(self._runtime, batch)


class Starting:
    """A start in progress; leaving it ends the thread and frees the engine.

    Golden images are decoded and resized by whoever starts it. The first ones go through the engine before any other, the rest
    in turn with what `run` is given.
    """

    def __init__(self, found: Found, threads: int, batch: Batch) -> None:
        self._found, self._threads, self._batch = found, threads, batch
        self._ready, self._stop = threading.Event(), threading.Event()
        self._runtime: Runtime | None = None
        self._shared: _InTurn | None = None
        self._golden: Golden | None = None
        self._read = threading.Event()
        self._report: GoldenReport | None = None
        self._error: BaseException | None = None
        import_engine(found.artifact)  # imports share one lock with whatever is imported meanwhile
        if not batch.fixed():  # it is about to look at the memory of this process, in which nothing else must happen
            self._open()
        self._thread = threading.Thread(target=self._work, name="octc-start")
        self._thread.start()
        try:  # while the engine is opened
            self._golden = read_prepared(found.folder, found.artifact)
        except BaseException:
            self.close()
            raise
        self._read.set()

    def run(self, images: UInt8) -> Float32:
        """Logits of prepared images, as a runtime gives them; waits until the engine is open.

        Raises:
            OctcError: what opening and the first golden images raise.
        """
        self._await()
        assert self._shared is not None
        return self._shared(images)

    __call__ = run

    def resize(self, batch: int) -> None:
        """As `octc.runtimes.room.shape`: so many images at once from now on."""
        self._await()
        assert self._shared is not None
        self._shared.resize(batch)

    def finish(self) -> Checked:
        """Wait for all golden images.

        Raises:
            OctcError: E506 they come out otherwise here; E502 E508 and whatever opening the artifact raises.
        """
        self._thread.join()
        self._await()
        assert self._runtime is not None
        assert self._golden is not None
        assert self._report is not None
        require_golden(self._report, self._found.artifact)
        return Checked(self._runtime, self._golden, self._report)

    def with_first(self, records: Iterator[T]) -> tuple[Checked, Iterator[T]]:
        """`finish`, and the same records, of which the first is made while golden images come out; what goes wrong with it
        is raised where it is taken."""
        first: T | None = None
        failed: Exception | None = None
        try:
            first = next(records, None)
        except Exception as error:
            failed = error
        return self.finish(), _again(first, failed, records)

    def _await(self) -> None:
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            self._open()
            self._replay()
        except BaseException as error:  # whoever waits raises it
            self._error = error
        finally:
            self._ready.set()

    def _open(self) -> None:
        """The runtime; where memory is short for a shape of so many images, for half of them."""
        while self._runtime is None:
            try:
                self._runtime = open_runtime(
                    self._found.folder, self._found.artifact, threads=self._threads, batch=self._batch.first(), kept=True
                )
            except OctcError as error:
                self._batch.halve(error)
            else:
                self._batch.fit(self._runtime, self._found.artifact.preprocess)

    def _replay(self) -> None:
        artifact = self._found.artifact
        assert self._runtime is not None
        self._shared = _InTurn(self._runtime)
        self._read.wait()
        golden = self._golden
        if golden is None:
            return
        size, parts = self._batch.size, []
        for start in range(0, len(golden.inputs), size):
            parts.append(self._batch.run(self._shared, golden.inputs[start : start + size]))
            self._ready.set()
            if self._stop.is_set():
                return
        self._report = judge(np.concatenate(parts), golden, artifact)

    def close(self) -> None:
        """End the thread behind what the engine is doing, and free the engine."""
        self._stop.set()
        self._read.set()
        self._thread.join()
        if self._runtime is not None:
            self._runtime.close()

    def __enter__(self) -> Starting:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _again(first: T | None, failed: Exception | None, rest: Iterator[T]) -> Iterator[T]:
    if failed is not None:
        raise failed
    if first is not None:
        yield first
    yield from rest
