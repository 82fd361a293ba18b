"""SIGINT, SIGTERM and SIGHUP while training: the step is finished and the state saved before they act."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn


@dataclass
class Deferred:
    """number: the signal that came, or 0. before: the handlers that it belongs to."""

    number: int = 0
    before: dict[int, Any] = field(default_factory=dict)

    def note(self, number: int, _frame: Any) -> None:
        """The handler meanwhile: a second signal acts at once."""
        self.number = number
        self.release()

    def release(self) -> None:
        """Put the handlers back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def leave(self, number: int) -> NoReturn:
        """The state is saved: hand the signal to whoever handled it before."""
        self.release()
        signal.raise_signal(number)
        raise KeyboardInterrupt


@contextmanager
def deferred_signals() -> Iterator[Deferred]:
    """Note the first of these signals instead of acting on it. One that was ignored stays ignored."""
    deferred = Deferred()
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                deferred.before[number] = signal.signal(number, deferred.note)
    except ValueError:  # not the main thread: the caller's handlers stay
        deferred.before.clear()
    try:
        yield deferred
    finally:
        deferred.release()
