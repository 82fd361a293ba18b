"""Rows of prediction tables as arrays, and the rows that two tables and their truth have in common."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.bench.parity.tables.columns import SEVERAL, Answer
from octc.bench.parity.tables.read import Source
from octc.core.cells import NO_LABEL, given, label_of, text_of
from octc.core.errors import OctcError, shorten

JOINT = " / "  # between the cells of a key
YES = {"1", "true", "yes", "right", "correct"}
NO = {"0", "false", "no", "wrong", "incorrect"}
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class Keys:
    """The keys of all tables, numbered as they come: each text is held once, however many tables have it."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, key: str) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def names(self) -> list[str]:
        """By number."""
        return list(self._numbers)


@dataclass(frozen=True)
class Truth:
    """Numbers of keys of rows, their classes (texts, or a set of findings), who they belong to, their eyes."""

    keys: Int64
    labels: Sequence[Any]
    patients: Sequence[str | None]
    eyes: Sequence[str | None]


@dataclass(frozen=True)
class Answered:
    """Numbers of keys, and what a table says of its rows: numbers [n, columns], or (form "answers") one text a row."""

    source: Source
    answer: Answer
    keys: Int64
    values: Float64 | None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unmatched:
    """Keys that not every table has, by what is said of them."""

    rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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


def _bad_cell(source: Source, line: int, column: str, what: str, hint: str) -> OctcError:
    return OctcError("OCT-E209", f"column {column!r}: {what}", hint=hint, place=f"{source.path}:{line}")


def _key(source: Source, line: int, cells: Sequence[Any]) -> str:
    if len(cells) == 1 and isinstance(cells[0], str) and (text := cells[0].strip()):
        return text
    parts = [text_of(cell) for cell in cells]
    if not all(parts):
        text = "a row without a key"
        raise OctcError("OCT-E209", text, hint="--key COLUMN that every row fills", place=f"{source.path}:{line}")
    return parts[0] if len(parts) == 1 else JOINT.join(parts)


def _once(source: Source, numbers: array[int], keys: Keys) -> Int64:
    """The numbers as an array, each of them once."""
    found = np.frombuffer(numbers, np.int64) if numbers else np.empty(0, np.int64)
    known, counts = np.unique(found, return_counts=True)
    if len(known) < len(found):
        names = keys.names()
        twice = sorted(names[i] for i in known[counts > 1].tolist())
        text = f"{len(twice):,} keys stand twice in {source.name}: {shorten(twice)}"
        raise OctcError("OCT-E706", text, hint="--key COLUMN,COLUMN that name a row together", place=str(source.path))
    return found


def read_truth(
    source: Source,
    key: Sequence[str],
    columns: Sequence[str],
    findings: Sequence[str],
    beside: tuple[str | None, str | None],
    keys: Keys,
) -> Truth:
    """The truth of a table; a row whose cell of the class says nothing has none. beside: columns of the patient and the eye.

    Raises:
        OctcError: E209 a row without a key, a finding that is neither yes nor no; E706 keys that stand twice.
    """
    numbers, labels, patients, eyes = array("q"), [], [], []
    more = [name for name in beside if name is not None]
    shared: dict[str, str] = {}  # one text for all rows that say the same
    for line, cells in source.rows([*key, *columns, *more]):
        own = cells[len(key) : len(key) + len(columns)]
        rest = iter(cells[len(key) + len(columns) :])
        label: Any = None
        if findings:
            label = frozenset(
                name for name, cell in zip(findings, own, strict=True) if yes_or_no(source, line, name, cell) == 1
            )
        elif columns:
            label = label_of(own[0])
            label = shared.setdefault(label, label)
        numbers.append(keys.number(_key(source, line, cells[: len(key)])))
        labels.append(label)
        patients.append(_named(rest, beside[0], shared))
        eyes.append(_named(rest, beside[1], shared))
    return Truth(_once(source, numbers, keys), labels, patients, eyes)


