"""One answer for an eye from the answers for its B-scans. The way is data: a name and a number, as an artifact keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError

Floats = npt.NDArray[np.float64]
METHODS = ("mean", "top", "largest", "noisy-or")
LEAST = 1e-12


@dataclass(frozen=True)
class Aggregation:
    """How B-scans become an eye.

    Attributes:
        method: "mean" of the logits, "top": mean of the `top` largest probabilities of a class, "largest", or "noisy-or":
            1 - product of (1 - p), for a finding that one B-scan is enough for.
        top: B-scans that "top" takes.
        chosen_on: what the method was chosen on ("validation set"), or "" where it is the default.
    """

    method: str = "mean"
    top: int = 3
    chosen_on: str = ""

    def __post_init__(self) -> None:
        if self.method not in METHODS or self.top < 1:
            hint = f"one of: {', '.join(METHODS)}"
            raise OctcError("OCT-E104", f"aggregation {self.method!r} ({self.top})", hint=hint, place="--aggregation")

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method, "top": self.top, "chosen_on": self.chosen_on}

    @staticmethod
    def from_json(value: Any) -> Aggregation:
        """Raises OctcError E502 for what is none."""
        try:
            return Aggregation(str(value["method"]), int(value["top"]), str(value["chosen_on"]))
        except (KeyError, TypeError, ValueError, OctcError) as error:
            text = f"aggregation in the manifest is not valid: {error}"
            raise OctcError("OCT-E502", text, hint="do not use this artifact", place="artifact.json") from error


def aggregate(probabilities: Floats, how: Aggregation, *, exclusive: bool = True) -> Floats:
    """Probabilities of B-scans -> of the eye.

    Args:
        probabilities: float64 [B-scans, K], at least one B-scan.
        exclusive: classes exclude each other: the result adds up to 1. Else each class is a finding of its own.

    Returns:
        float64 [K].

    >>> scans = np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> aggregate(scans, Aggregation("largest")).round(3).tolist()
    [0.529, 0.471]
    >>> aggregate(scans, Aggregation("mean")).round(3).tolist()
    [0.6, 0.4]
    """
    values = np.clip(np.asarray(probabilities, np.float64), LEAST, 1 - LEAST)
    if how.method == "mean":
        logits = np.log(values).mean(axis=0) if exclusive else np.log(values / (1 - values)).mean(axis=0)
        found = np.exp(logits - logits.max()) if exclusive else 1 / (1 + np.exp(-logits))
    elif how.method == "top":
        found = np.sort(values, axis=0)[-how.top :].mean(axis=0)
    elif how.method == "largest":
        found = values.max(axis=0)
    else:
        found = 1 - np.exp(np.log1p(-values).sum(axis=0))
    result: Floats = found / found.sum() if exclusive else found
    return result
