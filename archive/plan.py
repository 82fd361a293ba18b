"""Which inputs there are and which unit each belongs to, on disk: a Parquet file with one row group a unit.

A plan is never rewritten. Inputs that are found later go into a file of their own, with units of their own.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

from octc.archive.listing import Entry, in_blocks
from octc.core.errors import OctcError
from octc.core.files import entries, replacing
from octc.core.optional import need

FIRST = 100  # inputs of the first unit, which is looked at before the others
UNIT = 1000  # B-scans of a unit, about
MOST = 1000  # inputs of a unit
SHARE = 8  # a unit has an eighth of the inputs before it at most, so that every process has work where there are few inputs
PATH = "octc_path"  # column of the plan: the bytes of a name, which need not be UTF-8
FOLDER = "plan"


@dataclass(frozen=True)
class Unit:
    """So many inputs: a row group of a file of the plan. number: of all units, from 0. place: of its first input among all."""

    number: int
    file: str
    group: int
    inputs: int
    place: int


def write_plan(folder: Path, inputs: Iterator[Entry], user: Any, first: bool) -> int:
    """Write inputs as a further file of the plan, whole or not at all; how many there are (nothing is written for none)."""
    pa, parquet = need("pyarrow"), need("pyarrow.parquet")
    opening = next(inputs, None)
    if opening is None:
        return 0
    count = 0
    schema = pa.schema([pa.field(PATH, pa.binary()), *user])
    path = folder / f"plan-{len(plan_files(folder)):03d}.parquet"
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for unit in _cut(chain([opening], inputs), first):
            rows = [{PATH: os.fsencode(one.path), **one.user} for one in unit]
            writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=len(rows))
            count += len(rows)
    return count


def _cut(inputs: Iterator[Entry], first: bool) -> Iterator[list[Entry]]:
    """Units, by number and weight of their inputs."""
    unit: list[Entry] = []
    weight, least = 0, FIRST if first else MOST
    for count, one in enumerate(inputs):
        unit.append(one)
        weight += one.weight
        if len(unit) >= min(MOST, max(least, (count + 1 - len(unit)) // SHARE)) or weight >= UNIT:
            yield unit
            unit, weight = [], 0
    if unit:
        yield unit


def plan_files(folder: Path) -> list[Path]:
    """The files of a plan, the oldest first."""
    found = [path for path in entries(folder) if path.suffix == ".parquet" and path.name.startswith("plan-")]
    return sorted(found, key=lambda path: (len(path.name), path.name))  # 1000 is behind 999


def read_user_schema(folder: Path) -> Any:
    """The user's own columns, as a plan has them."""
    schema = need("pyarrow.parquet").read_schema(plan_files(folder)[0])
    return schema.remove(schema.get_field_index(PATH))


def read_units(folder: Path) -> list[Unit]:
    """All units of a plan, in order."""
    parquet = need("pyarrow.parquet")
    units: list[Unit] = []
    place = 0
    for path in plan_files(folder):
        with parquet.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                units.append(Unit(len(units), path.name, group, count, place))
                place += count
    return units


def planned_among(files: Iterable[Path], names: Iterable[str]) -> set[str]:
    """Which of these names are inputs of files of a plan."""
    wanted = {os.fsencode(name) for name in names}
    found: set[bytes] = set()
    for path in files if wanted else ():
        with need("pyarrow.parquet").ParquetFile(path) as file:
            for batch in file.iter_batches(columns=[PATH]):
                found |= wanted.intersection(batch.column(0).to_pylist())
    return {os.fsdecode(name) for name in found}


def lies_in_plan(files: Iterable[Path], folder: str) -> bool:
    """Whether an input of files of a plan lies in a folder, at any depth."""
    start = os.fsencode(folder.rstrip(os.sep) + os.sep)
    for path in files:
        with need("pyarrow.parquet").ParquetFile(path) as file:
            for batch in file.iter_batches(columns=[PATH]):
                if any(name.startswith(start) for name in batch.column(0).to_pylist()):
                    return True
    return False


