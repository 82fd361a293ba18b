"""A Jetson's power mode, whether its clocks are locked, its release. Read, never set."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from octc.machine.cpu import ROOT, read_text

RELEASE = "etc/nv_tegra_release"
SECONDS = 5.0
MODE = re.compile(r"NV Power Mode: *(\S+)")
UNKNOWN: dict[str, Any] = {"power_mode": None, "jetson_clocks": None, "jetpack": None}


def read_jetson(root: Path = ROOT) -> dict[str, Any]:
    """power_mode (nvpmodel), jetson_clocks (whether every clock that can be scaled is locked), jetpack (release of L4T).

    All None on any other machine.
    """
    release = read_text(root / RELEASE).strip()
    if not release:
        return dict(UNKNOWN)
    found = re.search(r"R(\d+).*?REVISION: *([\d.]+)", release)
    name = f"L4T {found[1]}.{found[2]}" if found else release[:60]
    return {"power_mode": _mode(), "jetson_clocks": _locked(root), "jetpack": name}


def _mode() -> str | None:
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None
    try:
        done = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = MODE.search(done.stdout)
    return found[1] if found else None


def _locked(root: Path) -> bool | None:
    pairs = [
        (read_text(f / "min_freq").strip(), read_text(f / "max_freq").strip()) for f in (root / "sys/class/devfreq").glob("*")
    ]
    known = [(low, high) for low, high in pairs if low and high]
    return all(low == high for low, high in known) if known else None
