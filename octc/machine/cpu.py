"""The processor as data: instruction set, cores, affinity, quota, and how many threads a runtime is given.

Method: docs/measurement.md, sections 6 and 7. What cannot be read is "unknown" or None, never a guess.
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
SYSTEM_CPUS = "sys/devices/system/cpu"

# token -> every set of x86 flags that gives it
X86: dict[str, tuple[frozenset[str], ...]] = {
    "avx2": (frozenset({"avx2"}),),
    "avx512": (frozenset({"avx512f", "avx512bw", "avx512vl"}),),
    "vnni": (frozenset({"avx512_vnni"}), frozenset({"avx_vnni"})),
    "avx512-bf16": (frozenset({"avx512_bf16"}),),
    "avx512-fp16": (frozenset({"avx512_fp16"}),),
    "amx": (frozenset({"amx_tile", "amx_int8"}),),
}
ARM: dict[str, tuple[frozenset[str], ...]] = {
    "neon": (frozenset({"asimd"}),),
    "neon-fp16": (frozenset({"asimdhp"}),),
    "neon-dotprod": (frozenset({"asimddp"}),),
    "i8mm": (frozenset({"i8mm"}),),
    "sve": (frozenset({"sve"}),),
    "sme": (frozenset({"sme"}),),
}
FAMILIES = {"x86_64": X86, "amd64": X86, "i686": X86, "i386": X86, "aarch64": ARM, "arm64": ARM}
# token -> class, the strongest first
EVERY = "every"  # what a file says that is for all processors
CLASSES = {
    "amx": "x86-amx", "vnni": "x86-vnni", "avx512": "x86-avx512", "avx2": "x86-avx2",
    "i8mm": "arm-i8mm", "neon-dotprod": "arm-dotprod", "neon": "arm-neon",
}  # fmt: skip
FAST_INT8 = ("vnni", "amx", "neon-dotprod")


@dataclass(frozen=True)
class Cpus:
    """Which processors there are, and which of them this process may use.

    Attributes:
        logical: all that are on line. affinity: the scheduler's mask of this process.
        cpuset: what the control group allows, or None where there is none.
        core_of: logical -> name of the physical core that it is a thread of.
        fast: performance cores of a hybrid processor, or None.
        quota: processors' worth of time that the control group allows, or None.
    """

    logical: tuple[int, ...]
    affinity: tuple[int, ...]
    cpuset: tuple[int, ...] | None
    core_of: Mapping[int, str]
    fast: tuple[int, ...] | None
    quota: float | None

    @property
    def usable(self) -> tuple[int, ...]:
        """Mask and cpuset together."""
        both = set(self.affinity) & set(self.affinity if self.cpuset is None else self.cpuset)
        return tuple(sorted(both or self.affinity))

    @property
    def physical(self) -> int:
        """Physical cores of the machine."""
        return len({self.core_of[cpu] for cpu in self.logical})

    @property
    def smt(self) -> bool:
        """Whether a core has more than one thread on line."""
        return self.physical < len(self.logical)


# bits of AT_HWCAP and AT_HWCAP2 on 64-bit Arm (arch/arm64/include/uapi/asm/hwcap.h)
HWCAP = {"asimd": 1, "asimdhp": 10, "asimddp": 20, "sve": 22}
HWCAP2 = {"i8mm": 13, "bf16": 14, "sme": 23}


def arm_flags(root: Path = ROOT) -> tuple[str, ...]:
    """Flags of a 64-bit Arm processor from the auxiliary vector of this process: the emulated one's under qemu-user, whose
    /proc/cpuinfo is that of the machine below."""
    try:
        known = dict(struct.iter_unpack("=QQ", (root / "proc/self/auxv").read_bytes()))
    except (OSError, struct.error):
        return ()
    parts = ((HWCAP, known.get(16, 0)), (HWCAP2, known.get(26, 0)))
    return tuple(name for names, bits in parts for name, place in names.items() if bits >> place & 1)


def isa_tokens(flags: Iterable[str], machine: str) -> tuple[str, ...]:
    """Tokens of the instruction set that a kernel's CPU flags stand for; ("unknown",) where nothing can be said."""
    have, table = frozenset(flags), FAMILIES.get(machine.lower())
    if not have or table is None:
        return ("unknown",)
    return tuple(token for token, ways in table.items() if any(way <= have for way in ways))


def cpu_class(tokens: Iterable[str], machine: str) -> str:
    """One word for the instruction set: x86-vnni, arm-dotprod, ... or "unknown"."""
    have = set(tokens)
    found = next((name for token, name in CLASSES.items() if token in have), None)
    if found is not None:
        return found
    return "x86-baseline" if FAMILIES.get(machine.lower()) is X86 and "unknown" not in have else "unknown"


def family_of(kind: str | None = None) -> str | None:
    """x86, arm or None (another one). kind: `platform.machine()`, which names this machine where it is None."""
    word = (platform.machine() if kind is None else kind).lower()
    if word.startswith(("arm", "aarch64")):
        return "arm"
    return "x86" if FAMILIES.get(word) is X86 else None


