"""Signals while training are noted, and act when the state is saved."""

from __future__ import annotations

import os
import signal

import pytest

from octc.train.loop.signals import deferred_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_the_state_is_saved(number: signal.Signals) -> None:
    came: list[int] = []
    before = signal.signal(number, lambda signum, _frame: came.append(signum))
    try:
        with deferred_signals() as signals:
            os.kill(os.getpid(), number)
            assert (signals.number, came) == (number, [])
            with pytest.raises(KeyboardInterrupt):
                signals.leave(signals.number)
        assert came == [number]
    finally:
        signal.signal(number, before)


def test_a_hang_up_that_is_ignored_is_not_noted() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with deferred_signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.number == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
