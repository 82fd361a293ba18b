"""Lines that say how far long work is."""

from __future__ import annotations

import pytest

from octc.core import progress


def test_the_time_left_is_told_once_some_of_the_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step prepares the others: 11 s for a five-thousandth of the work are no 15 hours."""
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    lines: list[str] = []
    tell = progress.saying(lines.append, "rounding of layers")
    for now, done, share in ((111.0, 1, 0.0002), (115.0, 2, 0.1), (125.0, 20, 0.25), (200.0, 69, 1.0)):  # noqa: B007
        tell(done, 69, share)
    assert lines == ["  rounding of layers  1 of 69", "  rounding of layers  20 of 69, 1 min 15 s left"]
