"""Is INT8 worth it here? What was written is timed beside FP32 on the same engine: a second, call by call in turns.

That is no benchmark (`octc bench` is one): it finds a file that takes twice as long as FP32, before anybody deploys it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from octc.compress.simplify.activation import smooth_activations
from octc.core.progress import Reporter
from octc.core.targets import TARGETS
from octc.export.formats import FORMATS
from octc.machine.cpu import read_flags
from octc.stats.proportions import half_tail
from octc.store.artifacts import Artifact
from octc.store.int8_speed import is_slower, speed_words

SECONDS, WARM = 1.0, 3
FEWEST, MOST = 9, 400  # pairs of calls: below nine the interval of a median is the range; more tell nothing new

Made = tuple[Path, Artifact]  # an artifact and the folder where it lies


def measure_int8(int8: Made, fp32: Made, open_artifact: Callable[[Path, Artifact], Any]) -> dict[str, Any]:
    """Time of INT8 over that of FP32, one image a call, both opened by `open_artifact`.

    Returns: for `octc.store.int8_speed.KEY` of the details: ratio (median of the pairs), low and high (95 % interval of that
        median, by order statistics), pairs, engine, processor, threads.
    """
    artifact, pre = int8[1], int8[1].preprocess
    image = np.random.default_rng(0).integers(0, 256, (1, pre.channels, pre.size, pre.size), dtype=np.uint8)
    with closing(open_artifact(*int8)) as small, closing(open_artifact(*fp32)) as large:
        ratios = _pairs(lambda: small(image), lambda: large(image))
        threads = getattr(small, "facts", {}).get("threads")
    low, high = median_limits(ratios)
    return {
        "ratio": round(float(np.median(ratios)), 3), "low": round(low, 3), "high": round(high, 3), "pairs": len(ratios),
        "engine": TARGETS[artifact.target].title, "processor": read_flags()[0], "threads": threads,
    }  # fmt: skip


def _pairs(small: Callable[[], Any], large: Callable[[], Any]) -> list[float]:
    """Ratios of one call to the other, one after the other, the first of a pair in turns."""
    for call in (small, large) * WARM:
        call()
    found: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(found) < FEWEST or (time.perf_counter() < end and len(found) < MOST):
        seconds = {}
        for call in (small, large) if len(found) % 2 else (large, small):
            began = time.perf_counter_ns()
            call()
            seconds[call] = time.perf_counter_ns() - began
        found.append(seconds[small] / max(seconds[large], 1))
    return found


def median_limits(values: list[float]) -> tuple[float, float]:
    """95 % interval of the median from the sorted values, without an assumption about their distribution (sign test)."""
    ordered, n = sorted(values), len(values)
    k = next(k for k in range(1, n + 1) if k == n // 2 or half_tail(k, n) > 0.025) if n > 1 else 1
    return ordered[k - 1], ordered[n - k]


def say_speed(folder: Path, artifact: Artifact, reporter: Reporter, model: nn.Module) -> None:
    """How long INT8 takes beside FP32 here; a warning (OCT-W611) where it takes longer, which knows what the float model has.

    folder: of the artifact.
    """
    if (words := speed_words(artifact.details)) is None:
        return
    if not is_slower(artifact.details):
        reporter.say(f"    {words}")
        return
    others = [name for name, one in FORMATS.items() if "int8" in one.makers and "fp32" in one.makers]
    elsewhere = " or ".join(f"--target {name}" for name in others if FORMATS[name].artifact != artifact.target)
    simpler = ", octc simplify --activation hard-swish" if smooth_activations(model) else ""
    reporter.warn("OCT-W611", f"{words}: try {elsewhere}{simpler}, or deploy FP32 (octc bench)", path=str(folder))
