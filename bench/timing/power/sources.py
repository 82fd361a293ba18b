"""Power sources: RAPL, the INA3221 of a Jetson, tegrastats, NVML; or the reason why there is none, with a hint.

Method: docs/measurement.md, section 10. octc does not enable or configure a source, and estimates nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from octc.bench.timing.power.nvml import Nvml, open_nvml
from octc.core.optional import have
from octc.machine.cpu import ROOT, read_text
from octc.machine.host import Machine

READ_S = 0.1  # maximum interval of readings, seconds
RAPL = "sys/class/powercap"
MODULE_RAILS = ("VDD_IN", "POM_5V_IN")  # power rail of the whole module
RAIL = re.compile(r"\b(VDD_IN|POM_5V_IN) (\d+)(?:mW)?/")
# source -> (scope, whether it counts energy (joules) instead of reporting power (watts))
SOURCES = {
    "nvml_energy": ("gpu_board", True), "nvml_power": ("gpu_board", False), "tegra": ("jetson_module", False),
    "rapl": ("cpu_package", True), "external": ("wall", False),
}  # fmt: skip
GPU_SOURCES, HOST_SOURCES = ("nvml_energy", "nvml_power"), ("tegra", "rapl")

Read = Callable[[], "float | None"]  # joules since some time, or current watts


@dataclass(frozen=True)
class Reading:
    """A readable source. read: returns joules for counters, else watts."""

    name: str
    read: Read

    @property
    def scope(self) -> str:
        return SOURCES[self.name][0]

    @property
    def counts(self) -> bool:
        return SOURCES[self.name][1]


class Rapl:
    """Energy of all CPU packages since it was opened, joules; the counters wrap around at `max_energy_range_uj`."""

    def __init__(self, zones: list[Path]) -> None:
        self._zones = [(zone, int(read_text(zone / "max_energy_range_uj").strip() or 0)) for zone in zones]
        self._before: list[int | None] = [None] * len(zones)
        self._total = 0

    def __call__(self) -> float | None:
        for k, (zone, span) in enumerate(self._zones):
            text = read_text(zone / "energy_uj").strip()
            if not text.isdigit():
                return None
            now, before = int(text), self._before[k]
            self._before[k] = now
            if before is not None:
                self._total += now - before + (span if now < before else 0)
        return self._total / 1e6


def open_sources(root: Path = ROOT) -> list[Reading]:
    """All sources that are readable on this machine."""
    found = []
    if ina := _ina3221(root):
        found.append(Reading("tegra", ina))
    if zones := _packages(root, readable=True):
        found.append(Reading("rapl", Rapl(zones)))
    gpu = open_nvml() if root == ROOT else None
    if gpu is not None:
        found += _of_gpu(gpu)
    return [one for one in found if one.read() is not None]


def _of_gpu(gpu: Nvml) -> list[Reading]:
    """The energy counter of the board if it has one, else its power."""
    return [Reading("nvml_energy", gpu.energy_j)] if gpu.energy_j() is not None else [Reading("nvml_power", gpu.power_w)]


def _packages(root: Path, *, readable: bool) -> list[Path]:
    zones = sorted((root / RAPL).glob("intel-rapl:[0-9]*"))
    mine = [zone for zone in zones if read_text(zone / "name").startswith("package")]
    return [zone for zone in mine if not readable or os.access(zone / "energy_uj", os.R_OK)]


def _ina3221(root: Path) -> Read | None:
    """Power of the module's rail from sysfs, watts: volts times amperes."""
    for label in sorted((root / "sys/bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*/in*_label")):
        if read_text(label).strip() in MODULE_RAILS:
            number = label.name[len("in") : -len("_label")]
            volts, amperes = label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input")

            def read(volts: Path = volts, amperes: Path = amperes) -> float | None:
                texts = [read_text(path).strip() for path in (volts, amperes)]
                return int(texts[0]) * int(texts[1]) / 1e6 if all(text.isdigit() for text in texts) else None

            return read
    return None


def tegrastats_command() -> list[str] | None:
    """The command for `tegrastats` ten times per second, if it is installed and sysfs has no sensor."""
    tool = shutil.which("tegrastats")
    return None if tool is None else [tool, "--interval", "100"]


def parse_tegrastats(line: str) -> float | None:
    """Power of the module's rail in a line of tegrastats ("VDD_IN 4012mW/4010mW"), watts; None without it."""
    found = RAIL.search(line)
    return None if found is None else int(found[2]) / 1e3


def no_power(machine: Machine, on_gpu: bool, root: Path = ROOT) -> tuple[str, str]:
    """Why no source is readable: a reason of docs/measurement.md, section 10, and a hint."""
    if on_gpu:
        if not have("pynvml"):
            return "tool_missing", "pip install 'octc[power]'"
        return "no_sensor", "use a meter: --power-csv FILE"
    if _packages(root, readable=False):
        return "no_permission", "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
    if machine.virtual:
        return "virtual_machine", "measure on the machine itself, or use a meter: --power-csv FILE"
    return "no_sensor", "use a meter: --power-csv FILE"


def first_line(command: list[str]) -> subprocess.Popen[str]:
    """Start tegrastats as a process with readable output."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
