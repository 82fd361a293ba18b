"""A budget from its words: "5ms", "4MB", "20mJ"."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from octc.core.errors import OctcError
from octc.export.search.select import Budget

# unit -> field of a budget, and how many of the field's units it is
KINDS = {
    "us": ("ms", 1e-3), "ms": ("ms", 1.0), "s": ("ms", 1e3),
    "kb": ("mb", 1e-3), "mb": ("mb", 1.0), "kib": ("mb", 1024 / 1e6), "mib": ("mb", 2**20 / 1e6),
    "mj": ("mj", 1.0), "j": ("mj", 1e3),
}  # fmt: skip
WORDS = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*")
HINT = "--budget 5ms (also us, s), --budget 4MB (kB, KiB, MiB) or --budget 20mJ (J); several have to hold together"


def read_budget(texts: Sequence[str]) -> Budget:
    """The limits of `--budget`, one or several, also with commas.

    Raises:
        OctcError: E104 none, no number above 0, no unit or an unknown one; E102 two of one kind.
    """
    found: dict[str, float] = {}
    for text in [part for one in texts for part in one.split(",")]:
        match = WORDS.fullmatch(text)
        unit = match[2].lower() if match else ""
        number = float(match[1]) if match else math.nan
        if unit not in KINDS or not (number > 0 and math.isfinite(number)):
            raise OctcError(
                "OCT-E104", f"--budget {text.strip() or 'without a limit'} is no budget", hint=HINT, place="--budget"
            )
        name, factor = KINDS[unit]
        if name in found:
            hint = f"one limit of {name.replace('mb', 'MB').replace('mj', 'mJ')}"
            raise OctcError("OCT-E102", f"--budget {text.strip()} is a second limit of one kind", hint=hint, place="--budget")
        found[name] = number * factor
    if not found:
        raise OctcError("OCT-E104", "a search needs a budget", hint=HINT, place="--budget")
    return Budget(**found)
