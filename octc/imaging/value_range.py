"""The stored grey values of a set of images: which part of their scale they use, and the range that would use all of it."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from octc.core.errors import OctcError
from octc.imaging.decode import Values

TOPS = {
    "uint8": 255.0,
    "int8": 255.0,
    "uint12": 4095.0,
    "uint16": 65535.0,
    "int16": 65535.0,
    "int32": 65535.0,
    "uint32": 65535.0,
}
FEW = {"uint8": 64}  # grey levels of 256, below which something is said: a dark set of 8 bits is nothing unusual
HALF = 128


@dataclass(frozen=True)
class StoredValues:
    """What the images of one type hold, over a set.

    images: how many. low, high: the least and the largest value of all. uneven: they are scaled by different maxima.
    """

    images: int
    low: float
    high: float
    uneven: bool = False

    def levels(self, kind: str) -> int:
        """Grey levels of 256 that are left after the rule without a stated range."""
        low, top = min(0.0, self.low), max(self.high, TOPS.get(kind, 1.0))
        return round(255 * (self.high - max(low, self.low)) / (top - low)) + 1

    @property
    def proposed(self) -> Values:
        """A range that uses the scale: from 0 to the next 2^n - 1, or the values themselves where those lie far from 0."""
        if self.low < 0 or self.low > self.high / 4 or self.high < 1:
            return self.low, self.high if self.high > self.low else self.low + 1
        return 0.0, float(2 ** math.ceil(math.log2(self.high + 1)) - 1)

    def to_json(self) -> dict[str, Any]:
        return {"images": self.images, "low": self.low, "high": self.high}


def value_range_of(text: str | None) -> Values | None:
    """`--value-range LOW,HIGH` as two numbers (OctcError E104 for anything else).

    >>> value_range_of("0,4095"), value_range_of("-1.5:1.5")
    ((0.0, 4095.0), (-1.5, 1.5))
    """
    if text is None:
        return None
    try:
        low, high = (float(one) for one in re.split(r"[,:]", text))
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError
    except ValueError:
        hint = "two numbers, LOW below HIGH: 0,4095 for 12 bits"
        raise OctcError("OCT-E104", f"--value-range {text}", hint=hint, place="--value-range") from None
    return low, high


def stored_values(found: Iterable[tuple[str, float, float]]) -> dict[str, StoredValues]:
    """Type -> what its images hold; (type, low, high) of each image."""
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for kind, low, high in found:
        rows[kind].append((low, high))
    return {
        kind: StoredValues(
            len(pairs), min(low for low, _ in pairs), max(high for _, high in pairs),
            len({(min(0.0, low), max(high, TOPS.get(kind, 1.0))) for low, high in pairs}) > 1,
        )
        for kind, pairs in sorted(rows.items())
    }  # fmt: skip


def doubts(known: Mapping[str, StoredValues], stated: Values | None) -> list[tuple[str, str]]:
    """(sentence, hint) of each type whose values use less than half of the scale, are scaled unevenly, or are cut off."""
    found = []
    for kind, one in known.items():
        span = f"{one.images} images hold {kind} from {one.low:g} to {one.high:g}"
        low, high = one.proposed
        hint = f"--value-range {low:.10g},{high:.10g} uses the whole scale, in training and wherever the artifact runs"
        if stated is not None and (kind != "uint8" or stated[1] <= 255):
            if one.low < stated[0] or one.high > stated[1]:
                text = f"{span}: what lies outside of {stated[0]:g} to {stated[1]:g} is cut off"
                found.append((text, "a wider --value-range, if that is not meant"))
        elif one.uneven:
            found.append((f"{span}: each is scaled by its own values, and one grey is another in each", hint))
        elif one.high > one.low and one.levels(kind) < FEW.get(kind, HALF):
            found.append((f"{span}: {one.levels(kind)} of 256 grey levels are left", hint))
    return found
