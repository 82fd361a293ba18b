"""One thing or several: a single path given in place of a list counts as one path."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any


def several(given: Any, *kinds: type) -> tuple[Any, ...]:
    """The items as a tuple; a text, a path, an instance of `kinds` or a non-iterable counts as one item.

    >>> several("scan.jpeg"), several(["a.jpeg", "b.jpeg"])
    (('scan.jpeg',), ('a.jpeg', 'b.jpeg'))
    """
    if isinstance(given, (str, os.PathLike, *kinds)) or not isinstance(given, Iterable):
        return (given,)
    return tuple(given)
