"""Rows of prediction tables as arrays, and the rows that two tables and their truth have in common.

Of a row as little is held as the statistics need: its key and its patient become numbers (their texts lie on a spool, and are
compared as texts), its class a code, its scores lie on a spool until it is known where the row belongs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.bench.parity.tables.columns import SEVERAL, Answer
from octc.bench.parity.tables.read import Block, Source
from octc.bench.parity.tables.spool import Spool
from octc.bench.parity.tables.texts import Int32, Names, Texts, ranks_of
from octc.core.cells import NO_LABEL, NO_PATIENT, label_of, plain, text_of, trimmed
from octc.core.errors import OctcError, shorten

JOINT = " / "  # between the cells of a key
YES = {"1", "true", "yes", "right", "correct"}
NO = {"0", "false", "no", "wrong", "incorrect"}
ROWS = 65_536  # whose scores are held at once
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


class Codes:
    """Values that occur often, numbered as they come."""

    def __init__(self) -> None:
        self._codes: dict[Any, int] = {}

    def of(self, values: Sequence[Any]) -> Int32:
        codes = self._codes
        return np.array([codes.setdefault(value, len(codes)) for value in values], np.int32)

    @property
    def values(self) -> list[Any]:
        """By code."""
        return list(self._codes)


class Table:
    """A table that is read: its keys are kept the first time, and the rows are the same every time."""

    def __init__(self, source: Source, key: Sequence[str], spool: Callable[[], Spool]) -> None:
        self.source, self.spool = source, spool
        self.keys = Texts(spool())
        self._key, self._read = key, False

    def read(self, columns: Sequence[str], take: Callable[[Block], Callable[[], None]]) -> None:
        """Give every block of these columns to `take`, which checks it, and does then what it returns.

        Where a block is at fault its rows are given one by one, so that the first of them is named.

        Raises:
            OctcError: E209 a row without a key, another number of rows than the first time; of `take`.
        """
        first, count = not self._read, len(self._key)
        rows = 0

        def one(block: Block) -> None:
            keys = _keys(self.source, block, count) if first else []
            keep = take(Block(block.lines, block.columns[count if first else 0 :]))
            if first:
                self.keys.extend(keys)
            keep()

        for block in self.source.blocks([*(self._key if first else ()), *columns]):
            rows += len(block)
            try:
                one(block)
            except OctcError as error:
                if error.exit_code == 4:
                    raise
                for row in block.single():
                    one(row)
        if not first and rows != len(self.keys):
            text = f"{len(self.keys):,} rows were read, and the next time {rows:,}"
            raise OctcError("OCT-E209", text, hint="compare tables that nobody writes to", place=str(self.source.path))
        self._read = True


@dataclass
class Truth:
    """Codes of the classes of the rows (texts, or a set of findings), who they belong to (None: nobody is known), their eyes.

    Attributes:
        kinds: the class of each code; [None] where no column says it.
    """

    table: Table
    codes: Int32
    kinds: list[Any]
    patients: Texts | None
    eyes: tuple[Int32, list[str]] | None


@dataclass(frozen=True)
class Answered:
    """What a table says of its rows: numbers [n, columns] on a spool, or (form "answers") a code for each, and its text."""

    table: Table
    answer: Answer
    values: Spool | None
    codes: Int32 | None = None
    kinds: Sequence[str] = ()

    @property
    def source(self) -> Source:
        return self.table.source

    def blocks(self) -> Iterator[tuple[slice, Float64]]:
        """The numbers, some rows at a time."""
        assert self.values is not None
        width = len(self.answer.columns)
        for start in range(0, len(self.table.keys), ROWS):
            size = min(ROWS, len(self.table.keys) - start)
            data = self.values.read(start * width * 8, size * width * 8)
            yield slice(start, start + size), np.frombuffer(data, np.float64).reshape(size, width)


@dataclass(frozen=True)
class Unmatched:
    """Keys that not every table has, by what is said of them."""

    rows: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(len(keys) for keys in self.rows.values())

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every key with what is said of it."""
        return [(key, where) for where, keys in self.rows.items() for key in keys]

    def sentences(self) -> list[str]:
        """A sentence for each kind, with up to ten keys."""
        return [f"{len(keys):,} {where}: {shorten(keys)}" for where, keys in self.rows.items() if keys]

    def held(self) -> Unmatched:
        """The same, when the tables are gone."""
        return Unmatched({where: tuple(keys) for where, keys in self.rows.items()})


