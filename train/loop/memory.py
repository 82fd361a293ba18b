"""Keep freed memory in the process. glibc hands big blocks back at once, and training asks for them again every step.

Measured with benchmarks/memory.py: twice the training throughput of tf_efficientnet_lite0 at 224 px on two cores
(docs/experiments.md).
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_memory() -> bool:
    """Tell glibc's malloc to serve blocks up to 1 GiB from the heap and not to trim it. False where there is no glibc."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)) and bool(libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))
    except (OSError, AttributeError):
        return False
