"""What an export found of the speed of INT8 beside FP32 on its own machine, as an artifact's details keep it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

KEY = "int8_speed"
NUMBERS = ("ratio", "low", "high")


def _found(details: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The entry, where it holds what `octc.export.int8_speed.measure_int8` writes."""
    found = details.get(KEY)
    if not isinstance(found, Mapping) or not all(isinstance(found.get(key), int | float) for key in NUMBERS):
        return None
    return found if all(math.isfinite(found[key]) for key in NUMBERS) else None


def is_slower(details: Mapping[str, Any], processor: str | None = None) -> bool:
    """Whether INT8 was shown to take longer than FP32; processor: only if it was on this one."""
    found = _found(details)
    return found is not None and found["low"] > 1 and processor in (None, found.get("processor"))


def speed_words(details: Mapping[str, Any]) -> str | None:
    """What was found, in a sentence; None where nothing was timed."""
    found = _found(details)
    if found is None:
        return None
    where, limits = f"in {found.get('engine')} on this CPU", f"[{found['low']:.2f}, {found['high']:.2f}]"
    if is_slower(details):
        return f"INT8 takes {found['ratio']:.2g} times as long as FP32 {where} {limits}"
    if found["high"] < 1:
        return f"INT8 takes {found['ratio']:.2f} of the time of FP32 {where} {limits}"
    return f"INT8 is no faster than FP32 {where}: {found['ratio']:.2f} of its time {limits}"
