"""What many tests start from (a trained run, its artifacts) is made once, and kept as long as the code that makes it is alike.

It lies in pytest's cache folder, which git does not know: on a fresh clone it is made once for all processes of a session. A
test that changes something takes a copy; what was changed all the same is made anew by the next session.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".pytest_cache" / "made-once"
MAKERS = ("octc", "runtimes", "bench", "train", "compress", "export", "cli")
RECIPES = (
    "tests/integration/made_once.py",
    "tests/tiny_run.py",
    "tests/tiny_artifacts.py",
    "tests/cli/verify_runs.py",
    "tests/volume_run.py",
)
LIBRARIES = (
    "torch",
    "timm",
    "numpy",
    "pillow",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "ai-edge-litert",
    "safetensors",
)
# what chooses the kernels with which it is made (tests/isa.py)
KERNELS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


def made_once(name: str, make: Callable[[Path], None], base: Path = KEPT, digest: str | None = None) -> Path:
    """base/NAME/DIGEST, filled by `make(folder)` unless that was done before; under a lock. Another digest's is removed."""
    place = base / name / (digest or digest_of_makers())
    whole = place.with_suffix(".whole")
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place in _seen:
            return place
        if not whole.is_file() or whole.read_text() != content_of(place):
            for old in place.parent.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
                elif old.suffix == ".whole":
                    old.unlink()
            place.mkdir()
            make(place)
            whole.write_text(content_of(place))
        _seen.add(place)
    return place


_seen: set[Path] = set()  # looked at by this process: its tests may not change it, and the next session will see if they did


def content_of(folder: Path) -> str:
    """A digest of names and bytes."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(f"{path.relative_to(folder)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


@cache
def digest_of_makers(root: Path = ROOT) -> str:
    """Of the sources, the libraries, the processor and the folder (a run names the place of its images)."""
    found = hashlib.sha256(f"{root}\n{platform.python_version()}\n{platform.machine()}\n".encode())
    for name in LIBRARIES:
        found.update(f"{name}=={metadata.version(name)}\n".encode())
    for name in KERNELS:
        found.update(f"{name}={os.environ.get(name, '')}\n".encode())
    found.update(_processor().encode())
    for path in sorted([*(p for top in MAKERS for p in (root / top).rglob("*.py")), *(root / name for name in RECIPES)]):
        found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
