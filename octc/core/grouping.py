"""Groups from pairs (union-find)."""

from __future__ import annotations

from collections.abc import Iterable


def roots_of(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """The group of each of `count` things, as the number of one of its members; pairs: numbers that belong together.

    The group of (a, b) is called as that of a was.

    >>> roots_of(5, [(0, 2), (2, 4)])
    [0, 1, 0, 3, 0]
    """
    parent = list(range(count))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = one = parent[parent[one]]
        return one

    for one, other in pairs:
        parent[root(other)] = root(one)
    return [root(one) for one in range(count)]
