"""What stands in for an engine or a graph in tests: a runtime that computes in Python, the normalisation as a formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from octc.imaging.preprocess import Float32, Preprocess, UInt8
from octc.runtimes.base import closed, no_facts


def normalised(batch: UInt8, pre: Preprocess) -> Float32:
    """uint8 [N, channels, H, W] -> float32 [N, 3, H, W]: (x / 255 - mean) / std, what every exported graph computes."""
    mean = np.asarray(pre.mean, np.float32).reshape(1, 3, 1, 1)
    std = np.asarray(pre.std, np.float32).reshape(1, 3, 1, 1)
    return (batch.astype(np.float32) / np.float32(255) - mean) / std


class FakeRuntime:
    """A runtime without an engine, for tests of whoever calls one: `compute` decides what it says.

    Attributes:
        calls: size of every batch that it was given.
    """

    def __init__(self, compute: Callable[[UInt8], Any], name: str = "fake", **facts: Any) -> None:
        self.name = name
        self.facts: dict[str, Any] = {**no_facts("fake", "0"), "threads": 1, **facts}
        self.calls: list[int] = []
        self._compute: Callable[[UInt8], Any] | None = compute

    def __call__(self, batch: UInt8) -> Float32:
        if self._compute is None:
            raise closed(self.name)
        self.calls.append(len(batch))
        return np.asarray(self._compute(batch), dtype=np.float32)

    def precision_found(self) -> dict[str, int]:
        return {"fp32": 1}

    def close(self) -> None:
        self._compute = None