@dataclass(frozen=True)
class Common:
    """Rows that every table has and whose class is known, in the order of their keys: where they stand in each."""

    rows: Mapping[Table, Int32]
    unmatched: Unmatched


def _bad_cell(source: Source, line: int, column: str, what: str, hint: str) -> OctcError:
    return OctcError("OCT-E209", f"column {column!r}: {what}", hint=hint, place=f"{source.path}:{line}")


def texts_of(cells: Sequence[Any]) -> list[str]:
    """`text_of` of a column."""
    try:
        texts = list(map(str.strip, cells))
        return texts if all(map(str.isascii, texts)) else list(map(trimmed, texts))
    except TypeError:
        return [text_of(cell) for cell in cells]


def _without(nothing: frozenset[str], texts: Sequence[str]) -> list[str]:
    """Texts, "" in place of those that say that there is nothing."""
    return ["" if text.casefold() in nothing else text for text in texts]


def _keys(source: Source, block: Block, count: int) -> list[str]:
    parts = [texts_of(column) for column in block.columns[:count]]
    for part in parts:
        if not all(part):
            line = block.lines[part.index("")]
            text = "a row without a key"
            raise OctcError("OCT-E209", text, hint="--key COLUMN that every row fills", place=f"{source.path}:{line}")
    return parts[0] if count == 1 else [JOINT.join(cells) for cells in zip(*parts, strict=True)]


