"""Compiled networks of OpenVINO in a cache folder of the user: opening an artifact again skips most of its compilation.

A kept network is found by what it was made of: the checksums of the model files, the version of the engine, the processor, the
settings and the shape. It holds its own checksum, which is compared before an engine sees a byte of it; what is damaged, or
of somebody else, is as if it was not there. An artifact itself is never written to.
"""

from __future__ import annotations

import os
import platform
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from octc.core.files import TEMPORARY, canonical_json, parse_json, sha256_bytes, write_bytes
from octc.machine.cpu import read_flags
from octc.store.artifacts import LARGEST, NOT_MODEL, Artifact

VARIABLE, OFF = "OCTC_COMPILED", "off"
FORMAT = 1  # raised where what is written here changes
SUFFIX = ".compiled"
MOST = 32  # networks that are kept; the one that was written first goes first
MOST_HEAD = 1 << 16  # bytes
KERNELS = ("ONEDNN_", "DNNL_", "OV_")  # variables of the engine that may choose other kernels
_writing = threading.Lock()


def cache_folder(environ: Mapping[str, str]) -> Path | None:
    """Where compiled networks are kept: OCTC_COMPILED, else octc/compiled in the user's cache folder (XDG_CACHE_HOME,
    ~/.cache); None where it is "off", or there is no home folder."""
    named = environ.get(VARIABLE)
    if named is not None:
        return None if named in ("", OFF) else Path(named).expanduser()
    home = environ.get("XDG_CACHE_HOME") or (f"{environ['HOME']}/.cache" if environ.get("HOME") else None)
    return None if home is None else Path(home) / "octc" / "compiled"


def key_of(artifact: Artifact, engine: str, settings: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """All that decides what a compiled network is. engine: with its full version. settings: of the engine, and the shape."""
    model, flags = read_flags()
    return {
        "format": FORMAT,
        "engine": engine,
        "files": {name: entry.sha256 for name, entry in sorted(artifact.files.items()) if name not in NOT_MODEL},
        "machine": platform.machine(),
        "processor": sha256_bytes(" ".join((model, *flags)).encode()),
        "settings": {name: str(value) for name, value in sorted(settings.items())},
        "variables": {name: value for name, value in sorted(environ.items()) if name.startswith(KERNELS)},
    }


def read_compiled(folder: Path, key: Mapping[str, Any]) -> bytes | None:
    """The compiled network of a key; None where there is none that is whole and this user's own."""
    with suppress(OSError, ValueError):
        handle = os.open(_path(folder, key), os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as stream:
            info = os.fstat(handle)
            if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022 or info.st_size > LARGEST:
                return None
            head = parse_json(stream.readline(MOST_HEAD), MOST_HEAD)
            data = stream.read()
        if isinstance(head, dict) and head.get("key") == key and head.get("sha256") == sha256_bytes(data):
            return data
    return None


def write_compiled(folder: Path, key: Mapping[str, Any], data: bytes) -> None:
    """Keep a compiled network, whole or not at all, and let go of the oldest ones beyond MOST.

    Raises:
        OSError, OctcError: the folder cannot be written to.
    """
    path = _path(folder, key)
    head = canonical_json({"key": key, "sha256": sha256_bytes(data)})
    with _writing:  # a temporary file is named after its process
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_bytes(path, head + b"\n" + data)
        path.chmod(0o600)
        _tidy(folder, path)


def _tidy(folder: Path, mine: Path) -> None:
    """Let go of the oldest networks; `mine` was written just now. What is later than it was written before the clock was set
    back, and goes first. Other files are not looked at."""
    found = [path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith(TEMPORARY)]
    times = {path: _written(path) for path in found}
    now = times.get(mine, 0.0)
    for path in sorted(found, key=lambda one: (times[one] <= now, times[one], one == mine))[:-MOST]:
        path.unlink(missing_ok=True)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process let go of it
        return 0.0


def _path(folder: Path, key: Mapping[str, Any]) -> Path:
    return folder / f"{sha256_bytes(canonical_json(key))}{SUFFIX}"
