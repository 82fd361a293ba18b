"""What every command prints with --json: one envelope around its document."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from octc.schemas.common import Code, Count, Document, Table


class Warned(Document):
    code: Code
    message: str
    path: str | None


class Failure(Document, kw_only=True):
    """An error, with all of them where there are several."""

    code: Code
    message: str
    why: str | None
    help: str
    path: str | None
    field: str | None
    all: list[Failure] | UnsetType = UNSET


class Offline(Document):
    requested: Annotated[bool, Meta(extra_json_schema={"const": True})]
    refused_attempts: Count


class Envelope(Document, forbid_unknown_fields=True, kw_only=True):
    """`data` is the command's own document; it may be empty where the command failed."""

    schema_version: Literal["1.0"]
    command: str
    status: Literal["ok", "gate_failed", "error", "interrupted"]
    exit_code: Annotated[int, Meta(ge=0, le=143)]
    run_id: str | None
    data: Table
    warnings: list[Warned]
    error: Failure | None
    offline: Offline | UnsetType = UNSET
