"""Columns of very many texts: their bytes on a spool, equality and order as numbers, each read again when it is asked for."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from octc.bench.parity.tables.spool import Spool

ROWS = 65_536  # texts that are looked at together
STEP = 7  # bytes of a text that are ranked at a time; the eighth of a word says how many more there are
MORE = STEP + 1
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]


def _common(texts: Sequence[bytes]) -> bytes:
    """What all of these begin with."""
    low, high = min(texts, default=b""), max(texts, default=b"")
    return low[: next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))]


class Texts:
    """A column of texts in the order of its rows. `shared`: what all of them begin with (None: no row)."""

    def __init__(self, spool: Spool) -> None:
        self._spool, self._lengths = spool, array("i")
        self.shared: bytes | None = None

    def __len__(self) -> int:
        return len(self._lengths)

    def extend(self, texts: Sequence[str]) -> None:
        """More rows."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        if encoded:
            ends = [min(encoded), max(encoded)]
            self.shared = _common(ends if self.shared is None else [*ends, self.shared])
            self._spool.write(b"".join(encoded))
            self._lengths.extend(map(len, encoded))

    @property
    def lengths(self) -> Int32:
        """Bytes of each row."""
        return np.frombuffer(self._lengths, np.int32) if self._lengths else np.empty(0, np.int32)

    @cached_property
    def _ends(self) -> Int64:
        return np.cumsum(self.lengths, dtype=np.int64)

    def of(self, rows: npt.NDArray[np.integer[Any]]) -> list[str]:
        """The texts of some rows."""
        bytes_of, ends = self._spool.view(), self._ends[rows]
        starts = (ends - self.lengths[rows]).tolist()
        return [bytes_of[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends.tolist(), strict=True)]

    def words(self, begin: int, rows: Int64 | None = None) -> UInt64:
        """Seven bytes of each text from `begin` on, as numbers in their order; last byte: how many are left there, 8: more.

        rows: those that are wanted, ascending (None: all).
        """
        found, lengths, start = [np.empty(0, np.uint64)], self.lengths, 0
        for first in range(0, len(lengths), ROWS):
            own = lengths[first : first + ROWS].astype(np.int64)
            size = int(own.sum())
            places = np.cumsum(own) - own
            if rows is not None:
                low, high = np.searchsorted(rows, [first, first + ROWS]).tolist()
                own, places = (part[rows[low:high] - first] for part in (own, places))
            if len(own):
                data = np.frombuffer(self._spool.read(start, size) + b"\0", np.uint8)
                found.append(_words(data, places + begin, own - begin))
            start += size
        return np.concatenate(found)


def _words(data: npt.NDArray[np.uint8], places: Int64, left: Int64) -> UInt64:
    word = np.zeros(len(places), np.uint64)
    for byte in range(STEP):
        value = np.where(left > byte, data[np.minimum(places + byte, len(data) - 1)], 0)
        word = (word << np.uint64(8)) | value.astype(np.uint64)
    return (word << np.uint64(8)) | np.clip(left, 0, MORE).astype(np.uint64)


def ranks_of(columns: Sequence[Texts]) -> list[Int32]:
    """Numbers of the texts of all columns together: equal where two texts are, else in their order (by code points).

    A rank is how many of the texts come before. Texts are compared, not digests of them. Few bytes are looked at: what all
    begin with is left out, and a text that no other one equals so far is not read on.
    """
    total = sum(map(len, columns))
    bounds = np.cumsum([0, *map(len, columns)])
    rank, begin = np.zeros(total, np.int32), len(_common([one.shared for one in columns if one.shared is not None]))
    rows: Int64 | None = None
    while rows is None or len(rows):
        parts = [None if rows is None else rows[(rows >= a) & (rows < b)] - a for a, b in pairwise(bounds)]
        word = np.concatenate([one.words(begin, part) for one, part in zip(columns, parts, strict=True)])
        order = np.argsort(word) if rows is None else np.lexsort((word, rank[rows]))
        word = word[order]
        if rows is not None:
            order = rows[order]
        more = _rank(rank, order, word)
        rows, begin = np.sort(order[more]), begin + STEP
    return [rank[a:b] for a, b in pairwise(bounds)]


def _rank(rank: Int32, order: Int64, word: UInt64) -> npt.NDArray[np.bool_]:
    """Refine the ranks of sorted rows by their words; which of them are equal so far and have more to be looked at."""
    if not len(order):
        return np.zeros(0, np.bool_)
    before = rank[order]
    group = np.concatenate([[True], before[1:] != before[:-1]])
    part = group.copy()
    part[1:] |= word[1:] != word[:-1]
    starts, wider = np.flatnonzero(part), np.flatnonzero(group)
    sizes = np.diff(starts, append=len(order))
    step = starts - wider[np.searchsorted(wider, starts, side="right") - 1]
    rank[order] = before + np.repeat(step.astype(np.int32), sizes)
    again = (sizes > 1) & ((word[starts] & np.uint64(255)) == MORE)
    out: npt.NDArray[np.bool_] = np.repeat(again, sizes)
    return out


class Names(Sequence[str]):
    """The texts of some rows of a column, each read when it is asked for."""

    def __init__(self, texts: Texts, rows: npt.NDArray[np.integer[Any]]) -> None:
        self._texts, self._rows = texts, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        return self._texts.of(self._rows[i]) if isinstance(i, slice) else self._texts.of(self._rows[[i]])[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), ROWS):
            yield from self[start : start + ROWS]
