"""SIGINT and SIGTERM in a training: the step finishes, the state is saved, then whoever handled them before does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM let the step finish and the state be saved; a second one acts at once."""
    pending: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _frame: Any) -> None:
        pending.append(number)
        for other, handler in before.items():
            signal.signal(other, handler)

    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in numbers:
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: the caller's handlers stay
        before.clear()
    try:
        yield pending
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)


def leave(number: int) -> NoReturn:
    """State is saved: hand the signal to whoever handled it before."""
    signal.raise_signal(number)
    raise KeyboardInterrupt
