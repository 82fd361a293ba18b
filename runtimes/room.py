"""How many images are run at once, and what happens where memory is too short for so many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from octc.core.errors import OctcError
from octc.core.faults import fault_of
from octc.imaging.preprocess import Float32, Preprocess, UInt8
from octc.machine.cpu import ROOT
from octc.machine.memory import group_limit_mib, limit_words, rss_peak_mib

BATCH = 8  # images at once where nobody asked for a number
SHARE = 0.9  # of a limit that is used: the rest is the interpreter's to grow
SHORT = "OCT-E904"
Run = Callable[[UInt8], Float32]
Warn = Callable[[str, str], None]


@dataclass
class Batch:
    """Images in one call of a runtime. Halved where memory is short, if nobody asked for that many; each halving is told.

    Attributes:
        size: as it is now. asked: somebody wanted this number: it is not changed, and what does not fit is an error.
        warn: told of a halving (code, text). tried: sizes that did not fit.
    """

    size: int = BATCH
    asked: bool = False
    warn: Warn = lambda _code, _text: None
    tried: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The record of it: images at once, whether somebody asked for them, sizes that did not fit."""
        return {"images": self.size, "asked": self.asked, "too_large": list(self.tried)}

    def first(self, root: Path = ROOT) -> int:
        """Images of the shape that a runtime is opened with: one where `fit` looks first how much memory each takes."""
        return self.size if self.fixed(root) else 1

    def fixed(self, root: Path = ROOT) -> bool:
        """Whether the number needs no look at how much memory each image takes (`fit`)."""
        return self.asked or self.size == 1 or group_limit_mib(root) is None

    def run(self, model: Run, images: UInt8) -> Float32:
        """Logits of any number of images, `size` at a time.

        Raises:
            OctcError: E904 memory is short for one image, or for the size that was asked for; whatever the model raises.
        """
        while True:
            size = self.size  # another thread may halve it meanwhile
            try:
                parts = [model(images[start : start + size]) for start in range(0, len(images), size)]
                return np.concatenate(parts)
            except (OctcError, MemoryError) as error:
                self.halve(error)
                shape(model, self.size)

    def halve(self, error: BaseException) -> None:
        """Half as many from now on, where an error says that memory is short; else that error, with what would do."""
        fault = error if isinstance(error, OctcError) else fault_of(error)
        if not isinstance(fault, OctcError) or fault.code != SHORT:
            raise error
        if self.asked or self.size == 1:
            raise too_short(self.size, fault) from error
        self.shrink(self.size // 2, "memory is short for")

    def shrink(self, size: int, why: str) -> None:
        self.warn("OCT-W904", f"{why} {self.size} images at once, which nobody asked for: {size} from here on (--batch N)")
        self.tried.append(self.size)
        self.size = size

    def fit(self, model: Run, pre: Preprocess, root: Path = ROOT) -> None:
        """Where a control group limits memory: as many at once as its limit holds, told by a run of one image and one of two.

        Past that limit the system ends the process without a word, so it is looked at before.
        """
        limit = group_limit_mib(root)
        if self.fixed(root) or limit is None:
            return
        held = []
        for count in (1, 2):
            shape(model, count)
            model(np.full((count, pre.channels, pre.size, pre.size), 96, np.uint8))
            held.append(rss_peak_mib(root))
        one, two = held
        size = self.size
        if one is not None and two is not None:
            each = max(two - one, 3 * 4 * pre.size * pre.size / (1 << 20))
            while size > 1 and two + (size - 2) * each > SHARE * limit:
                size //= 2
        if size < self.size:
            self.shrink(size, f"the limit of {limit:.0f} MiB is short for")
        shape(model, self.size)


def shape(model: Run, size: int) -> None:
    """Tell an engine with a static shape that it is for so many images from now on: else fewer are filled up to as many."""
    if (resize := getattr(model, "resize", None)) is not None:
        resize(size)


def too_short(size: int, fault: OctcError) -> OctcError:
    """What would do where memory is short for so many images."""
    if size > 1:
        text = f"memory is exhausted by {size} images at once"
        return OctcError(SHORT, text, hint=f"--batch {size // 2}, or none: then it is halved until it fits", why=fault.why)
    room = limit_words()
    text = f"memory is exhausted by one image{f' ({room})' if room else ''}"
    hint = "raise the limit (ulimit -v, the container's memory), close other programs, or take a smaller network"
    return OctcError(SHORT, text, hint=hint, why=fault.why)
