"""This machine as data: processor, memory, disk, GPUs, load, and the versions of what is installed.

Nothing heavy is imported for it and nothing is changed. What cannot be read is None.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from octc.core.optional import WINGS, distribution_of
from octc.core.targets import TARGETS
from octc.machine.cpu import (
    ROOT,
    SYSTEM_CPUS,
    Cpus,
    arm_flags,
    cpu_class,
    family_of,
    isa_tokens,
    read_cpus,
    read_flags,
    read_text,
)
from octc.machine.emulated import emulated, emulated_flags
from octc.machine.jetson import UNKNOWN, read_jetson
from octc.machine.memory import memory_mib

BASE = ("octc", "numpy", "scipy", "pillow", "rich", "typer")
# limits on the instruction set that libraries take from the environment
FPMATH = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")  # float32 in fewer bits, of whoever asks for float32
ISA_LIMITS = (
    "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "OPENBLAS_CORETYPE", "MKL_ENABLE_INSTRUCTIONS", *FPMATH,
)  # fmt: skip
SMI_FIELDS = "name,compute_cap,driver_version,memory.total"
SMI_SECONDS = 5.0


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi names it. sm: compute capability, for example "8.7"."""

    name: str
    sm: str | None
    driver: str | None
    memory_mib: int | None


@dataclass(frozen=True)
class Machine:
    """What a result must say about the machine that it was measured on. load: average of one minute before the start."""

    name: str
    os: str
    cpu_model: str
    isa: tuple[str, ...]
    cpu_class: str
    cpus: Cpus
    governor: str | None
    ram_mib: int
    virtual: bool | None
    gpus: tuple[Gpu, ...]
    load: float | None
    isa_limits: dict[str, str]
    jetson: dict[str, Any] = field(default_factory=lambda: dict(UNKNOWN))

    def to_json(self) -> dict[str, Any]:
        """The `machine` object of a bench result (docs/measurement.md, section 17)."""
        return {
            "name": self.name,
            "os": self.os,
            "cpu_model": self.cpu_model,
            "cpu_class": self.cpu_class,
            "isa": list(self.isa),
            "cores_logical": len(self.cpus.logical),
            "cores_physical": self.cpus.physical,
            "affinity": list(self.cpus.usable),
            "cgroup_quota": self.cpus.quota,
            "smt": self.cpus.smt,
            "governor": self.governor,
            "ram_mib": self.ram_mib,
            "virtual": self.virtual,
            "gpus": [vars(gpu) for gpu in self.gpus],
            **self.jetson,
            "load_before": {"value": self.load} if self.load is not None else {"value": None, "reason": "not_readable"},
            "remote_host": None,
        }


def read_machine(root: Path = ROOT, *, gpus: bool = True) -> Machine:
    """Look at the machine. gpus: whether nvidia-smi is asked, which takes about a second where it is."""
    model, flags = read_flags(root)
    kind = platform.machine()
    flags = (arm_flags(root) or flags) if family_of(kind) == "arm" else emulated_flags(flags)
    tokens = isa_tokens(flags, kind)
    return Machine(
        name=host_name(),
        os=f"{platform.system()} {platform.release()}",
        cpu_model=emulated() or model,
        isa=tokens,
        cpu_class=cpu_class(tokens, kind),
        cpus=read_cpus(root),
        governor=_governor(root),
        ram_mib=memory_mib("MemTotal", root) or _ram_by_name(),
        virtual=_virtual(root, flags, kind),
        gpus=read_gpus() if gpus else (),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        isa_limits={name: os.environ[name] for name in ISA_LIMITS if name in os.environ},
        jetson=read_jetson(root),
    )


def host_name() -> str:
    """The host's name with nothing in it that a file name may not have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-.") or "unknown"


def cpu_times(root: Path = ROOT) -> tuple[int, int] | None:
    """(stolen, all) processor time of the machine since it was started, in ticks."""
    fields = read_text(root / "proc/stat").split("\n", 1)[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    return int(fields[8]), sum(int(value) for value in fields[1:9])  # guest time is part of user time


def read_gpus() -> tuple[Gpu, ...]:
    """NVIDIA GPUs that nvidia-smi lists; none where it is absent or does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    command = [tool, f"--query-gpu={SMI_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(gpu for line in done.stdout.splitlines() if (gpu := parse_gpu(line)) is not None)


def parse_gpu(line: str) -> Gpu | None:
    """One line of nvidia-smi's table: name, compute capability, driver, memory in MiB."""
    fields = [None if "N/A" in field or not field.strip() else field.strip() for field in line.split(",")]
    if len(fields) != len(SMI_FIELDS.split(",")) or fields[0] is None:
        return None
    memory = fields[3]
    return Gpu(fields[0], fields[1], fields[2], int(float(memory)) if memory is not None else None)


def libraries() -> tuple[str, ...]:
    """Distributions whose versions matter to a result: octc and its base, every engine, what trains and exports."""
    modules = (*(one.library for one in TARGETS.values()), *(module for extra in WINGS for module in WINGS[extra]))
    return (*BASE, *dict.fromkeys(distribution_of(module) for module in modules))


def versions(names: tuple[str, ...] | None = None) -> dict[str, str]:
    """Version of each distribution that is installed (`libraries` where none is named); none of them is imported."""
    found = {}
    for name in libraries() if names is None else names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _governor(root: Path) -> str | None:
    return read_text(root / SYSTEM_CPUS / "cpu0/cpufreq/scaling_governor").strip() or None


def _virtual(root: Path, flags: tuple[str, ...], kind: str) -> bool | None:
    """Whether a hypervisor is below; on x86 the flag says it, elsewhere the device tree may."""
    if "hypervisor" in flags or (root / "proc/device-tree/hypervisor").exists():
        return True
    return False if flags and kind.lower() in ("x86_64", "amd64", "i686", "i386") else None


def _ram_by_name() -> int:
    names = getattr(os, "sysconf_names", {})
    if "SC_PAGE_SIZE" in names and "SC_PHYS_PAGES" in names:
        return max(1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20)
    return 1