def read_truth(
    table: Table,
    columns: Sequence[str],
    findings: Sequence[str],
    beside: tuple[str | None, str | None],
    codes: Codes,
) -> Truth:
    """The truth of a table; a row whose cell of the class, or of any of the findings that have a column each, says nothing has
    none.

    Args:
        beside: columns of the patient and the eye. codes: of the classes; the same for tables that are compared.

    Raises:
        OctcError: E209 a row without a key, a finding that is neither yes nor no.
    """
    source, found, own_eyes = table.source, [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    patients = None if beside[0] is None else Texts(table.spool())
    eyes = Codes()
    names = [*columns, *(name for name in beside if name is not None)]

    def take(block: Block) -> Callable[[], None]:
        cells = dict(zip(names, block.columns, strict=True))
        labels: list[Any] = [None] * len(block)
        if findings:
            named = zip(findings, (block.columns[i] for i in range(len(columns))), strict=True)
            marks = [(name, yes_or_no(source, block, name, column)) for name, column in named]
            unknown = [any(math.isnan(own[i]) for _, own in marks) for i in range(len(block))]
            found_ones = (frozenset(name for name, own in marks if own[i] == 1) for i in range(len(block)))
            labels = ["" if empty else own for own, empty in zip(found_ones, unknown, strict=True)]
        elif columns:
            labels = _without(NO_LABEL, texts_of(block.columns[0]))
        whose, eye = (None if name is None else _without(NO_PATIENT, texts_of(cells[name])) for name in beside)

        def keep() -> None:
            found.append(codes.of(labels))
            if patients is not None and whose is not None:
                patients.extend(whose)
            if eye is not None:
                own_eyes.append(eyes.of(eye))

        return keep

    table.read(names, take)
    seen = None if beside[1] is None else (np.concatenate(own_eyes), eyes.values)
    return Truth(table, np.concatenate(found), codes.values, patients, seen)


def yes_or_no(source: Source, block: Block, column: str, cells: Sequence[Any]) -> list[float]:
    """1 or 0 of each cell; NaN for one that says that there is none."""
    found = []
    for line, text in zip(block.lines, texts_of(cells), strict=True):
        word = text.casefold()
        if word in YES or word in NO:
            found.append(1.0 if word in YES else 0.0)
        elif word in NO_LABEL:
            found.append(math.nan)
        else:
            raise _bad_cell(source, line, column, f"{word[:40]!r} is neither right nor wrong", "1 or 0, true or false")
    return found


def numbers_of(source: Source, block: Block, column: str, cells: Sequence[Any]) -> list[float]:
    """Numbers of a column; NaN for a cell that says that there is none."""
    try:
        return list(map(float, cells))
    except (TypeError, ValueError, OverflowError):
        return [_number(source, line, column, cell) for line, cell in zip(block.lines, cells, strict=True)]


def _number(source: Source, line: int, column: str, cell: Any) -> float:
    if not label_of(cell):
        return math.nan
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        raise _bad_cell(source, line, column, f"{str(cell)[:40]!r} is no number", _meant(str(cell))) from None


def _meant(cell: str) -> str:
    """What to do with a cell that is no number, but would be one in another spelling."""
    for sign, other, hint in ((",", ".", "write decimals with a point"), ("%", "", "write shares of 1, not percent")):
        with suppress(ValueError):
            if sign in cell:
                float(cell.replace(sign, other))
                return f"{hint}, in every row of both tables"
    return "a number in every row"


def read_answers(table: Table, answer: Answer) -> Answered:
    """What a table says of its rows.

    Raises:
        OctcError: E209 a row without a key, a cell that is no number, or neither right nor wrong.
    """
    if answer.form == "answers":
        codes, found = Codes(), [np.empty(0, np.int32)]

        def take_texts(block: Block) -> Callable[[], None]:
            texts = _without(NO_LABEL, texts_of(block.columns[0]))
            return lambda: found.append(codes.of(texts))

        table.read(answer.columns, take_texts)
        return Answered(table, answer, None, np.concatenate(found), codes.values)
    read, values = yes_or_no if answer.form == "right" else numbers_of, table.spool()

    def take(block: Block) -> Callable[[], None]:
        named = zip(answer.columns, block.columns, strict=True)
        numbers = np.array([read(table.source, block, name, cells) for name, cells in named], np.float64)
        return lambda: values.write(numbers.T.tobytes())

    table.read(answer.columns, take)
    return Answered(table, answer, values)


def findings_of(cell: str) -> frozenset[str]:
    """The findings that one cell lists."""
    for sign in SEVERAL:
        if sign in cell:
            return frozenset(part.strip() for part in cell.split(sign) if part.strip())
    return frozenset([cell]) if cell else frozenset()


def numbers_of_keys(tables: Sequence[Table]) -> dict[Table, Int32]:
    """The keys of all tables as numbers in their order: one key has one number.

    Raises:
        OctcError: E706 keys that stand twice in one table.
    """
    ranks = dict(zip(tables, ranks_of([table.keys for table in tables]), strict=True))
    for table, own in ranks.items():
        ordered = np.sort(own)
        again = ordered[1:] == ordered[:-1]
        if again.any():
            twice = np.unique(ordered[1:][again])
            named = Names(table.keys, places_of(own)[twice])
            source = table.source
            text = f"{len(twice):,} keys stand twice in {source.name}: {shorten(named)}"
            raise OctcError("OCT-E706", text, hint="--key COLUMN,COLUMN that name a row together", place=str(source.path))
    return ranks


def places_of(numbers: Int32, size: int | None = None) -> Int32:
    """Row of each number, the last one where there are several; -1 where there is none. A number of -1 is none."""
    where = np.full(int(numbers.max(initial=-1)) + 1 if size is None else size, -1, np.int32)
    rows = np.arange(len(numbers), dtype=np.int32)
    known = numbers >= 0
    where[numbers if known.all() else numbers[known]] = rows if known.all() else rows[known]
    return where


def check_same_truth(truth: Truth, other: Truth, numbers: Mapping[Table, Int32]) -> None:
    """Refuse a second table that states another truth (E706); one that states none, or other rows, is no contradiction."""
    if other.kinds == [None]:
        return
    ours, theirs = numbers[truth.table], numbers[other.table]
    size = 1 + max(int(ours.max(initial=-1)), int(theirs.max(initial=-1)))
    known = np.full(size, -1, np.int32)
    known[ours] = truth.codes
    mine = known[theirs]
    wrong = np.flatnonzero((mine >= 0) & (mine != other.codes))
    if len(wrong):
        source = other.table.source
        named = Names(other.table.keys, wrong[np.argsort(theirs[wrong])])
        text = f"the tables state another truth for {len(wrong):,} rows: {shorten(named)}"
        raise OctcError("OCT-E706", text, hint="--labels TABLE with the truth", place=str(source.path))


def check_same_patients(truth: Truth, other: Truth, numbers: Mapping[Table, Int32]) -> None:
    """Refuse a second table that puts rows together by patient in another way (E706); other names for the same are none."""
    if truth.patients is None or other.patients is None:
        return
    own, keys = patient_numbers(truth.patients), numbers[truth.table]
    size = 1 + max(int(keys.max(initial=-1)), int(numbers[other.table].max(initial=-1)))
    place = places_of(keys, size)[numbers[other.table]]
    theirs = patient_numbers(other.patients)
    ours = np.where(place >= 0, own[place], np.int32(-1))
    rows = np.flatnonzero((ours >= 0) & (theirs >= 0))
    sides = ours[rows], theirs[rows]
    found: list[tuple[int, int, int]] = []  # row of the table, side, row before it of the same patient there
    for side in (0, 1):
        first = places_of(sides[side][::-1])
        before = len(rows) - 1 - first[sides[side]] if len(rows) else first
        if len(wrong := np.flatnonzero(sides[1 - side][before] != sides[1 - side])):
            found.append((int(wrong[0]), side, int(before[wrong[0]])))
    if found:
        row, side, before_it = min(found)
        names = Names(other.table.keys, rows[[before_it, row]])
        sources = truth.table.source, other.table.source
        a, b = sources[side].name, sources[1 - side].name
        text = f"the tables say otherwise who rows belong to: {names[0]} and {names[1]} are one patient's in {a}"
        hint = "--labels TABLE with the truth and the patients"
        raise OctcError("OCT-E706", f"{text}, two patients' in {b}", hint=hint, place=str(sources[1].path))


def same_patients(patients: Texts, spool: Callable[[], Spool]) -> list[str]:
    """The patients that differ only in letter case, blanks, or as 123 and 123.0 do."""
    rows = places_of(patient_numbers(patients)) if patients.lengths.any() else np.empty(0, np.int32)
    rows = rows[rows >= 0]
    spelt = Texts(spool())
    for start in range(0, len(rows), ROWS):
        spelt.extend([plain(one) for one in patients.of(rows[start : start + ROWS])])
    own = ranks_of([spelt])[0]
    return patients.of(rows[np.bincount(own, minlength=1)[own] > 1])


def common_rows(sides: tuple[Table, Table], truth: Truth | None, numbers: Mapping[Table, Int32]) -> Common:
    """Rows that every table has and whose class is known, in the order of their keys; and all others."""
    size = 1 + max(int(own.max(initial=-1)) for own in numbers.values())
    has = {table: _marked(size, own) for table, own in numbers.items()}
    first, second = (has[side] for side in sides)
    a, b = (side.source.name for side in sides)
    if a == b:
        a, b = (str(side.source.path) for side in sides)
    both = first & second
    rows = {f"only in {a}": (sides[0], first & ~second), f"only in {b}": (sides[1], second & ~first)}
    if truth is not None:
        empty = [code for code, kind in enumerate(truth.kinds) if kind == ""]
        known = _marked(size, numbers[truth.table][~np.isin(truth.codes, empty)])
        rows["without a label"] = (sides[0], both & ~known)
        rows["with a label that neither table answers"] = (truth.table, known & ~first & ~second)
        both &= known
    unmatched = {
        where: Names(table.keys, places_of(numbers[table], size)[np.flatnonzero(own)])
        for where, (table, own) in rows.items()
        if own.any()
    }
    ordered = np.flatnonzero(both)
    return Common({table: places_of(own, size)[ordered] for table, own in numbers.items()}, Unmatched(unmatched))


def _marked(size: int, numbers: Int32) -> Bool:
    found = np.zeros(size, np.bool_)
    found[numbers] = True
    return found


def patient_numbers(patients: Texts) -> Int32:
    """A number for each row's patient, in the order of their names; -1 where it is not known."""
    found = ranks_of([patients])[0]
    return np.where(patients.lengths > 0, found, np.int32(-1))
