"""The JSON Schema of what a command prints with --json: the envelope with the command's own document in it.

The files lie in cli/schemas/ of the package; that of a bench result is bench/timing/bench-result.schema.json.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from octc.cli._app.commands import GROUPS
from octc.core.errors import OctcError
from octc.core.files import parse_json

OTHERS = {"bench": ("octc.bench.timing", "bench-result.schema.json")}  # a schema that a command's own one refers to


def schema_names() -> list[str]:
    """Commands that have a schema, as they are typed."""
    names = [entry.name.removesuffix(".json") for entry in (files("octc.cli") / "schemas").iterdir()]
    return sorted(_spoken(name) for name in names if name != "envelope")


def _spoken(name: str) -> str:
    """runs-list -> runs list; train-retnet-teacher -> train retnet-teacher; serve-config as it is."""
    group, _, rest = name.partition("-")
    return f"{group} {rest}" if group in GROUPS and rest else name


def schema_of(command: str) -> dict[str, Any]:
    """The whole schema of a command, complete by itself (E101 where there is no such command).

    Where the command succeeded `data` is its document; where it failed it may also be empty.
    """
    if command not in schema_names():
        raise OctcError(
            "OCT-E101", f"no such command: {command}", hint=f"one of: {', '.join(schema_names())}", place="--schema"
        )
    own = _read("octc.cli", f"schemas/{command.replace(' ', '-')}.json")
    whole = _read("octc.cli", "schemas/envelope.json")
    kept = {key: own.pop(key) for key in ("$id", "title", "$schema")}
    own["$id"] = kept["$id"] + ":data"
    others = {name: _read(*place) for name, place in OTHERS.items() if name == command}
    data = {"$ref": own["$id"]}
    return {
        **whole, "$id": kept["$id"], "title": kept["title"],
        "$defs": {**whole["$defs"], "data": own, **others},
        "if": {"properties": {"status": {"const": "ok"}}}, "then": {"properties": {"data": data}},
        "else": {"properties": {"data": {"anyOf": [{"maxProperties": 0}, data]}}},
    }  # fmt: skip


def _read(package: str, name: str) -> dict[str, Any]:
    value: dict[str, Any] = parse_json((files(package) / name).read_text(encoding="utf-8"))
    return value
