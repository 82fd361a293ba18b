"""Prediction tables as files: CSV, JSON lines, Parquet; a block of rows at a time, and of it the columns that are asked for."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.core.optional import need
from octc.datasets.tables import Form, check_header, form_of
from octc.imaging.kinds import HEAD, foreign

LINE = 64 << 20  # characters of a line of JSON
FIRST = 100  # lines of JSON whose names are looked at
TAKEN = 1 << 22  # bytes at a time where lines are counted
ROWS = 1024  # of a block: as many as a processor's cache holds
HINT = "a table of predictions: CSV with a header, JSON lines with an object each, or Parquet"


@dataclass(frozen=True)
class Block:
    """Some rows that follow each other: their lines (or their numbers, from 1), and their cells by column."""

    lines: Sequence[int]
    columns: Sequence[Sequence[Any]]

    def __len__(self) -> int:
        return len(self.lines)

    def single(self) -> Iterator[Block]:
        """The same rows, one at a time."""
        for i, line in enumerate(self.lines):
            yield Block((line,), [column[i : i + 1] for column in self.columns])


@dataclass(frozen=True)
class Source:
    """A table that can be read as often as needed.

    blocks: names of columns -> rows, in order; a cell that is not there is None. A line that cannot be read is refused after
    the rows before it were given. count: how many rows, or a few more.
    """

    path: Path
    names: tuple[str, ...]
    blocks: Callable[[Sequence[str]], Iterator[Block]]
    count: Callable[[], int]

    @cached_property
    def sha256(self) -> str:
        """Checksum of the file."""
        return sha256_file(self.path)

    @cached_property
    def lines(self) -> int:
        """How many rows it has, or a few more: lines are counted, and a quoted cell may hold several."""
        return self.count()

    @property
    def name(self) -> str:
        return self.path.name


def is_table(path: Path) -> bool:
    """Whether a file is called like a table that `open_table` reads."""
    return path.suffix.casefold() in READERS


def table_hint(path: Path) -> str:
    """What to do with a file that is called like no table, by what it holds."""
    with path.open("rb") as stream:
        name, _ = foreign(stream.read(HEAD)) or ("", "")
    endings = f"a table of predictions is a file whose name ends in {', '.join(READERS)}"
    return f"{endings}; {path.name} is {name}: unpack it, or save it as one" if name else endings


def open_table(path: Path) -> Source:
    """A table by the ending of its name.

    Raises:
        OctcError: E209 it is none, or cannot be read; E901 Parquet without `octc[archive]`. Its rows raise E209 too.
    """
    reader = READERS.get(path.suffix.casefold())
    if reader is None:
        raise OctcError("OCT-E209", f"no table: {path.name}", hint=f"one of {', '.join(READERS)}", place=str(path))
    try:
        return reader(path)
    except (OSError, ValueError, csv.Error) as error:
        raise refused(path, error) from error


def refused(path: Path, error: Exception, line: int | None = None) -> OctcError:
    """E209 for what a reader raised."""
    reason = getattr(error, "strerror", None) or ("not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error))
    place = str(path) if line is None else f"{path}:{line}"
    return OctcError("OCT-E209", f"table cannot be read: {reason}", hint=HINT, place=place)


def _open_csv(path: Path) -> Source:
    form = form_of(path)
    with _lines_of(path, form) as lines:
        header = tuple(name.strip() for name in next(csv.reader(lines, delimiter=form.separator, strict=True), []))
    _check_names(path, header)

    def blocks(names: Sequence[str]) -> Iterator[Block]:
        return _gathered(_cells(path, form, len(header)), [header.index(name) for name in names])

    return Source(path, header, blocks, lambda: _lines(path))


def _cells(path: Path, form: Form, width: int) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV file below its header, without empty ones."""
    with _lines_of(path, form) as lines:
        reader = csv.reader(lines, delimiter=form.separator, strict=True)
        try:
            next(reader)
            for row in reader:
                if len(row) < 2 and not "".join(row).strip():
                    continue
                if len(row) != width:
                    raise ValueError(f"{len(row)} cells in a line, the header has {width}")
                yield reader.line_num + form.before, row
        except (OSError, ValueError, csv.Error) as error:
            raise refused(path, error, reader.line_num + form.before) from error


