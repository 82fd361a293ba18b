"""Deprecated names: what they are called now, and the version that removes them.

A test fails once the version of octc has reached `removed` of a row: then the row goes, and with it what reads the old name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

COMMAND, OPTION, SECTION, VARIABLE, FIELD = "command", "option", "configuration section", "variable", "JSON field"
FOLDER = "folder"


@dataclass(frozen=True)
class OldName:
    """A name of one kind. where: the command whose option or document it is, or empty."""

    kind: str
    old: str
    new: str
    removed: str
    where: str = ""

    @property
    def words(self) -> str:
        """The deprecation message."""
        return f"{self.kind} {self.old} is now {self.new}; octc {self.removed} no longer has the old name"


OLD_NAMES = (
    OldName(COMMAND, "data phantom", "data synthetic", "0.3"),
    OldName(COMMAND, "data paired-phantom", "data paired-synthetic", "0.3"),
    OldName(COMMAND, "bundle sign", "artifact sign", "0.3"),
    OldName(COMMAND, "bundle verify", "artifact verify", "0.3"),
    OldName(OPTION, "--from-bundle", "--from-artifact", "0.3", "export"),
    OldName(SECTION, "bundle", "artifact", "0.3"),
    OldName(VARIABLE, "OCTC_BUNDLE", "OCTC_ARTIFACT", "0.3"),
    OldName(VARIABLE, "OCTC_BUNDLE__SIGNATURE", "OCTC_ARTIFACT__SIGNATURE", "0.3"),
    OldName(VARIABLE, "OCTC_BUNDLE__TRUSTED", "OCTC_ARTIFACT__TRUSTED", "0.3"),
    OldName(FOLDER, "bundles", "artifacts", "0.3"),
    OldName(FIELD, "mend", "hint", "0.3", "explain"),
    OldName(FIELD, "mend", "hint", "0.3", "doctor"),
    OldName(FIELD, "mend", "hint", "0.3", "data check"),
)


def old_of(kind: str, new: str) -> str | None:
    """The old name of something, or None."""
    return next((one.old for one in OLD_NAMES if one.kind == kind and one.new == new), None)


def new_of(kind: str, old: str) -> str:
    """The current name; a name that is not deprecated is returned unchanged."""
    return next((one.new for one in OLD_NAMES if one.kind == kind and one.old == old), old)


def variable(environ: Mapping[str, str], name: str) -> str | None:
    """The value of an environment variable, under its current or its old name; None if neither is set."""
    return environ.get(name, environ.get(old_of(VARIABLE, name) or name))


def overdue(version: str) -> list[OldName]:
    """Deprecated names that should be gone in a version."""
    return [one for one in OLD_NAMES if _numbers(version) >= _numbers(one.removed)]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