def _named(cells: Iterator[Any], column: str | None, shared: dict[str, str]) -> str | None:
    if column is None or not (text := given(next(cells))):
        return None
    return shared.setdefault(text, text)


def yes_or_no(source: Source, line: int, column: str, cell: Any) -> float:
    """1 or 0; NaN for a cell that says that there is none."""
    text = text_of(cell).casefold()
    if text in YES or text in NO:
        return 1.0 if text in YES else 0.0
    if text in NO_LABEL:
        return math.nan
    raise _bad_cell(source, line, column, f"{text[:40]!r} is neither right nor wrong", "1 or 0, true or false")


def number_of(source: Source, line: int, column: str, cell: Any) -> float:
    """A number; NaN for a cell that says that there is none."""
    if not label_of(cell):
        return math.nan
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise _bad_cell(source, line, column, f"{str(cell)[:40]!r} is no number", "a number in every row") from None


def read_answers(source: Source, key: Sequence[str], answer: Answer, keys: Keys) -> Answered:
    """What a table says of its rows.

    Raises:
        OctcError: E209 a row without a key, a cell that is no number, or neither right nor wrong; E706 keys that stand twice.
    """
    numbers, values = array("q"), array("d")
    texts: list[str] = []
    one_of: Callable[[Source, int, str, Any], float] = yes_or_no if answer.form == "right" else number_of
    shared: dict[str, str] = {}
    count, plain = len(key), answer.form != "right"
    for line, cells in source.rows([*key, *answer.columns]):
        own = cells[count:]
        numbers.append(keys.number(_key(source, line, cells[:count])))
        if answer.form == "answers":
            text = label_of(own[0])
            texts.append(shared.setdefault(text, text))
        else:
            try:
                numbers_of = list(map(float, own)) if plain else None
            except (TypeError, ValueError):
                numbers_of = None
            values.extend(
                numbers_of
                if numbers_of is not None
                else [one_of(source, line, name, cell) for name, cell in zip(answer.columns, own, strict=True)]
            )
    found = np.frombuffer(values, np.float64) if values else np.empty(0)
    wide = None if answer.form == "answers" else found.reshape(-1, len(answer.columns))
    return Answered(source, answer, _once(source, numbers, keys), wide, tuple(texts))


def findings_of(cell: str) -> frozenset[str]:
    """The findings that one cell lists."""
    for sign in SEVERAL:
        if sign in cell:
            return frozenset(part.strip() for part in cell.split(sign) if part.strip())
    return frozenset([cell]) if cell else frozenset()


def common_rows(reference: Answered, candidate: Answered, truth: Truth | None, keys: Keys) -> tuple[Int64, Unmatched]:
    """Numbers of the keys, in the order of their names, that every table has and whose class is known; and all others."""
    names = keys.names()
    first, second = reference.keys, candidate.keys
    a, b = reference.source.name, candidate.source.name
    if a == b:
        a, b = str(reference.source.path), str(candidate.source.path)
    both = np.intersect1d(first, second)
    rows = {f"only in {a}": np.setdiff1d(first, second), f"only in {b}": np.setdiff1d(second, first)}
    if truth is not None:
        known = truth.keys[np.array([label != "" for label in truth.labels], bool)]
        rows["without a label"] = np.setdiff1d(both, known)
        rows["with a label that neither table answers"] = np.setdiff1d(np.setdiff1d(known, first), second)
        both = np.intersect1d(both, known)
    named = {where: tuple(sorted(names[i] for i in found.tolist())) for where, found in rows.items() if len(found)}
    ordered = sorted(both.tolist(), key=names.__getitem__)
    return np.array(ordered, np.int64), Unmatched(named)


def order_of(numbers: Int64, wanted: Int64) -> Int64:
    """Where the wanted numbers stand among all."""
    where = np.empty(int(numbers.max()) + 1, np.int64)
    where[numbers] = np.arange(len(numbers))
    out: Int64 = where[wanted]
    return out