def read_unit(folder: Path, unit: Unit) -> tuple[list[str], list[dict[str, Any]]]:
    """Paths of a unit's inputs, and the user's own columns of each."""
    with need("pyarrow.parquet").ParquetFile(folder / unit.file) as file:
        rows = file.read_row_group(unit.group).to_pylist()
    return [os.fsdecode(row.pop(PATH)) for row in rows], rows


def digest_of(states: Iterator[tuple[str, tuple[int, int]]]) -> str:
    """Of the paths of a unit with the size and time of change of each."""
    value = blake2b(digest_size=16)
    for path, (size, changed) in states:
        value.update(b"%s\0%d\0%d\n" % (os.fsencode(path), size, changed))
    return value.hexdigest()


Listing = Callable[[], Iterator[Entry]]


def compare_plan(folder: Path, units: list[Unit], listing: Listing, index: Path) -> tuple[list[str], Iterator[Entry]]:
    """A listing of today against the plan: the digest of each unit as its inputs are now, and inputs that are in no unit.

    Where nothing was added or removed the two run side by side, in constant memory; else a file, `index`, holds the plan.

    Raises:
        OctcError: E110 a table says something else of an input than when it was planned.
    """
    source = in_blocks(listing())
    digests: list[str] = []
    held: list[Entry] = []
    for unit in units:
        while len(held) < unit.inputs and (block := next(source, None)):
            held += block
        paths, rows = read_unit(folder, unit)
        mine = held[: unit.inputs]
        if [one.path for one in mine] != paths:
            return _by_name(folder, units, listing, index)
        for one, row in zip(mine, rows, strict=True):
            _check_columns(one, _words(row))
        digests.append(digest_of((one.path, one.state) for one in mine))
        del held[: unit.inputs]
    return digests, chain(held, chain.from_iterable(source))


def _by_name(folder: Path, units: list[Unit], listing: Listing, index: Path) -> tuple[list[str], Iterator[Entry]]:
    """The same where inputs came or went: they are found by their names. New ones are listed a second time, not kept."""
    base = sqlite3.connect(index)
    base.executescript(
        "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
        "CREATE TABLE old(path BLOB PRIMARY KEY, user BLOB, size INTEGER DEFAULT -1, changed INTEGER DEFAULT 0) WITHOUT ROWID;"
    )
    for unit in units:
        paths, rows = read_unit(folder, unit)
        pairs = [(os.fsencode(path), _words(row)) for path, row in zip(paths, rows, strict=True)]
        base.executemany("INSERT OR IGNORE INTO old(path, user) VALUES (?, ?)", pairs)
    fresh = 0
    for one in listing():
        known = base.execute("SELECT user FROM old WHERE path = ?", (os.fsencode(one.path),)).fetchone()
        fresh += known is None
        if known is not None:
            _check_columns(one, known[0])
            base.execute("UPDATE old SET size = ?, changed = ? WHERE path = ?", (*one.state, os.fsencode(one.path)))
    digests = []
    for unit in units:
        paths, _ = read_unit(folder, unit)
        look = "SELECT size, changed FROM old WHERE path = ?"
        digests.append(digest_of((path, base.execute(look, (os.fsencode(path),)).fetchone()) for path in paths))
    return digests, _new(base, listing) if fresh else iter(())


def _words(row: Mapping[str, Any]) -> bytes:
    """The user's own columns of an input, to be compared: NaN is like NaN here."""
    return repr(list(row.values())).encode(errors="backslashreplace")


def _check_columns(one: Entry, planned: bytes) -> None:
    """Rows would keep what the table said before (E110): a plan is never rewritten."""
    if _words(one.user) != planned:
        text = f"{one.path} has other columns in the table than when it was planned"
        hint = "another --out; or the table as it was, and the new columns joined to the rows"
        raise OctcError("OCT-E110", text, hint=hint, place=one.path)


def _new(base: sqlite3.Connection, listing: Listing) -> Iterator[Entry]:
    look = "SELECT 1 FROM old WHERE path = ?"
    return (one for one in listing() if base.execute(look, (os.fsencode(one.path),)).fetchone() is None)
