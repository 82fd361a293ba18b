"""Options of a job as a dataclass: its fields are both the arguments of the function and the options of the command."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from octc.core.errors import OctcError

HELP, NAMES, METAVAR, LEAST, KEY, MOST, CHOICES, PER = "help", "names", "metavar", "min", "key", "max", "choices", "per"


@dataclass(frozen=True)
class Key:
    """A configuration key: its type, its range (`above` and `below` exclusive, `low` and `high` inclusive), its option.

    `option` is the parameter of the command of that section which the key feeds, if its name differs from the key's.
    """

    kind: type
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    option: str | None = None

    def allowed(self) -> str:
        """The type and range in words."""
        words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text that is not empty"}
        limits = (("at least", self.low), ("at most", self.high), ("above", self.above), ("below", self.below))
        parts = [words[self.kind], *(f"{word} {limit:g}" for word, limit in limits if limit is not None)]
        return f"one of: {', '.join(self.choices)}" if self.choices else ", ".join(parts)

    def fits(self, value: Any) -> bool:
        """Whether a value has the type and lies in the range."""
        if isinstance(value, bool) or self.kind is bool:
            return isinstance(value, bool) and self.kind is bool
        if self.kind is str:
            return isinstance(value, str) and bool(value.strip()) and (not self.choices or value in self.choices)
        if not isinstance(value, (int, float) if self.kind is float else int):
            return False
        return (
            fits_64_bits(value)
            and math.isfinite(value)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


@dataclass(frozen=True)
class OneOf:
    """The allowed values of a command's text parameter: `Annotated[str, OneOf(...), typer.Option(...)]`."""

    words: Iterable[str]


def option(
    default: Any = MISSING,
    *,
    shown: str,
    names: tuple[str, ...] = (),
    metavar: str | None = None,
    within: tuple[float | None, float | None] = (None, None),
    key: Key | None = None,
    choices: tuple[str, ...] = (),
    per: int = 1,
) -> Any:
    """A field of an options dataclass, with what a command line shows of it.

    Args:
        default: of the field; without one it has to be given. shown: one line of help.
        names: on the command line ("--no-gate"), instead of the one that follows from the field's name.
        metavar: what stands for the value. within: the smallest and the largest number that are allowed.
        key: what a configuration may give for it, under the field's name in the section of its command.
        choices: the texts that are allowed.
        per: what a number of the command line is divided by (100: it is typed in percent, the field is a fraction).
    """
    least, most = within
    metadata = {HELP: shown, NAMES: names, METAVAR: metavar, LEAST: least, KEY: key, MOST: most, CHOICES: choices, PER: per}
    return field(default=default, metadata=metadata)


def described(options: Any) -> list[Field[Any]]:
    """The fields of an options dataclass that a command line offers (made by `option`)."""
    return [one for one in fields(options) if HELP in one.metadata]


def spelled(one: Field[Any]) -> str:
    """The option of a field: "--class-margin"."""
    names: tuple[str, ...] = one.metadata[NAMES]
    return next((name for name in names if name.startswith("--")), f"--{one.name.replace('_', '-')}")


def typed(options: Any) -> list[str]:
    """Options as they are typed, for another machine, whose own configuration says nothing then: all that have a value."""
    words: list[str] = []
    for one in described(options):
        value, name = getattr(options, one.name), spelled(one)
        if value is None or (isinstance(value, bool) and value == one.default):
            continue
        if isinstance(value, bool):
            words.append(name.partition("/")[0] if value else name.rpartition("/")[2])
        else:
            words += [name, typed_number(value, one.metadata[PER]) if isinstance(value, float) else str(value)]
    return words


def typed_number(value: float, per: int) -> str:
    """A number to type that gives exactly this value when it is divided."""
    text = f"{value * per:.15g}"
    return text if float(text) / per == value else repr(value * per)


LARGEST = (1 << 63) - 1  # a whole number that libraries can take: seeds, epochs, images, threads
NUMBERS: dict[str, tuple[type, str]] = {"int": (Integral, "a whole number"), "float": (Real, "a number")}


def check_choices(options: Any) -> None:
    """Refuse a number that is none, and a text that is none of a field's choices (OCT-E104), whoever made the options."""
    for one in described(options):
        value, known, name = getattr(options, one.name), one.metadata[CHOICES], spelled(one)
        if (lacking := _lacking(str(one.type), value)) is not None:
            raise OctcError("OCT-E104", f"{name} {value!r} is not {lacking}", hint=f"{name}: {lacking}", place=name)
        if known and value is not None and value not in known:
            raise OctcError("OCT-E104", f"{name} {value} is not known", hint=f"{name}: one of {', '.join(known)}", place=name)


def _lacking(annotation: str, value: Any) -> str | None:
    """What a number would have to be; None where it is that, or another type is meant ("float | None")."""
    wanted, _, or_none = annotation.partition(" | ")
    if wanted not in NUMBERS or or_none not in ("", "None") or (value is None and or_none):
        return None
    kind, words = NUMBERS[wanted]
    if not isinstance(value, kind) or isinstance(value, bool):
        return words
    return None if fits_64_bits(value) else f"{words} of 64 bits"


def fits_64_bits(value: Any) -> bool:
    """Whether a whole number fits into 64 bits; True for anything else."""
    return not isinstance(value, Integral) or -LARGEST <= int(value) <= LARGEST


def keys_of(options: Any) -> dict[str, Key]:
    """Configuration keys that an options dataclass declares, by the name of their field."""
    return {one.name: one.metadata[KEY] for one in described(options) if one.metadata[KEY] is not None}