def why_other_family(made_for: str | None, kind: str | None = None) -> str | None:
    """Why a file is not for this processor, in one sentence; None where it is, or nothing is known of one of the two."""
    here = family_of(kind)
    if made_for in (None, EVERY) or here is None or here == made_for:
        return None
    return f"it is made for {made_for} processors, and this one is {here}"


def usable_threads(cpus: Cpus | None = None) -> tuple[int, str]:
    """Threads for a runtime, and what decided: "quota", "affinity" or "physical_cores".

    min(physical cores among the usable processors, max(1, floor(quota))); on hybrid processors the performance cores.
    """
    known = cpus or read_cpus()
    usable = known.usable
    fast = tuple(cpu for cpu in usable if known.fast is None or cpu in known.fast) or usable
    cores = len({known.core_of[cpu] for cpu in fast})
    if known.quota is not None and max(1, int(known.quota)) < cores:
        return max(1, int(known.quota)), "quota"
    return cores, "affinity" if len({known.core_of[cpu] for cpu in usable}) < known.physical else "physical_cores"


def reading_pool() -> ThreadPoolExecutor:
    """Threads that read, decode and hash files (all of which let go of the interpreter): as many as `usable_threads` gives, so
    that a container's quota counts, and at least two, because one that waits for the disk computes nothing."""
    return ThreadPoolExecutor(max_workers=max(2, usable_threads()[0]))


def read_flags(root: Path = ROOT) -> tuple[str, tuple[str, ...]]:
    """(model name, flags) of the first processor in /proc/cpuinfo; ("unknown", ()) where there is none."""
    model = "unknown"
    flags: tuple[str, ...] = ()
    for line in read_text(root / "proc/cpuinfo").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in ("model name", "Model", "Hardware") and model == "unknown":
            model = value
        if key in ("flags", "Features") and not flags:
            flags = tuple(value.split())
    return model if model != "unknown" else (platform.processor() or "unknown"), flags


def read_cpus(root: Path = ROOT, affinity: Iterable[int] | None = None) -> Cpus:
    """The processors as the kernel lists them. Without /sys every logical processor counts as a core."""
    mask = tuple(sorted(_affinity() if affinity is None else affinity))
    logical = parse_list(read_text(root / SYSTEM_CPUS / "online")) or mask
    names = {cpu: _core(root, cpu) for cpu in {*logical, *mask}}
    return Cpus(logical, mask, read_cpuset(root), names, _fast(root, logical), read_quota(root))


def parse_list(text: str) -> tuple[int, ...]:
    """The kernel's lists: "0-3,8" -> (0, 1, 2, 3, 8)."""
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def read_quota(root: Path = ROOT) -> float | None:
    """The tightest processor quota of this process's control group and its parents (v2 cpu.max or v1 cfs)."""
    limits = []
    for folder in groups(root, "cpu"):
        quota, _, period = read_text(folder / "cpu.max").strip().partition(" ")
        if not quota:
            quota, period = (read_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def read_cpuset(root: Path = ROOT) -> tuple[int, ...] | None:
    """Processors that the control group allows, or None where no control group says so."""
    for folder in groups(root, "cpuset"):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            if found := parse_list(read_text(folder / name)):
                return found
    return None


def read_throttled(root: Path = ROOT) -> int | None:
    """How often the scheduler held this control group back (`nr_throttled`), or None."""
    for folder in groups(root, "cpu"):
        for line in read_text(folder / "cpu.stat").splitlines():
            if line.startswith("nr_throttled "):
                return int(line.split()[1])
    return None


def read_text(path: Path) -> str:
    """A small file of the kernel; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control group for a controller, the own one first, then its parents (v1 and v2)."""
    base = root / "sys/fs/cgroup"
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        mine = controllers.split(",")
        places = [base, base / "unified"] if controllers == "" else [base / controllers, base / controller]
        if controllers and controller not in mine:
            continue
        for place in places:
            if place.is_dir():
                own = place / path.lstrip("/")
                yield from (folder for folder in (own, *own.parents) if folder == place or place in folder.parents)


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _core(root: Path, cpu: int) -> str:
    folder = root / SYSTEM_CPUS / f"cpu{cpu}/topology"
    for name in ("core_cpus_list", "thread_siblings_list"):
        if siblings := read_text(folder / name).strip():
            return siblings
    return f"cpu{cpu}"


def _fast(root: Path, logical: tuple[int, ...]) -> tuple[int, ...] | None:
    """Performance cores: Intel lists them; on Arm those of the highest capacity."""
    if listed := parse_list(read_text(root / "sys/devices/cpu_core/cpus")):
        return listed
    capacity = {cpu: read_text(root / SYSTEM_CPUS / f"cpu{cpu}/cpu_capacity").strip() for cpu in logical}
    if not all(value.isdigit() for value in capacity.values()) or len(set(capacity.values())) < 2:
        return None
    most = max(int(value) for value in capacity.values())
    return tuple(cpu for cpu, value in capacity.items() if int(value) == most)
