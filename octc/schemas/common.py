"""What documents share, how one is read from JSON, and the JSON Schema of one.

A document is a `msgspec.Struct`: a field without a default is required, `UNSET` stands for one that may be missing. Unknown
fields are passed over, so that a newer octc may add some, except where a struct forbids them. What a type cannot say stands
in `RULES`, as JSON Schema, and in `__post_init__`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from octc.core.newer import refuse_newer

T = TypeVar("T")
VERSION = "1.0"  # of every document, so far

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Limits = Annotated[list[float], Meta(min_length=2, max_length=2)]  # of an interval
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Code = Annotated[str, Meta(pattern="^OCT-[EW][0-9]{3}$")]
PatientIds = Literal["known", "partial", "unknown"]
Part = Literal["test", "select"]
Views = Literal["none", "hflip", "5"]
Table = dict[str, Any]


class Document(Struct, kw_only=True):
    """The base of every document. RULES: what no type of a field says, as JSON Schema."""

    RULES: ClassVar[Table] = {}


class LeftOut(Document):
    """A file that was not taken, and why."""

    path: str
    why: str


class Patients(Document):
    """What is known of the patients of some images, and what follows for leakage between parts."""

    patient_ids: PatientIds
    images_without_patient: Count
    leakage: str


def convert(value: Any, kind: type[T], place: Path | None = None) -> T:
    """A value of JSON as a document. place: the file that it was read from.

    Raises:
        ValueError: it is not one; the text says which field is wrong.
        OctcError: E509 a newer octc wrote it.
    """
    if isinstance(value, dict):
        refuse_newer(value.get("schema_version"), VERSION, "the document", None if place is None else str(place))
    try:
        found: T = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    return found


def builtins(document: Struct) -> Table:
    """A document as plain JSON values; what is not set is left out."""
    found: Table = msgspec.to_builtins(document)
    return found


def json_schema(name: str, title: str, *kinds: type[Document]) -> Table:
    """The JSON Schema of a document that is one of `kinds`, complete by itself, with `name` as its $id."""
    wanted = (*kinds, *(part for kind in kinds for part in kind.__dict__.get("PARTS", ())))
    references, parts = msgspec.json.schema_components(wanted)
    for kind in _all_of(wanted):
        if kind.RULES and kind.__name__ in parts:
            parts[kind.__name__].update(kind.RULES)
    mine = list(references)[: len(kinds)]
    shape = mine[0] if len(mine) == 1 else {"anyOf": mine}
    return {"$schema": DIALECT, "$id": name, "title": title, **shape, "$defs": dict(sorted(parts.items()))}


def _all_of(kinds: tuple[type[Document], ...]) -> list[type[Document]]:
    """Every struct that kinds are made of."""
    found: dict[str, type[Document]] = {}

    def walk(node: Any) -> None:
        if isinstance(node, msgspec.inspect.StructType):
            if node.cls.__name__ in found or not issubclass(node.cls, Document):
                return
            found[node.cls.__name__] = node.cls
            for one in node.fields:
                walk(one.type)
        for inner in ("types", "item_type", "key_type", "value_type", "type"):
            value = getattr(node, inner, None)
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, msgspec.inspect.Type):
                    walk(part)

    for kind in msgspec.inspect.multi_type_info(kinds):
        walk(kind)
    return list(found.values())
