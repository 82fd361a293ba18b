"""What lies in a folder of results: counts, distributions, rows by SQL. Shards are read one by one, after their checksums."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from octc.archive.plan import FOLDER, read_user_schema
from octc.archive.rows import schemas_of
from octc.archive.store import KINDS, SUCCESS, Done, damaged_parts, part_path, read_journals, read_manifest
from octc.core.errors import OctcError, first_line
from octc.core.optional import need

NAMED = 12  # B-scans that a page shows of each kind
BINS = 20  # of the confidence, 0 to 1
GROUPS = 50  # values of a site, a scanner or a month that are told apart


@dataclass
class Group:
    """B-scans of a site, a scanner or a month. unlike: of those whose likeness is known (judged)."""

    scans: int = 0
    judged: int = 0
    unlike: int = 0
    labels: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Named:
    """A B-scan that somebody should look at. value: its confidence, or its distance from the training images."""

    value: float
    file: str
    volume: int | None
    frame: int | None


@dataclass
class Summary:
    """A folder of results in numbers.

    Attributes:
        complete: whether every input is done. failures: inputs by code. scans, eyes: rows. whole: of all B-scans.
        groups: "site" (a column of the user), "scanner", "month" -> value -> its B-scans; "unknown" where it is not stated.
        confidence: B-scans in BINS equal bins from 0 to 1. least_certain, most_unlike: at most NAMED of each.
        per_second: B-scans a process does in a second.
    """

    artifact: dict[str, Any]
    complete: bool
    inputs: int = 0
    eyes: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    whole: Group = field(default_factory=Group)
    groups: dict[str, dict[str, Group]] = field(default_factory=dict)
    confidence: list[int] = field(default_factory=lambda: [0] * BINS)
    least_certain: list[Named] = field(default_factory=list)
    most_unlike: list[Named] = field(default_factory=list)
    per_second: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def tables(folder: Path, kind: str, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """The tables of a kind, one a unit, in order.

    Raises:
        OctcError: E107 no results, E501 a shard is missing, cut or altered.
    """
    read_manifest(folder)
    parquet = need("pyarrow.parquet")
    for _, path in shards(folder, kind):
        wanted = None
        if columns is not None:
            known = parquet.read_schema(path).names
            wanted = [name for name in columns if name in known]
        yield parquet.read_table(path, columns=wanted)


def shards(folder: Path, *kinds: str) -> Iterator[tuple[str, Path]]:
    """(kind, file) of these kinds that fit their checksums, in order (OctcError E501 for one that does not)."""
    for number, done in sorted(read_journals(folder).items()):
        _whole(folder, done, kinds)
        for kind in kinds:
            if kind in done.parts:
                yield kind, part_path(folder, kind, number)


def _whole(folder: Path, done: Done, kinds: Sequence[str]) -> None:
    if bad := damaged_parts(folder, done, kinds):
        text = f"{bad[0].name} is missing, or does not match its sha256"
        hint = "the command that made these results makes it again: octc predict ... --out " + str(folder)
        raise OctcError("OCT-E501", text, hint=hint, place=str(bad[0]))


def summarise(folder: Path) -> Summary:
    """Count what lies there.

    Raises:
        OctcError: E107 no results, E501 a shard is damaged, E502 the manifest is.
    """
    manifest = read_manifest(folder)
    found = Summary(manifest["artifact"], bool(manifest.get("complete")) and (folder / SUCCESS).is_file())
    done = read_journals(folder)
    seconds = sum(one.seconds for one in done.values())
    found.inputs = sum(one.inputs for one in done.values())
    columns = ["file", "volume", "frame", "label", "confidence", "unlike", "distance", "site", "scanner", "acquired"]
    for table in tables(folder, "scans", columns):
        _add(found, table.to_pylist())
    found.eyes = sum(one.parts["eyes"].rows for one in done.values() if "eyes" in one.parts)
    for table in tables(folder, "failed", ["code"]):
        found.failures.update(row["code"] for row in table.to_pylist())
    found.per_second = found.whole.scans / seconds if seconds else None
    return found


def _add(found: Summary, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        _count(found.whole, row)
        month = None if row["acquired"] is None else str(row["acquired"])[:7]
        given = {"scanner": row["scanner"], "month": month, **({"site": row["site"]} if "site" in row else {})}
        for name, value in given.items():
            values = found.groups.setdefault(name, {})
            key = "unknown" if value is None else str(value)
            _count(values.setdefault(key if key in values or len(values) < GROUPS else "others", Group()), row)
        if row["confidence"] is not None:
            found.confidence[min(BINS - 1, int(row["confidence"] * BINS))] += 1
    sure = [row for row in rows if row["confidence"] is not None and row["unlike"] is not True]
    known = [_named(row, "confidence") for row in heapq.nsmallest(NAMED, sure, key=lambda row: row["confidence"])]
    found.least_certain = heapq.nsmallest(NAMED, [*found.least_certain, *known], key=lambda one: one.value)
    far = [_named(row, "distance") for row in rows if row["distance"] is not None]
    found.most_unlike = heapq.nlargest(NAMED, [*found.most_unlike, *far], key=lambda one: one.value)


def _named(row: dict[str, Any], column: str) -> Named:
    return Named(float(row[column]), row["file"], row["volume"], row["frame"])


def _count(group: Group, row: dict[str, Any]) -> None:
    group.scans += 1
    group.judged += row["unlike"] is not None
    group.unlike += row["unlike"] is True
    group.labels[row["label"] or "no label"] += 1


def select(folder: Path, where: str, kind: str = "scans") -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Rows of a table ("scans", "eyes" or "failed") by a condition of SQL: names of the columns, and the rows.

    The condition sees the tables and nothing else of this machine.

    Raises:
        OctcError: E901 DuckDB is not installed, E104 the condition is no SQL, or asks for what is not there.
    """
    files: dict[str, list[Path]] = {name: [] for name in KINDS}
    for name, path in shards(folder, *KINDS):
        files[name].append(path)
    base = connect(files)
    _without_rows(base, folder, files)
    duckdb = need("duckdb")
    try:
        answer = base.execute(f'SELECT * FROM "{kind}" WHERE {where}')
    except duckdb.Error as error:
        text = f"--where: {first_line(error, 300)}"
        raise OctcError("OCT-E104", text, hint="--where \"label = 'CNV' AND confidence > 0.9\"", place="--where") from error
    names = [column[0] for column in answer.description]
    return names, _fetched(answer)