def _gathered(rows: Iterator[tuple[int, Any]], places: Sequence[Any], missing: bool = False) -> Iterator[Block]:
    """Rows as blocks of these columns; what stops them is raised after the rows before it. missing: a row may lack a column."""
    stopped: OctcError | None = None
    while stopped is None:
        lines: list[int] = []
        kept: list[Any] = []
        try:
            for line, row in islice(rows, ROWS):
                lines.append(line)
                kept.append(row)
        except OctcError as error:
            stopped = error
        if lines:
            yield Block(lines, [[row.get(p) for row in kept] if missing else [row[p] for row in kept] for p in places])
        elif stopped is None:
            return
    raise stopped


@contextmanager
def _lines_of(path: Path, form: Form) -> Iterator[TextIO]:
    """A table of text from its header on."""
    with path.open(encoding=form.encoding, newline="") as stream:
        for _ in range(form.before):
            stream.readline()
        yield stream


def _lines(path: Path) -> int:
    """Lines of a text, without reading more of it than a block at a time."""
    found, last = 0, b""
    with path.open("rb") as stream:
        while block := stream.read(TAKEN):
            found += block.count(b"\n")
            last = block
    return found + (not last.endswith((b"\n", b"\n\0")))


def _check_names(path: Path, header: Sequence[str]) -> None:
    if not header:
        raise ValueError("no line")
    if any("\0" in name for name in header):
        raise ValueError("not UTF-8, but perhaps UTF-16 without its mark")
    check_header(header, path)


def _open_lines(path: Path) -> Source:
    encoding = form_of(path).encoding
    names: dict[str, None] = {}
    for _, value in zip(range(FIRST), _objects(path, encoding), strict=False):
        names |= dict.fromkeys(value[1])
    if not names:
        raise ValueError("no line")

    def blocks(wanted: Sequence[str]) -> Iterator[Block]:
        return _gathered(_objects(path, encoding), wanted, missing=True)

    return Source(path, tuple(names), blocks, lambda: _lines(path))


def _objects(path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Python writes NaN into JSON, and other programs read it: a score may be NaN here, and is refused where it is judged."""
    number = 0
    with path.open(encoding=encoding) as stream:
        try:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                if len(line) > LINE:
                    raise ValueError(f"a line of more than {LINE} characters")
                value = json.loads(line, object_pairs_hook=_object)
                if not isinstance(value, dict):
                    raise ValueError("a line that is no object")
                yield number, value
        except (OSError, ValueError, RecursionError) as error:
            raise refused(path, error, number or None) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name that stands twice in an object")
    return found


def _open_parquet(path: Path) -> Source:
    parquet = need("pyarrow.parquet")
    lib = need("pyarrow.lib")
    try:
        with parquet.ParquetFile(path) as file:
            header, count = tuple(file.schema_arrow.names), int(file.metadata.num_rows)
    except lib.ArrowException as error:
        raise ValueError(str(error)) from error
    _check_names(path, header)

    def blocks(names: Sequence[str]) -> Iterator[Block]:
        number = 0
        try:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=ROWS, columns=list(dict.fromkeys(names))):
                    lines = range(number + 1, number + 1 + batch.num_rows)
                    yield Block(lines, [batch.column(name).to_pylist() for name in names])
                    number += batch.num_rows
        except (OSError, lib.ArrowException) as error:
            raise refused(path, error, number) from error

    return Source(path, header, blocks, lambda: count)


READERS: dict[str, Callable[[Path], Source]] = {
    ".csv": _open_csv,
    ".tsv": _open_csv,
    ".txt": _open_csv,
    ".jsonl": _open_lines,
    ".ndjson": _open_lines,
    ".json": _open_lines,
    ".parquet": _open_parquet,
    ".pq": _open_parquet,
}
