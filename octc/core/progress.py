"""How a job reports messages, warnings and progress: one protocol for the shell, notebooks and services."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

EVERY = 10.0  # seconds between lines that say how far something is
SURE = 0.05  # share of the work from which the time of the rest is told
Step = Callable[[int], None]  # so many more are done


class Reporter(Protocol):
    """Receives the messages of a job. The default is `LogReporter`."""

    def say(self, text: str) -> None:
        """A message for the user."""

    def warn(self, code: str, message: str, path: str | None = None) -> None:
        """A warning with a code (`octc explain CODE`); it never stops a job."""

    def progress(self, label: str, total: int | None) -> AbstractContextManager[Step]:
        """A context manager that yields a function to call with each number of units done; total: None if unknown."""


@dataclass
class LogReporter:
    """Writes messages and warnings to the log `octc`, and keeps the warnings.

    Attributes:
        warnings: code, message and path of each, in order.
    """

    warnings: list[dict[str, Any]] = field(default_factory=list)

    def say(self, text: str) -> None:
        logging.getLogger("octc").info("%s", text)

    def warn(self, code: str, message: str, path: str | None = None) -> None:
        self.warnings.append({"code": code, "message": message, "path": path})
        logging.getLogger("octc").warning("%s: %s%s", code, message, f" ({path})" if path else "")

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Step]:
        logging.getLogger("octc").debug("%s: %s", label, "started" if total is None else f"{total} to do")
        yield ignore


def absolute(step: Step) -> Callable[[int, int], None]:
    """A progress callback (done, total) from a step function."""
    before = 0

    def tell(done: int, _total: int) -> None:
        nonlocal before
        step(done - before)
        before = done

    return tell


def ignore(_count: int = 1) -> None:
    """A step function that does nothing."""


def silent(_text: str) -> None:
    """A message function that does nothing."""


@dataclass(frozen=True)
class Warnings:
    """Passes on what a reporter has to hear in any case: what the processes beside the first one have."""

    to: Reporter

    def say(self, text: str) -> None:
        pass

    def warn(self, code: str, message: str, path: str | None = None) -> None:
        self.to.warn(code, message, path)

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Step]:
        yield ignore


@contextmanager
def counting(reporter: Reporter, label: str) -> Iterator[Callable[[int, int], None]]:
    """Progress of work that tells (done, total): the total is known at its first word, and may be another one later."""
    with ExitStack() as stack:
        step: Step | None = None
        before = 0

        def tell(done: int, total: int) -> None:
            nonlocal step, before
            if step is None:
                step = stack.enter_context(reporter.progress(label, total))
            step(done - before)
            before = done

        yield tell


def saying(say: Callable[[str], None], what: str) -> Callable[[int, int, float], None]:
    """Lines of long work for people, one in ten seconds at most: "  WHAT  12 of 53, 1 min 05 s left".
    What is left is told once a twentieth is done: before that it is the time of the first steps, which do more, times a guess.

    Returns: a function that is told how many are done, of how many, and the share of the whole work that they were.
    """
    start = said = time.monotonic()

    def tell(done: int, total: int, share: float) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= EVERY and 0 < share < 1:
            said = now
            left = f", {spell_seconds((now - start) / share * (1 - share))} left" if share >= SURE else ""
            say(f"  {what}  {done} of {total}{left}")

    return tell


def spell_seconds(seconds: float) -> str:
    """A duration as text: 42 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
