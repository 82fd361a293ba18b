"""A JSON value against a JSON Schema. Whether the schema is one is checked once for each: that takes longer than the rest."""

from __future__ import annotations

import functools
import json
from typing import Any

from jsonschema import Draft202012Validator


def validate(value: Any, schema: dict[str, Any]) -> None:
    """Raise jsonschema.ValidationError where the value does not follow."""
    _validator(json.dumps(schema)).validate(value)


@functools.cache
def _validator(schema: str) -> Draft202012Validator:
    read = json.loads(schema)
    Draft202012Validator.check_schema(read)
    return Draft202012Validator(read)
