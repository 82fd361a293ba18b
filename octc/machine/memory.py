"""Memory of this process: what it held, and what it may hold."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from octc.core.errors import OctcError
from octc.machine.cpu import ROOT, groups, read_text

NARROW = 2048.0  # MiB of address space below which libraries are told to take less of it
LEAST = 320.0  # MiB of address space: Python, numpy, SciPy and an engine with a small network (measured: 295)
ARENA_MAX = -8  # of mallopt
# OpenBLAS takes 32 MiB a thread when it is loaded, and waits without end for what it is not given
BLAS_THREADS = "OPENBLAS_NUM_THREADS"
EARLY = ("numpy", "scipy.special", "scipy.ndimage")  # whoever loads OpenBLAS, as far as it is installed
NO_LIMIT = 1 << 60  # bytes: version 1 of control groups writes a number of this size where there is no limit


def rss_peak_mib(root: Path = ROOT) -> float | None:
    """The most memory that this process ever held (`VmHWM`), MiB; None where nothing says it."""
    if peak := status_mib("VmHWM", root):
        return peak
    try:
        import resource
    except ImportError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def group_limit_mib(root: Path = ROOT) -> float | None:
    """The tightest limit of memory of this process's control group and its parents (v2 memory.max or v1), MiB; None without."""
    return min((limit / (1 << 20) for _, limit in _group_limits(root)), default=None)


def _group_limits(root: Path) -> Iterator[tuple[Path, int]]:
    """The control groups of this process that have a limit of memory, and the limit in bytes."""
    for folder in groups(root, "memory"):
        text = (read_text(folder / "memory.max") or read_text(folder / "memory.limit_in_bytes")).strip()
        if text.isdigit() and int(text) < NO_LIMIT:
            yield folder, int(text)


def free_mib(root: Path = ROOT) -> float | None:
    """Memory that this process may still take before the kernel ends it or refuses, MiB: what the machine has available, what
    its control groups leave, what `ulimit -v` leaves; None where nothing says it."""
    left = [float(mib)] if (mib := memory_mib("MemAvailable", root)) is not None else []
    left += ((limit - _held(folder)) / (1 << 20) for folder, limit in _group_limits(root))
    if (space := space_limit_mib()) is not None:
        left.append(space - status_mib("VmSize", root))
    return max(0.0, min(left)) if left else None


def _held(group: Path) -> int:
    """Bytes of a control group that the kernel cannot take back: what is no file's."""
    counted = dict(line.split(" ", 1) for line in read_text(group / "memory.stat").splitlines() if " " in line)
    return next((int(counted[name]) for name in ("anon", "total_rss", "rss") if name in counted), 0)


def memory_mib(name: str, root: Path = ROOT) -> int | None:
    """A line of /proc/meminfo ("MemTotal", "MemAvailable") in MiB."""
    for line in read_text(root / "proc/meminfo").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) // 1024
    return None


def status_mib(name: str, root: Path = ROOT) -> float:
    """A line of this process's status ("VmSize") in MiB; 0 where there is none."""
    found = (line for line in read_text(root / "proc/self/status").splitlines() if line.startswith(f"{name}:"))
    return next((int(line.split()[1]) / 1024 for line in found), 0.0)


def space_limit_mib() -> float | None:
    """The limit of the address space (`ulimit -v`), MiB; None without."""
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit / (1 << 20)


def limit_words(root: Path = ROOT) -> str:
    """The limits of this process in words; "" where there is none."""
    space, group = space_limit_mib(), group_limit_mib(root)
    found = [] if space is None else [f"address space limited to {space:.0f} MiB by ulimit -v"]
    return ", ".join(found + ([] if group is None else [f"memory limited to {group:.0f} MiB by the control group"]))


def spare_space(environ: MutableMapping[str, str]) -> bool:
    """Where the address space is limited: one arena of malloc in place of one a thread (64 MiB each), one thread of BLAS.

    Before numpy is imported. Children inherit it. The engines' own threads are not touched. Returns whether it was done.
    """
    limit = space_limit_mib()
    if limit is None or limit >= NARROW:
        return False
    environ.setdefault(BLAS_THREADS, "1")
    environ.setdefault("MALLOC_ARENA_MAX", "1")
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)
    return True


def check_space() -> None:
    """Before an engine is opened: is there address space for it at all? What else needs some takes it now, not halfway.

    Raises:
        OctcError: E906 the limit is too small.
    """
    limit = space_limit_mib()
    if limit is None or limit >= NARROW:
        return
    if limit < LEAST:
        text = f"address space limited to {limit:.0f} MiB: at least {LEAST:.0f} MiB are needed"
        raise OctcError("OCT-E906", text, hint=f"ulimit -v {int(LEAST) * 1280}   (KiB; or unlimited)")
    for name in EARLY:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
