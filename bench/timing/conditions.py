"""The state of the machine during a row: clocks, temperature, throttling, CPU steal, load of other programs.

Method: docs/measurement.md, sections 9, 10 and 16. octc reports clocks and power modes, and never sets them.
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

DROP = 0.95  # minimum ratio of the median clocks in the last and first tenth of a row
DRIFT = 1.05  # maximum ratio of the p50 in the last and first tenth, if no clock is readable
STEAL, STEAL_WARNING = 5.0, 1.0  # percent
FOREIGN = 5.0  # maximum load of other programs on the usable processors during the timed loop, percent
LOCKED = 0.98  # minimum clock as a share of its locked value
PI = "sys/devices/platform/soc/soc:firmware/get_throttled"  # Raspberry Pi: bits 0 to 3 state the current throttling
BUSY = 0.5  # load average per processor
COOL_DEGREES, COOL_SECONDS = 5.0, 120.0
READINGS = 10  # minimum number of clock readings to compare tenths


@dataclass(frozen=True)
class Snapshot:
    """The state of the machine at one moment.

    Attributes:
        clock_mhz: mean clock of all processors. throttles: total of all throttle counters. steal: (stolen, all) ticks.
        work: (busy, all, own) ticks of the usable processors; own: those of this bench's processes.
        slowed: whether the machine is throttled now. gpu: state from NVML.
        at_ns: time on the monotonic clock.
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
    """Read the current state; values without a sensor are None. cpus: processors in use; pids: the bench's processes."""
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
    """Busy ticks of these processors, all their ticks, and the ticks of these processes."""
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
    """Whether a Raspberry Pi reports throttling, or a clock is below its locked value; None if neither is readable."""
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
    """At least two snapshots before, during (2 Hz) and after a row, in order."""

    looks: tuple[Snapshot, ...]

    @property
    def throttled(self) -> bool | None:
        """Whether a throttle counter rose or the machine was throttled; None if nothing is readable."""
        first, last = self.looks[0].throttles, self.looks[-1].throttles
        told = [look.slowed for look in self.looks if look.slowed is not None]
        if first is not None and last is not None:
            told.append(last > first)
        if self._reasons() is not None:
            told.append(any(self.gpu_signs()))
        return any(told) if told else None

    @property
    def steal_percent(self) -> float | None:
        """CPU steal: time that the hypervisor gave to other guests, percent."""
        first, last = self.looks[0].steal, self.looks[-1].steal
        if first is None or last is None or last[1] <= first[1]:
            return None
        return 100 * (last[0] - first[0]) / (last[1] - first[1])

    @property
    def foreign(self) -> tuple[int, int] | None:
        """Ticks of other programs on the usable processors, and all ticks of these processors."""
        first, last = self.looks[0].work, self.looks[-1].work
        if first is None or last is None or last[1] <= first[1]:
            return None
        return max(0, (last[0] - first[0]) - (last[2] - first[2])), last[1] - first[1]

    @property
    def on_gpu(self) -> bool:
        return self.looks[0].gpu is not None

    @property
    def power_capped(self) -> bool | None:
        """Whether the GPU's software power cap was active; None if not readable."""
        bits = self._reasons()
        return None if bits is None else bool(bits & CAP)

    def _reasons(self) -> int | None:
        told = [look.gpu.reasons for look in self.looks if look.gpu is not None and look.gpu.reasons is not None]
        bits = 0
        for one in told:
            bits |= one
        return bits if told else None

    def gpu_signs(self) -> tuple[bool, bool]:
        """Whether temperature, and whether power throttled the GPU (without the software power cap)."""
        bits = self._reasons() or 0
        return bool(bits & HEAT), bool(bits & BRAKE)

    def clocks(self) -> tuple[float, float] | None:
        """Median clock in the first and in the last tenth, MHz; of the GPU for artifacts that run on it."""
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
    """Reasons to invalidate a row or block: thermal or power throttling, a falling clock, CPU steal, other programs."""
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
    """Load of other programs on the usable processors over all these parts, percent; 0 if not readable."""
    told = [one.foreign for one in parts if one.foreign is not None]
    return 100 * sum(t for t, _ in told) / sum(n for _, n in told) if told else 0.0


def steal_warning(conditions: Conditions) -> float | None:
    """CPU steal that needs a warning but does not invalidate the row, percent; else None."""
    steal = conditions.steal_percent
    return steal if steal is not None and STEAL_WARNING < steal <= STEAL else None


def drifted(durations: Sequence[int], conditions: Conditions) -> bool:
    """Without readable clocks: whether the median of the last tenth is more than 5 % above that of the first."""
    tenth = len(durations) // 10
    if conditions.clocks() is not None or tenth < 1:
        return False
    return float(np.median(durations[-tenth:])) > DRIFT * float(np.median(durations[:tenth]))


def machine_warnings(machine: Machine, root: Path = ROOT) -> list[str]:
    """Sentences about the machine to print with every result: CPU quota, battery, restricted instruction set."""
    found = []
    quota = machine.cpus.quota
    if quota is not None and quota != int(quota):
        found.append(f"CPU quota of {quota:g} processors: throttling by the scheduler is part of the result")
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
    """Wait until the temperature is within 5 degrees Celsius of that before the first row; returns the seconds waited."""
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
