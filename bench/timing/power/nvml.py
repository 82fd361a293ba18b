"""NVIDIA's management library (needs `nvidia-ml-py` and a driver): energy, power, clock, temperature, throttle reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from octc.core.optional import have, need

MODULE = "pynvml"
# bits of the clock event reasons (nvml.h): thermal and power throttling
HEAT = 0x20 | 0x40  # software and hardware thermal slowdown
BRAKE = 0x8 | 0x80  # hardware slowdown, power brake
CAP = 0x4  # software power cap


@dataclass(frozen=True)
class GpuLook:
    """State of the first GPU. reasons: bits of the clock event reasons, or None if the driver does not report them."""

    clock_mhz: float | None
    temp_c: float | None
    reasons: int | None


class Nvml:
    """The first GPU. Values that the board does not report are None."""

    def __init__(self, library: Any) -> None:
        self._nvml = library
        library.nvmlInit()
        self._gpu = library.nvmlDeviceGetHandleByIndex(0)

    def _ask(self, name: str, *more: Any) -> Any:
        try:
            return getattr(self._nvml, name)(self._gpu, *more)
        except (self._nvml.NVMLError, AttributeError):
            return None

    def energy_j(self) -> float | None:
        """Energy of the board since the driver was loaded, joules."""
        found = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if found is None else found / 1e3

    def power_w(self) -> float | None:
        """Power of the board, watts."""
        found = self._ask("nvmlDeviceGetPowerUsage")
        return None if found is None else found / 1e3

    def look(self) -> GpuLook:
        """Clock of the multiprocessors, temperature, and throttle reasons."""
        clock = self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)
        temp = self._ask("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU)
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return GpuLook(clock, temp, reasons)

    def process_mib(self, pid: int) -> float | None:
        """GPU memory of a process, MiB; None if the driver does not see it (in containers)."""
        for one in self._ask("nvmlDeviceGetComputeRunningProcesses") or ():
            if one.pid == pid and one.usedGpuMemory is not None:
                return float(one.usedGpuMemory) / 2**20
        return None


def open_nvml() -> Nvml | None:
    """The first GPU; None without library, driver or GPU."""
    if not have(MODULE):
        return None
    library = need(MODULE)
    try:
        return Nvml(library)
    except library.NVMLError:
        return None
