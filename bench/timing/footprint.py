"""How much memory a process held."""

from __future__ import annotations

import sys
from pathlib import Path

from octc.machine.cpu import ROOT, read_text


def rss_peak_mib(root: Path = ROOT) -> float | None:
    """The most memory that this process ever held (`VmHWM`), MiB; None where nothing says it."""
    for line in read_text(root / "proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
