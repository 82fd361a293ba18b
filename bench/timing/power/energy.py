"""Energy per image in millijoules from power readings: gross, and net of idle power.

Method: docs/measurement.md, section 10.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from octc.bench.timing.latency import Measure, missing
from octc.bench.timing.power.sources import SOURCES
from octc.core.errors import OctcError
from octc.machine.cpu import ROOT

LEAST_S, LEAST_READINGS = 30.0, 100
EDGE_S = 1.0  # maximum gap between the loop's limits and the nearest readings, seconds
CLOSE_S = 5.0
STEP_S = 0.5  # seconds that the clock may move against the monotonic one during a row; NTP slews it by less


@dataclass
class Series:
    """Readings of one source: monotonic clock in ns, and joules (counters) or watts."""

    times: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Energy:
    """The `energy` object of a row."""

    source: str
    scope: str
    gross: Measure
    net: Measure
    idle_w: Measure
    readings: int = 0

    def to_json(self) -> dict[str, Any]:
        found = {
            "source": self.source,
            "scope": self.scope,
            "gross_mj": self.gross.to_json(),
            "net_mj": self.net.to_json(),
            "idle_w": self.idle_w.to_json(),
        }
        return {**found, "readings": self.readings} if self.source != "none" else found


def no_energy(reason: str) -> Energy:
    """A missing energy with the reason."""
    nothing = missing(reason)
    return Energy("none", "none", nothing, nothing, nothing)


def joules(series: Series, counts: bool, start_ns: int, end_ns: int) -> float | None:
    """Energy between two times, joules: counter difference, or integral of power; None if readings do not cover it."""
    times, values = np.asarray(series.times, np.float64), np.asarray(series.values, np.float64)
    edge = EDGE_S * 1e9
    if len(times) < 2 or times[0] > start_ns + edge or times[-1] < end_ns - edge or end_ns <= start_ns:
        return None
    first, last = np.interp([start_ns, end_ns], times, values)
    if counts:
        return float(last - first) if last >= first else None
    inside = (times > start_ns) & (times < end_ns)
    at = np.concatenate([[start_ns], times[inside], [end_ns]])
    watts = np.concatenate([[first], values[inside], [last]])
    return float((np.diff(at) / 1e9 * (watts[1:] + watts[:-1]) / 2).sum())


def fell(series: Series) -> bool:
    """Whether a counter ever decreased."""
    return any(after < before for before, after in zip(series.values, series.values[1:], strict=False))


def energy_of(name: str, series: Series, start_ns: int, end_ns: int, idle_s: float, images: int) -> Energy:
    """Energy per image of a loop between two times; idle power is measured in the `idle_s` seconds before it."""
    scope, counts = SOURCES[name]
    inside = sum(start_ns <= t <= end_ns for t in series.times)
    seconds = (end_ns - start_ns) / 1e9
    total = joules(series, counts, start_ns, end_ns)
    waited = joules(series, counts, start_ns - int(idle_s * 1e9), start_ns) if idle_s > 0 else None
    idle = missing("not_measured") if waited is None else Measure(waited / idle_s)
    if seconds < LEAST_S or (not counts and inside < LEAST_READINGS):
        return Energy(name, scope, missing("too_short"), missing("too_short"), idle, inside)
    if total is None or images < 1:
        reason = "counter_reset" if counts and fell(series) else "too_short"
        return Energy(name, scope, missing(reason), missing(reason), idle, inside)
    net = missing("no idle power") if idle.value is None else Measure((total - idle.value * seconds) / images * 1e3)
    return Energy(name, scope, Measure(total / images * 1e3), net, idle, inside)


class Meter:
    """The readings of all sources so far. names: the readable sources."""

    def __init__(self, path: Path, pid: int) -> None:
        self._path, self.pid = path, pid

    def _lines(self) -> list[list[str]]:
        return [line.split() for line in self._path.read_text().splitlines()]

    @property
    def names(self) -> tuple[str, ...]:
        lines = self._lines()
        return tuple(lines[0][1:]) if lines and lines[0][:1] == ["sources"] else ()

    def series(self, name: str) -> Series:
        """All readings of a source; an incomplete last line is ignored."""
        rows = [line for line in self._lines()[1:] if len(line) == 3 and line[0] == name]
        return Series([int(row[1]) for row in rows], [float(row[2]) for row in rows])


@contextmanager
def metering(scratch: Path, cpu: int = -1, root: Path = ROOT) -> Iterator[Meter]:
    """Run a process that reads power during the block. cpu: processor to pin it to, or -1."""
    path = scratch / "power.txt"
    with path.open("wb") as out:
        command = [sys.executable, "-m", "octc.bench.timing.power.reader", str(root), str(cpu)]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL, cwd=scratch, start_new_session=True
        )
    try:
        deadline = time.monotonic() + CLOSE_S * 2
        while path.stat().st_size == 0 and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        yield Meter(path, child.pid)
    finally:
        if child.stdin is not None:
            child.stdin.close()
        try:
            child.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def clock_shift() -> int:
    """What the clock says more than the monotonic one, ns: another value later means that the clock was set."""
    return time.time_ns() - time.monotonic_ns()


def read_power_csv(path: Path, shift: int | None = None) -> Series:
    """Read a power meter's CSV: columns time (seconds since 1970) and watts; a line `# offset 0.35` is added to the times.

    A last line without its end is still being written, and left out.

    Args:
        shift: `clock_shift` of the clock that the times are of; None: now.

    Raises:
        OctcError: E104 it cannot be read, has fewer than two rows, or numbers that are not finite.
    """
    shift = clock_shift() if shift is None else shift
    found, offset = Series(), 0.0
    try:
        text = path.read_text(encoding="utf-8")
        for row in csv.reader(text[: text.rfind("\n") + 1].splitlines()):
            if row and row[0].lstrip().startswith("#"):
                words = row[0].lstrip("# ").split()
                offset = float(words[1]) if words[:1] == ["offset"] else offset
            elif row and row[0].strip().lower() == "time":
                names = [name.strip().lower() for name in row]
                if len(set(names)) != len(names):
                    raise ValueError("two columns have one name")
            elif row:
                found.times.append(int(float(row[0]) * 1e9) - shift)
                found.values.append(float(row[1]))
        if not np.isfinite(found.values).all():
            raise ValueError("a reading that is not finite")
        if len(found.times) < 2 or sorted(found.times) != found.times:
            raise ValueError("at least two rows in the order of their times are needed")
    except (OSError, ValueError, IndexError, OverflowError) as error:
        hint = "two columns, time (seconds since 1970) and watts, in order"
        raise OctcError("OCT-E104", f"power readings cannot be used: {error}", hint=hint, place=str(path)) from error
    return Series([t + int(offset * 1e9) for t in found.times], found.values)
