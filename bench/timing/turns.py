"""Latency of several engines in interleaved rounds, so that a temporary slowdown of the machine affects all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from octc.bench.timing.latency import median_of
from octc.bench.timing.load_generator import block
from octc.core.progress import LogReporter, Reporter

Network = Callable[[npt.NDArray[np.uint8]], object]
ROUNDS, SECONDS, IMAGES = 7, 0.3, 8  # rounds, seconds per visit, images in rotation


def medians(
    networks: Sequence[Network],
    images: npt.NDArray[np.uint8],
    reporter: Reporter | None = None,
    *,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> list[float]:
    """The median latency per image of each network, ms: batch 1, interleaved rounds (docs/measurement.md, section 12).

    Args:
        networks: callables on uint8 [1, C, S, S]. images: uint8 [N, C, S, S]; the first 8 are used in rotation.
        rounds: visits of each network. seconds: minimum duration of a visit; its first call is not counted, because the caches
            still hold the previous network.
    """
    times: list[list[float]] = [[] for _ in networks]
    few = [np.array(images[i : i + 1]) for i in range(min(IMAGES, len(images)))]
    with (reporter or LogReporter()).progress("latency", rounds * len(networks)) as step:
        for _ in range(rounds):
            for network, kept in zip(networks, times, strict=True):
                found = block(lambda i, call=network: call(few[i % len(few)]), seconds=seconds, calls=5)  # type: ignore[misc]
                kept += [ns / 1e6 for ns in found[1:]]
                step(1)
    return [median_of(kept) for kept in times]
