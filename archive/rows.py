"""The columns of a result and what stands in them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from octc.archive.store import Part
from octc.core.errors import OctcError
from octc.core.files import replacing, sha256_file
from octc.core.optional import need
from octc.runtimes.predict import Record, ruled_json

P = "p_"  # before the name of a class: the column of its probability


def shown(path: str | Path) -> str:
    """A path, or a text that names one, with bytes that are not UTF-8 as \\xNN: Parquet holds UTF-8 alone."""
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character of JSON, of no file
        return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def schemas_of(classes: Sequence[str], user: Any, *, rules: bool = False) -> dict[str, Any]:
    """Arrow schemas of the tables "scans", "eyes" and "failed". user: schema of the user's own columns. rules: whether the
    artifact decides by rules: then there are columns for the set and for whether to refer.

    Raises:
        OctcError: E209 a column of the user has the name of one of ours.
    """
    pa = need("pyarrow")
    text, whole, number = pa.string(), pa.int32(), pa.float64()
    origin = [("file", text), ("sha256", text), ("volume", whole)]
    answer = [(f"{P}{name}", number) for name in classes]
    answer += [("label", text), ("labels", pa.list_(text)), ("confidence", number), ("notes", pa.list_(text))]
    decided = [("set", pa.list_(text)), ("flagged", pa.list_(text)), ("refer", pa.bool_()), ("refer_because", pa.list_(text))]
    answer += decided if rules else []
    taken = [("scanner", text), ("acquired", text)]
    short = pa.dictionary(pa.int32(), text)
    made = [("artifact", short), ("options", short), ("device", short)]
    one = [("frame", whole), ("eye", text), ("patient", text)]
    likeness = [("unlike", pa.bool_()), ("distance", number), ("quality", number)]
    eye = [("eye", text), ("patient", text), ("frames", whole), ("usable", whole), ("aggregation", text)]
    tables = {
        "scans": [*origin, *one, *answer, *likeness, *taken, *made, ("milliseconds", pa.float32())],
        "eyes": [*origin, *eye, *answer, ("no_answer", pa.list_(text)), *taken, *made],
        "failed": [*origin, ("frame", whole), ("code", text), ("message", text), ("hint", text)],
    }
    ours = {name.casefold() for columns in tables.values() for name, _ in columns}
    folded = [name.casefold() for name in user.names]  # SQL tells names apart without letter case
    hint = "give them other names in the table"
    if both := sorted(name for name in user.names if name.casefold() in ours):
        raise OctcError("OCT-E209", f"columns of the table have names that results use: {', '.join(both)}", hint=hint)
    if alike := sorted(name for name in user.names if folded.count(name.casefold()) > 1):
        raise OctcError("OCT-E209", f"columns that differ in letter case alone: {', '.join(alike)}", hint=hint)
    return {kind: pa.schema([*(pa.field(*pair) for pair in columns), *user]) for kind, columns in tables.items()}


def bounded_columns(schema: Any) -> list[str]:
    """Columns whose smallest and largest value a file of Parquet may state: those without floats.

    pyarrow leaves NaN out of these bounds, and DuckDB takes them for bounds of all rows, so that `isnan` would find none.
    """
    return [field.name for field in schema if not _holds_floats(field.type)]


def _holds_floats(kind: Any) -> bool:
    types = need("pyarrow").types
    if types.is_dictionary(kind):
        return _holds_floats(kind.value_type)
    return types.is_floating(kind) or any(_holds_floats(kind.field(k).type) for k in range(kind.num_fields))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: Any) -> Part:
    """Rows as a file of Parquet, whole or not at all."""
    pa, parquet = need("pyarrow"), need("pyarrow.parquet")
    with replacing(path) as temporary:
        table = pa.Table.from_pylist([{name: _plain(value) for name, value in row.items()} for row in rows], schema)
        bounded = bounded_columns(schema)
        parquet.write_table(table, temporary, compression="zstd", row_group_size=1 << 20, write_statistics=bounded)
        return Part(sha256_file(temporary), temporary.stat().st_size, len(rows))


def _plain(value: Any) -> Any:
    """A cell of which Parquet can hold every text."""
    if isinstance(value, str):
        return value if value.isascii() else shown(value)
    return [_plain(one) for one in value] if isinstance(value, list) else value


def answer_row(record: Record, classes: Sequence[str]) -> dict[str, Any]:
    """What a B-scan and an eye have in common."""
    values = record.probabilities or [None] * len(classes)
    return {
        **{f"{P}{name}": value for name, value in zip(classes, values, strict=True)},
        "label": None if record.label is None else classes[record.label],
        "labels": None if record.labels is None else [classes[k] for k in record.labels],
        "confidence": record.confidence,
        "notes": [f"{code} {text}" for code, text in record.notes],
        **({} if record.decided is None else ruled_json(record.decided, classes)),
    }


def scan_row(record: Record, classes: Sequence[str]) -> dict[str, Any]:
    """A B-scan, without where it comes from."""
    scan = record.scan
    volume = None if scan is None else scan.volume
    quality = () if volume is None else volume.quality
    return {
        **answer_row(record, classes),
        "frame": None if scan is None else scan.index,
        "eye": None if volume is None else volume.laterality.value,
        "patient": None if volume is None else volume.patient,
        "unlike": None if record.likeness is None else record.unlike,
        "distance": None if record.likeness is None else record.likeness.distance,
        "quality": quality[scan.index] if scan is not None and scan.index < len(quality) else None,
    }


def eye_row(record: Record, classes: Sequence[str]) -> dict[str, Any]:
    """An eye, without where it comes from."""
    eye = record.eye
    assert eye is not None
    return {
        **answer_row(record, classes),
        "eye": eye.laterality,
        "patient": eye.patient,
        "frames": eye.frames,
        "usable": eye.usable,
        "aggregation": eye.aggregation.method,
        "no_answer": list(eye.reasons),
    }


def failed_row(error: OctcError, frame: int | None = None) -> dict[str, Any]:
    """An input that was not done."""
    return {"frame": frame, "code": error.code, "message": error.message, "hint": error.hint}
