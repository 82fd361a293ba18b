"""Folders as users have them: class trees of tiny images, and folders that cannot be entered."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from octc.imaging.decode import SUFFIXES

CAPABILITIES = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of linux/capability.h: what lets root read everything
DROP = 24  # PR_CAPBSET_DROP of linux/prctl.h


def write_tree(root: Path, paths: Iterable[str]) -> Path:
    """Images (by their ending, each with pixels of its own), folders (with a "/" at the end) and other files below `root`."""
    for name in paths:
        path = root / name
        assert path.is_relative_to(root), name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("._"):
            pixels = np.random.default_rng(crc32(name.encode())).integers(0, 256, (40, 40), dtype=np.uint8)
            Image.fromarray(pixels).save(path, "PNG")
        else:
            path.write_bytes(b"x")
    return root


def of_parts(parts: Iterable[str], classes: Iterable[str] = ("CNV", "DME"), images: int = 2) -> list[str]:
    """PART/CLASS/CLASS-PATIENT-INDEX.png ("" is no part); no patient is in two parts."""
    return [
        f"{part}/{name}/{name}-{1000 * (p + 1) + 10 * c + i}-1.png".removeprefix("/")
        for p, part in enumerate(parts)
        for c, name in enumerate(classes)
        for i in range(images)
    ]


def write_abyss(folder: Path) -> Path:
    """Folders in `folder`, with an image in the last one, that no path reaches: it would be longer than a system allows.

    The folder that cannot be listed by its path, not even by root.
    """
    name = "d" * 240
    handle = os.open(folder, os.O_RDONLY)
    place = folder
    while len(os.fsencode(place)) < 4096:
        os.mkdir(name, dir_fd=handle)
        deeper = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle, place = deeper, place / name
    with os.fdopen(os.open("CNV-77-1.png", os.O_CREAT | os.O_WRONLY, dir_fd=handle), "wb") as stream:
        stream.write(b"x")
    os.close(handle)
    return place


def obey_permissions() -> None:
    """For `preexec_fn`: root obeys permissions like anybody else in the program that is started (nothing for others)."""
    if os.geteuid() == 0:
        for capability in CAPABILITIES:
            if ctypes.CDLL(None, use_errno=True).prctl(DROP, capability, 0, 0, 0) != 0:
                os._exit(99)


def must_obey() -> None:
    """Skip where this process cannot start one that obeys permissions (root without the right to give rights away)."""
    if subprocess.run([sys.executable, "-c", ""], preexec_fn=obey_permissions, check=False).returncode == 99:
        pytest.skip("root may not drop its capabilities here")
