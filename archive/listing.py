"""The inputs of an archive in one order, streamed: folders, globs, tables of paths, files. Nothing is decoded here.

A folder's names are held while it is listed, and nothing of the folders before it.
"""

from __future__ import annotations

import csv
import glob
import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.optional import need
from octc.datasets.tables import form_of, place_of
from octc.datasets.tree import has_folder, scan_folder
from octc.imaging.decode import SUFFIXES
from octc.runtimes.inputs import may_be_volume, no_scans
from octc.volumes.formats import pictures_of

TABLES = (".csv", ".tsv", ".parquet")
A_B_SCAN = 200_000  # bytes: how many B-scans a volume may hold is guessed from its size, to cut the work into like parts
BLOCK = 8192  # lines of a table at once
GONE, CLOSED = (-1, 0), (-2, 0)  # states of what is not there, and of a folder that cannot be read
HASHED = (".xml", ".json")  # what may name pictures that it is made of


@dataclass(frozen=True)
class Entry:
    """An input. weight: B-scans, about. user: the user's own columns of a table. state: of `state_of`."""

    path: str
    weight: int = 1
    state: tuple[int, int] = GONE
    user: Mapping[str, Any] = field(default_factory=dict)


def state_of(path: str | Path) -> tuple[int, int]:
    """Bytes and time of change (ns) of a file, GONE where it cannot be looked at; of one that names pictures a number of those
    of all of them in place of the time. A folder has none: CLOSED where it cannot be read, else GONE."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a million of them
        if stat.S_ISDIR(found.st_mode):
            return CLOSED if is_closed(path) else GONE
    except (OSError, ValueError):
        return GONE
    if _suffix(os.fspath(path)) not in HASHED:
        return found.st_size, found.st_mtime_ns
    pictures = _named(os.fspath(path), found.st_mtime_ns, found.st_size)
    if not pictures:
        return found.st_size, found.st_mtime_ns
    value = blake2b(b"%d" % found.st_mtime_ns, digest_size=7)
    for picture in pictures:
        value.update(b"%s\0%d\0%d\n" % (os.fsencode(picture), *state_of(picture)))
    return found.st_size, int.from_bytes(value.digest(), "big")


def is_closed(folder: str | Path) -> bool:
    """Whether a folder cannot be read."""
    try:
        with os.scandir(folder):
            return False
    except OSError:
        return True


@lru_cache(maxsize=4096)
def _named(path: str, _written: int, _size: int) -> tuple[str, ...]:
    """The pictures that a volume names, whether they are there or not; told once as long as its file is not written to."""
    try:
        return tuple(str(one) for one in pictures_of(Path(path)))
    except OctcError:  # whoever reads it says why
        return ()


def is_absent(word: str) -> bool:
    """Whether a word names nothing; a glob, and what may not be looked at, is none."""
    try:
        os.lstat(word)
    except (FileNotFoundError, NotADirectoryError):
        return not _is_glob(word)
    except (OSError, ValueError):
        pass
    return False


def user_schema(words: Sequence[str]) -> Any:
    """The user's own columns as an Arrow schema: those of the table, empty where the inputs are no table.

    Raises:
        OctcError: E209 a table that cannot be read or has no column of paths; E102 a table beside other inputs.
    """
    pa = need("pyarrow")
    tables = [word for word in words if _is_table(word)]
    if not tables:
        return pa.schema([])
    if len(words) > 1:
        text = f"a table and other inputs: {', '.join(words[:3])}"
        raise OctcError("OCT-E102", text, hint="one table alone, or folders, files and globs", place=tables[0])
    return _opened_table(Path(tables[0]))[1]


def entries_of(words: Sequence[str], index: Path, left: Counter[str] | None = None) -> Iterator[Entry]:
    """Every input once, in an order that depends on names only.

    Args:
        words: folders, files, globs; or one table. index: a file that may be written meanwhile. left: counts what folders
            hold besides, by its ending or by what it is.

    Raises:
        OctcError: E201 a folder or glob without an input; E209 of tables.
    """
    if len(words) == 1 and has_folder(Path(words[0])):
        yield from _of_folder(words[0], left)
        return
    with closing(sqlite3.connect(index)) as base:
        base.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; CREATE TABLE seen(path TEXT PRIMARY KEY);")
        for word in words:
            for one in _of_word(word, left):
                fresh = base.execute("INSERT OR IGNORE INTO seen VALUES (?)", (os.fsencode(one.path),)).rowcount
                if fresh:
                    yield one
                elif _is_table(word):
                    text = f"a path stands twice in the table: {one.path}"
                    raise OctcError("OCT-E209", text, hint="one line for each input", place=word)


def _of_word(word: str, left: Counter[str] | None) -> Iterator[Entry]:
    if has_folder(Path(word)):
        yield from _of_folder(word, left)
    elif _is_table(word):
        yield from _of_table(Path(word))
    elif _is_glob(word) and not os.path.lexists(word):
        names = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - names that are no UTF-8 too
        files = [name for name in names if not has_folder(Path(name))]
        if not files:
            raise OctcError("OCT-E201", f"no file fits {word}", hint="quote the glob, and check it with ls", place=word)
        inside = _inside([Path(name) for name in files if _suffix(name) not in SUFFIXES])
        yield from (_entry(name) for name in files if name not in inside)
    else:
        yield _entry(word)


def _of_folder(root: str, left: Counter[str] | None) -> Iterator[Entry]:
    found = False
    waiting = [Path(root)]
    while waiting:
        folder = waiting.pop()
        images, others, folders, why = scan_folder(folder)
        if why:  # as an input, so that it is counted and named: reading it says why (E231)
            found = True
            yield Entry(str(folder), state=CLOSED)
        why_not = {one.path: no_scans(folder / one.path) for one in others}
        volumes = [path for one in others if not why_not[one.path] and may_be_volume(path := folder / one.path)]
        inside = _inside(volumes)
        if left is not None:
            taken = {*inside, *map(str, volumes)}
            left.update(why_not[one.path] or one.why for one in others if str(folder / one.path) not in taken)
        names = sorted([*(str(folder / name) for name in images), *map(str, volumes)])
        for name in names:
            if name not in inside:
                found = True
                yield _entry(name)
        waiting += [folder / name for name in reversed(folders)]
    if not found:
        hint = "images end in .png, .jpg, .tif, .bmp or .webp; octc data volume FILE says what a volume is"
        raise OctcError("OCT-E201", "no image and no volume in this folder", hint=hint, place=root)


def _inside(volumes: Sequence[Path]) -> set[str]:
    """Pictures that volumes name."""
    found: set[str] = set()
    for path in volumes:
        with suppress(OctcError):  # whoever reads it says why
            found.update(map(str, pictures_of(path)))
    return found - {str(path) for path in volumes}


def _entry(name: str, user: Mapping[str, Any] | None = None) -> Entry:
    state = state_of(name)
    weight = 1 if _suffix(name) in SUFFIXES and _suffix(name) not in (".tif", ".tiff") else max(1, state[0] // A_B_SCAN)
    return Entry(name, weight, state, user or {})


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million of them


def _is_glob(word: str) -> bool:
    return any(sign in word for sign in "*?[")


def _is_table(word: str) -> bool:
    return _suffix(word) in TABLES and not has_folder(Path(word))


def _of_table(path: Path) -> Iterator[Entry]:
    """Paths of a table, relative to it, with the other columns."""
    column, schema, batches = _opened_table(path)
    base = path.parent
    for batch in batches:
        rows = batch.to_pylist()
        for row in rows:
            name = row.pop(column)
            if not isinstance(name, str) or not name:
                raise OctcError("OCT-E209", f"a line without a path: {row}", hint="one path a line", place=str(path))
            yield _entry(str(base / name), {key: row[key] for key in schema.names})


def _opened_table(path: Path) -> tuple[str, Any, Iterator[Any]]:
    """(column of paths, schema of the others, record batches)."""
    pa = need("pyarrow")
    try:
        if _suffix(str(path)) == ".parquet":
            file = need("pyarrow.parquet").ParquetFile(path)
            schema, batches = file.schema_arrow, file.iter_batches(BLOCK)
        else:
            arrow = need("pyarrow.csv")
            form = form_of(path)
            with path.open(encoding=form.encoding, newline="") as stream:
                header = list(islice(stream, form.before + 1))[form.before :]
            names = next(csv.reader(header, delimiter=form.separator), [])
            kinds = dict.fromkeys(names, pa.string())  # an id with zeros before it stays what it is
            convert = arrow.ConvertOptions(column_types=kinds, strings_can_be_null=True, quoted_strings_can_be_null=False)
            parse = arrow.ParseOptions(delimiter=form.separator, newlines_in_values=True)
            read = arrow.ReadOptions(skip_rows=form.before, encoding=form.encoding.removesuffix("-sig"))
            reader = arrow.open_csv(path, read_options=read, parse_options=parse, convert_options=convert)
            schema, batches = reader.schema, iter(reader)
    except (OSError, ValueError, pa.ArrowException) as error:
        text = f"table cannot be read: {getattr(error, 'strerror', None) or error}"
        raise OctcError("OCT-E209", text[:300], hint="a column path, and columns of your own", place=str(path)) from error
    place = place_of("path", schema.names, path)
    if place is None or len(set(schema.names)) < len(schema.names):
        text = f"columns missing or doubled: path; the table has {', '.join(schema.names[:40])}"
        raise OctcError("OCT-E209", text, hint="call the column of paths: path", place=str(path))
    return schema.names[place], schema.remove(place), batches


def in_blocks(entries: Iterator[Entry], count: int = BLOCK) -> Iterator[list[Entry]]:
    """So many at once."""
    while block := list(islice(entries, count)):
        yield block
