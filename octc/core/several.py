"""One thing or several: a lone path in place of a list is that path, never its letters."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any


def several(given: Any, *kinds: type) -> tuple[Any, ...]:
    """All that was given, in its order; a text, a path, one of `kinds`, or whatever cannot be gone through counts as one.

    >>> several("scan.jpeg"), several(["a.jpeg", "b.jpeg"])
    (('scan.jpeg',), ('a.jpeg', 'b.jpeg'))
    """
    if isinstance(given, (str, os.PathLike, *kinds)) or not isinstance(given, Iterable):
        return (given,)
    return tuple(given)
