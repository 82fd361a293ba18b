"""Ids in ascending order, sorted only once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
import numpy.typing as npt

Order = npt.NDArray[np.int64]


class SortedIds(Sequence[str]):
    """Ids in ascending order; the underlying sequence may read them lazily."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[str]: ...
    def __getitem__(self, i: int | slice) -> str | Sequence[str]:
        return self._ids[i]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)


def sorted_ids(ids: Sequence[str]) -> tuple[SortedIds, Order | None]:
    """The sorted ids, and their original indices; None if they were already sorted."""
    if isinstance(ids, SortedIds):
        return ids, None
    if all(one <= other for one, other in pairwise(ids)):
        return SortedIds(ids), None
    order = np.argsort(np.asarray(ids), kind="stable")
    return SortedIds([ids[i] for i in order.tolist()]), order
