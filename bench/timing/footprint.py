"""How large an artifact is on disk and in memory."""

from __future__ import annotations

import sys
from pathlib import Path

from octc.machine.cpu import ROOT, read_text
from octc.store.artifacts import GOLDEN, USAGE, Artifact

NOT_MODEL = (GOLDEN, USAGE)  # travel with the model, and are not loaded to run it


def file_mib(artifact: Artifact) -> float:
    """Size of the model files, MiB."""
    return sum(entry.bytes for name, entry in artifact.files.items() if name not in NOT_MODEL) / 2**20


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
