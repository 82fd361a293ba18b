"""What the machine did during a row: clocks, temperature, throttle counters, stolen time. And what that means for the row.

Contract: sections 9, 10 and 16 of the measurement method. Octc reports clocks and power modes, it never sets them.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from octc.bench.latency import Measure, missing
from octc.cpu import ROOT, SYSTEM_CPUS, read_text, read_throttled
from octc.host import Machine, cpu_times

DROP = 0.95  # median clock of the last tenth against the first
DRIFT = 1.05  # p50 of the last tenth against the first, where no clock can be read
STEAL, STEAL_WARNING = 5.0, 1.0  # percent
BUSY = 0.5  # load average per processor
COOL_DEGREES, COOL_SECONDS = 5.0, 120.0
READINGS = 10  # fewer clock readings than this have no tenths


@dataclass(frozen=True)
class Snapshot:
    """One look. clock_mhz: mean of all processors. throttles: sum of all counters. steal: (stolen, all) ticks."""

    clock_mhz: float | None
    temp_c: float | None
    throttles: int | None
    steal: tuple[int, int] | None
    nr_throttled: int | None


def read_snapshot(root: Path = ROOT) -> Snapshot:
    """Look once; what has no sensor is None."""
    cpus = root / SYSTEM_CPUS
    clocks = _numbers(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    temperatures = _numbers((root / "sys/class/thermal").glob("thermal_zone*/temp"))
    throttles = _numbers(cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
    return Snapshot(
        clock_mhz=statistics.fmean(clocks) / 1e3 if clocks else None,
        temp_c=max(temperatures) / 1e3 if temperatures else None,
        throttles=int(sum(throttles)) if throttles else None,
        steal=cpu_times(root), nr_throttled=read_throttled(root),
    )  # fmt: skip


@dataclass(frozen=True)
class Conditions:
    """Snapshots before, during (2 Hz) and after a row, in order; at least two."""

    looks: tuple[Snapshot, ...]

    @property
    def throttled(self) -> bool | None:
        """Whether a throttle counter rose; None where there is none."""
        first, last = self.looks[0].throttles, self.looks[-1].throttles
        return None if first is None or last is None else last > first

    @property
    def steal_percent(self) -> float | None:
        """Share of the machine's time that the hypervisor gave to others."""
        first, last = self.looks[0].steal, self.looks[-1].steal
        if first is None or last is None or last[1] <= first[1]:
            return None
        return 100 * (last[0] - first[0]) / (last[1] - first[1])

    def clocks(self) -> tuple[float, float] | None:
        """Median clock of the first and of the last tenth, MHz."""
        readings = [look.clock_mhz for look in self.looks if look.clock_mhz is not None]
        if len(readings) < READINGS:
            return None
        tenth = len(readings) // 10
        return statistics.median(readings[:tenth]), statistics.median(readings[-tenth:])

    def to_json(self) -> dict[str, Any]:
        """The `conditions` object of a row."""
        first, last, clocks = self.looks[0], self.looks[-1], self.clocks()
        counted = first.nr_throttled is not None and last.nr_throttled is not None
        return {
            "temp_start_c": _measure(first.temp_c), "temp_end_c": _measure(last.temp_c),
            "clock_first_mhz": _measure(None if clocks is None else clocks[0]),
            "clock_last_mhz": _measure(None if clocks is None else clocks[1]),
            "throttled": self.throttled, "power_capped": None, "steal_percent": _measure(self.steal_percent),
            "nr_throttled": (last.nr_throttled or 0) - (first.nr_throttled or 0) if counted else None,
        }  # fmt: skip


def signs(conditions: Conditions) -> list[str]:
    """Reasons that the machine gives against a row or a block: thermal_throttle, clock_drop, steal."""
    clocks, steal = conditions.clocks(), conditions.steal_percent
    found = {
        "thermal_throttle": conditions.throttled is True,
        "clock_drop": clocks is not None and clocks[1] < DROP * clocks[0],
        "steal": steal is not None and steal > STEAL,
    }
    return [name for name, holds in found.items() if holds]


def drifted(durations: Sequence[int], conditions: Conditions) -> bool:
    """Where no clock can be read: whether the median of the last tenth lies more than 5 % above that of the first."""
    tenth = len(durations) // 10
    if conditions.clocks() is not None or tenth < 1:
        return False
    return float(np.median(durations[-tenth:])) > DRIFT * float(np.median(durations[:tenth]))


def machine_warnings(machine: Machine, root: Path = ROOT) -> list[str]:
    """Sentences about the machine that stand beside every number: quota, battery, limits on the instruction set."""
    found = []
    quota = machine.cpus.quota
    if quota is not None and quota != int(quota):
        found.append(f"quota of {quota:g} processors: throttling by the scheduler is part of the result")
    if machine.load is not None and machine.load > BUSY * len(machine.cpus.usable):
        found.append(f"load average {machine.load:.1f} before the start: other programs are running")
    supplies = [(read_text(p / "type").strip(), read_text(p / "online").strip()) for p in _supplies(root)]
    if any(kind == "Battery" for kind, _ in supplies) and not any(on == "1" for kind, on in supplies if kind != "Battery"):
        found.append("running on battery")
    found += [f"{name}={value} limits the instruction set" for name, value in machine.isa_limits.items()]
    return found


def power_reason(machine: Machine, root: Path = ROOT) -> tuple[str, str]:
    """Why there is no energy: a word of section 10, and the mend. Never a zero and never an estimate."""
    counters = list((root / "sys/class/powercap").glob("intel-rapl:*/energy_uj"))
    if any(os.access(path, os.R_OK) for path in counters):
        return "not_requested", "octc reads no power yet"
    if counters:
        return "no_permission", "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
    return ("virtual_machine", "measure on the machine itself") if machine.virtual else ("no_sensor", "use a meter")


def cool_down(
    first_c: float | None, read_c: Callable[[], float | None], sleep: Callable[[float], None], most_s: float = COOL_SECONDS
) -> float:  # fmt: skip
    """Wait until the machine is within 5 degrees of how warm it was before the first row; the seconds that it took."""
    waited = 0.0
    while first_c is not None and waited < most_s:
        now = read_c()
        if now is None or now <= first_c + COOL_DEGREES:
            break
        sleep(1.0)
        waited += 1.0
    return waited


def _supplies(root: Path) -> list[Path]:
    return sorted((root / "sys/class/power_supply").glob("*"))


def _measure(value: float | None) -> dict[str, Any]:
    return (missing("no_sensor") if value is None else Measure(value)).to_json()


def _numbers(paths: Any) -> list[float]:
    texts = [read_text(path).strip() for path in paths]
    return [float(text) for text in texts if text.lstrip("-").isdigit()]