def _without_rows(base: Any, folder: Path, files: Mapping[str, Sequence[Path]]) -> None:
    """Tables of which there is no file have no rows: they can be asked for all the same."""
    if not files["scans"]:
        return  # nothing is done yet: a unit has this one at least
    rules = "refer" in need("pyarrow.parquet").read_schema(files["scans"][0]).names
    schemas = schemas_of(read_manifest(folder)["artifact"]["classes"], read_user_schema(folder / FOLDER), rules=rules)
    for kind, paths in files.items():
        if not paths:
            base.register(kind, schemas[kind].empty_table())


def _fetched(answer: Any) -> Iterator[tuple[Any, ...]]:
    while rows := answer.fetchmany(1000):
        yield from rows


def connect(files: dict[str, list[Path]]) -> Any:
    """A database in memory with a view of each table that has files; it reads them and nothing else, and installs nothing."""
    base = need("duckdb").connect(":memory:", config={"autoinstall_known_extensions": "false", "threads": "2"})
    every = [str(path.resolve()) for paths in files.values() for path in paths]
    base.execute("SET allowed_paths = $1", [every])
    base.execute("SET enable_external_access = false")
    base.execute("SET lock_configuration = true")
    for name, paths in files.items():
        if paths:
            listed = ", ".join("'" + str(path.resolve()).replace("'", "''") + "'" for path in paths)
            base.execute(f'CREATE VIEW "{name}" AS SELECT * FROM read_parquet([{listed}])')
    return base
