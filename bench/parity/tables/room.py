"""Whether two tables fit into memory, before they are read: a comparison holds numbers of every row that it compares."""

from __future__ import annotations

from dataclasses import dataclass

from octc.bench.parity.tables.read import Source
from octc.core.errors import OctcError
from octc.machine.memory import free_mib

FIXED = 140.0  # MiB: Python, numpy, SciPy
ROW = 170  # bytes of a row that both tables have, with what the statistics hold at once (docs/compare.md: the measurement)
SCORE = 24  # bytes of each score of a row, of both tables
FINDINGS = 1200  # bytes more of a row with several findings, which is held as an object
MIB = 1 << 20


@dataclass(frozen=True)
class Room:
    """Rows of the longest table, and the memory that was free before any was read (MiB; None where nothing says it)."""

    rows: int
    free: float | None
    place: str

    def check(self, scores: int, *, several: bool = False) -> None:
        """Refuse more than fits (E904), with how many rows would.

        Args:
            scores: columns of a table's answers. several: whether a row has several findings.
        """
        needed = needed_mib(self.rows, scores, several=several)
        if self.free is None or needed <= self.free:
            return
        fits = max(0, int((self.free - FIXED) * MIB / row_bytes(scores, several=several)))
        text = f"{self.rows:,} rows need about {needed / 1024:.1f} GiB of memory, and {self.free / 1024:.1f} GiB are free"
        hint = f"a machine with more memory, or about {fits:,} rows of whole patients, drawn before the answers are looked at"
        raise OctcError("OCT-E904", text, hint=hint, place=self.place)


def row_bytes(scores: int, *, several: bool = False) -> int:
    """Bytes of a row of both tables, with that many scores in each."""
    return ROW + SCORE * scores + FINDINGS * several


def needed_mib(rows: int, scores: int, *, several: bool = False) -> float:
    """MiB that a comparison holds at most: of rows with that many scores in each of both tables."""
    return FIXED + rows * row_bytes(scores, several=several) / MIB


def read_room(sources: tuple[Source, ...]) -> Room:
    """The room for these tables; their lines are counted, and nothing of them is kept."""
    longest = max(sources, key=lambda source: source.lines)
    return Room(longest.lines, free_mib(), str(longest.path))
