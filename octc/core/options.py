"""Options of a job as one dataclass: its fields are the arguments of the library and the options of the command line."""

from __future__ import annotations

from dataclasses import MISSING, Field, field, fields
from typing import Any

HELP, NAMES, METAVAR, LEAST = "help", "names", "metavar", "min"


def option(
    default: Any = MISSING, *, shown: str, names: tuple[str, ...] = (), metavar: str | None = None, least: float | None = None
) -> Any:
    """A field of an options dataclass, with what a command line shows of it.

    Args:
        default: of the field; without one it has to be given. shown: one line of help.
        names: on the command line ("--no-gate"), instead of the one that follows from the field's name.
        metavar: what stands for the value. least: smallest number that is allowed.
    """
    metadata = {HELP: shown, NAMES: names, METAVAR: metavar, LEAST: least}
    return field(default=default, metadata=metadata)


def described(options: Any) -> list[Field[Any]]:
    """The fields of an options dataclass that a command line offers (made by `option`)."""
    return [one for one in fields(options) if HELP in one.metadata]
