"""Errors that a user can cause or resolve.

    OctcError            code, message, hint, where it happened
      MissingExtra       an optional dependency is not installed
      Several            more than one problem, listed together

The exit code follows from the error code (octc/core/codes.py). Anything else that escapes is an internal error
(OCT-E999, exit 70).
"""

from __future__ import annotations

from collections.abc import Sequence

from octc.core.codes import CODES, EXIT_ORDER


class OctcError(Exception):
    """A failure with its code, its place and its hint.

    Args:
        code: key of `octc.core.codes.CODES`, for example "OCT-E107".
        message: what happened, in the user's words, with numbers; lower case, no full stop.
        hint: a command that can be pasted, or a precise action.
        place: file, line, field, node, class or image that it is about.
        why: one line, only where it is not obvious.
    """

    def __init__(self, code: str, message: str, *, hint: str, place: str | None = None, why: str | None = None) -> None:
        super().__init__(message)
        if code not in CODES:
            raise KeyError(code)
        self.code = code
        self.message = message
        self.hint = hint
        self.place = place
        self.why = why

    @property
    def exit_code(self) -> int:
        return CODES[self.code][0]

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.code, self.message, self.hint, self.place, self.why))


def _rebuild(code: str, message: str, hint: str, place: str | None, why: str | None) -> OctcError:
    return OctcError(code, message, hint=hint, place=place, why=why)


class MissingExtra(OctcError):
    """An optional dependency is absent; the hint is the exact pip line."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__("OCT-E901", f"{module} is not installed", hint=f"pip install 'octc[{extra}]'")


class Several(OctcError):
    """More than one problem at once; all are listed, the worst one gives the exit code."""

    def __init__(self, errors: Sequence[OctcError]) -> None:
        first = ranked(errors)[0]
        super().__init__(first.code, first.message, hint=first.hint, place=first.place, why=first.why)
        self.errors = list(errors)


def combined(errors: Sequence[OctcError]) -> OctcError:
    """One error as it is, several as one `Several`."""
    return errors[0] if len(errors) == 1 else Several(errors)


def ranked(errors: Sequence[OctcError]) -> list[OctcError]:
    """Errors in the order of their exit codes' precedence; the first one decides."""
    return sorted(errors, key=lambda error: EXIT_ORDER.index(error.exit_code))


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of another library's error message, or its type if it has none; at most `most` characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]


def shorten(items: Sequence[str], most: int = 10, more: str = "--json for all") -> str:
    """A list in one line: at most `most` items, then the number of those left out."""
    shown = ", ".join(items[:most])
    left = len(items) - most
    return f"{shown} … and {left} more ({more})" if left > 0 else shown
