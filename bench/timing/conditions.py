"""What the machine did during a row: clocks, heat, throttle counters, stolen time, other programs. And what that means.

Method: docs/measurement.md, sections 9, 10 and 16. Octc reports clocks and power modes, it never sets them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from octc.bench.timing.latency import Measure, missing
from octc.bench.timing.power.nvml import BRAKE, CAP, HEAT, GpuLook
from octc.machine.cpu import ROOT, SYSTEM_CPUS, read_text, read_throttled
from octc.machine.host import FPMATH, Machine, cpu_times

DROP = 0.95  # median clock of the last tenth against the first
DRIFT = 1.05  # p50 of the last tenth against the first, where no clock can be read
STEAL, STEAL_WARNING = 5.0, 1.0  # percent
FOREIGN = 5.0  # percent of the usable processors that other programs took while the row was timed
LOCKED = 0.98  # a clock below this share of the value that it is locked to
PI = "sys/devices/platform/soc/soc:firmware/get_throttled"  # of a Raspberry Pi: bits 0 to 3 say what holds it back now
BUSY = 0.5  # load average per processor
COOL_DEGREES, COOL_SECONDS = 5.0, 120.0
READINGS = 10  # fewer clock readings than this have no tenths


@dataclass(frozen=True)
class Snapshot:
    """One look.

    Attributes:
        clock_mhz: mean of all processors. throttles: sum of all counters. steal: (stolen, all) ticks.
        work: (busy, all, own) ticks of the usable processors; own are those of this bench's processes.
        slowed: whether something holds the machine back at this very moment. gpu: what NVML says.
        at_ns: when, on the monotonic clock.
    """

    clock_mhz: float | None
    temp_c: float | None
    throttles: int | None
    steal: tuple[int, int] | None
    nr_throttled: int | None
    work: tuple[int, int, int] | None = None
    slowed: bool | None = None
    gpu: GpuLook | None = None
    at_ns: int = field(default=0, compare=False)


def read_snapshot(root: Path = ROOT, cpus: Collection[int] = (), pids: Collection[int] = ()) -> Snapshot:
    """Look once; what has no sensor is None. cpus: those that this process may use; pids: the bench's own processes."""
    folder = root / SYSTEM_CPUS
    clocks = _numbers(folder.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    temperatures = _numbers((root / "sys/class/thermal").glob("thermal_zone*/temp"))
    throttles = _numbers(folder.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
    throttles += _numbers((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"))  # over-current, on a Jetson
    return Snapshot(
        clock_mhz=statistics.fmean(clocks) / 1e3 if clocks else None,
        temp_c=max(temperatures) / 1e3 if temperatures else None,
        throttles=int(sum(throttles)) if throttles else None,
        steal=cpu_times(root),
        nr_throttled=read_throttled(root),
        work=_work(root, cpus, pids),
        slowed=_slowed(root),
        at_ns=time.monotonic_ns(),
    )


def _work(root: Path, cpus: Collection[int], pids: Collection[int]) -> tuple[int, int, int] | None:
    """Ticks of these processors in which something ran, all their ticks, and those of these processes."""
    rows = [line.split() for line in read_text(root / "proc/stat").splitlines() if line.startswith("cpu")]
    mine = [[int(n) for n in row[1:9]] for row in rows if row[0][3:].isdigit() and int(row[0][3:]) in cpus and len(row) > 8]
    if not mine:
        return None
    own = 0
    for pid in pids:
        fields = read_text(root / f"proc/{pid}/stat").rpartition(")")[2].split()
        own += sum(int(ticks) for ticks in fields[11:13])
    waiting = sum(row[3] + row[4] + row[7] for row in mine)  # idle, waiting for a disk, stolen
    total = sum(map(sum, mine))
    return total - waiting, total, own


def _slowed(root: Path) -> bool | None:
    """Bits of a Raspberry Pi's firmware, and clocks below the value that they are locked to; None where neither is told."""
    found = []
    bits = read_text(root / PI).strip()
    if bits:
        found.append(bool(int(bits, 16) & 0xF))
    for folder in (*(root / "sys/class/devfreq").glob("*"), *(root / SYSTEM_CPUS).glob("cpu[0-9]*/cpufreq/")):
        names = ("min_freq", "max_freq", "cur_freq")
        if folder.name == "cpufreq":
            names = ("scaling_min_freq", "scaling_max_freq", "scaling_cur_freq")
        values = _numbers(folder / name for name in names)
        if len(values) == len(names) and values[0] == values[1]:
            found.append(values[2] < LOCKED * values[1])
    return any(found) if found else None


@dataclass(frozen=True)
class Conditions:
    """Snapshots before, during (2 Hz) and after a row, in order; at least two."""

    looks: tuple[Snapshot, ...]

    @property
    def throttled(self) -> bool | None:
        """Whether a throttle counter rose, or something held the machine back; None where nothing says it."""
        first, last = self.looks[0].throttles, self.looks[-1].throttles
        told = [look.slowed for look in self.looks if look.slowed is not None]
        if first is not None and last is not None:
            told.append(last > first)
        if self._reasons() is not None:
            told.append(any(self.gpu_signs()))
        return any(told) if told else None

    @property
    def steal_percent(self) -> float | None:
        """Share of the machine's time that the hypervisor gave to others."""
        first, last = self.looks[0].steal, self.looks[-1].steal
        if first is None or last is None or last[1] <= first[1]:
            return None
        return 100 * (last[0] - first[0]) / (last[1] - first[1])

    @property
    def foreign(self) -> tuple[int, int] | None:
        """Ticks that programs of others took from the usable processors, and all their ticks."""
        first, last = self.looks[0].work, self.looks[-1].work
        if first is None or last is None or last[1] <= first[1]:
            return None
        return max(0, (last[0] - first[0]) - (last[2] - first[2])), last[1] - first[1]

    @property
    def on_gpu(self) -> bool:
        return self.looks[0].gpu is not None

    @property
    def power_capped(self) -> bool | None:
        """Whether the GPU's software power cap acted; None without a GPU that says it."""
        bits = self._reasons()
        return None if bits is None else bool(bits & CAP)

    def _reasons(self) -> int | None:
        told = [look.gpu.reasons for look in self.looks if look.gpu is not None and look.gpu.reasons is not None]
        bits = 0
        for one in told:
            bits |= one
        return bits if told else None

    def gpu_signs(self) -> tuple[bool, bool]:
        """Whether heat, and whether power slowed the GPU down (without the software power cap)."""
        bits = self._reasons() or 0
        return bool(bits & HEAT), bool(bits & BRAKE)

    def clocks(self) -> tuple[float, float] | None:
        """Median clock of the first and of the last tenth, MHz; of the GPU where that is what runs."""
        told = [look.clock_mhz if look.gpu is None else look.gpu.clock_mhz for look in self.looks]
        readings = [clock for clock in told if clock is not None]
        if len(readings) < READINGS:
            return None
        tenth = len(readings) // 10
        return statistics.median(readings[:tenth]), statistics.median(readings[-tenth:])

    def to_json(self) -> dict[str, Any]:
        """The `conditions` object of a row."""
        first, last, clocks = self.looks[0], self.looks[-1], self.clocks()
        counted = first.nr_throttled is not None and last.nr_throttled is not None
        return {
            "temp_start_c": _measure(first.temp_c),
            "temp_end_c": _measure(last.temp_c),
            "clock_first_mhz": _measure(None if clocks is None else clocks[0]),
            "clock_last_mhz": _measure(None if clocks is None else clocks[1]),
            "throttled": self.throttled,
            "power_capped": self.power_capped,
            "steal_percent": _measure(self.steal_percent),
            "nr_throttled": (last.nr_throttled or 0) - (first.nr_throttled or 0) if counted else None,
        }


def signs(conditions: Conditions, *, allow_cap: bool = False) -> list[str]:
    """Reasons that the machine gives against a row or a block: heat, power, a falling clock, stolen time, other programs."""
    clocks, steal, (_, braked) = conditions.clocks(), conditions.steal_percent, conditions.gpu_signs()
    capped = conditions.power_capped is True and not allow_cap
    found = {
        "thermal_throttle": conditions.throttled is True and not (braked and not conditions.gpu_signs()[0]),
        "power_throttle": braked or capped,
        "clock_drop": clocks is not None and clocks[1] < DROP * clocks[0],
        "steal": steal is not None and steal > STEAL,
        "foreign_load": foreign_percent([conditions]) > FOREIGN,
    }
    return [name for name, holds in found.items() if holds]


def foreign_percent(parts: Sequence[Conditions]) -> float:
    """Share of the usable processors that programs of others took during all of these parts; 0 where nothing says it."""
    told = [one.foreign for one in parts if one.foreign is not None]
    return 100 * sum(t for t, _ in told) / sum(n for _, n in told) if told else 0.0


def steal_warning(conditions: Conditions) -> float | None:
    """Stolen time that is worth a warning and no more, percent; else None."""
    steal = conditions.steal_percent
    return steal if steal is not None and STEAL_WARNING < steal <= STEAL else None


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
    for name, value in machine.isa_limits.items():
        found.append(f"{name}={value} {'computes float32 in fewer bits' if name in FPMATH else 'limits the instruction set'}")
    return found


def cool_down(
    first_c: float | None, read_c: Callable[[], float | None], sleep: Callable[[float], None], most_s: float = COOL_SECONDS
) -> float:
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
