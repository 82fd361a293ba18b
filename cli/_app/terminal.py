"""Robust terminal output: encodings without symbols, colour, closed pipes. Writing never crashes a command."""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from octc.core.errors import OctcError

# what is written instead where the encoding has no such sign
ASCII = {
    "✓": "ok", "✗": "FAIL", "→": "->", "←": "<-", "·": "-", "•": "*", "…": "...", "–": "-", "—": "-", "−": "-", "×": "x",
    "±": "+-", "≥": ">=", "≤": "<=", "≈": "~", "°": " deg", "µ": "u", "Δ": "D", "²": "^2", "“": '"', "”": '"',
    "‘": "'", "’": "'",
}  # fmt: skip
COLOURS = {"error": "\033[1;31m", "warning": "\033[33m", "✓": "\033[32m", "✗": "\033[31m", "!": "\033[33m"}
PLAIN = "\033[0m"
HANDLER = "octc"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last: a limit on the size of a file
# What a terminal obeys instead of showing it: control signs (a line break and a tabulator are wanted), and those that turn the
# direction of the text. File names, class names and messages of other libraries may hold them.
_OBEYED = re.compile("[\\0-\\b\\v-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")


class ClosedPipe(Exception):
    """The reader of our output is gone."""


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(ASCII.get(sign) or _escaped(sign) for sign in signs), error.end


def _escaped(sign: str) -> str:
    """Box-drawing lines become plain ones; anything else is shown as its escape."""
    if "─" <= sign <= "╿":
        return "|" if sign in "│┃║" else "-"
    return sign.encode("ascii", "backslashreplace").decode("ascii")


def shown(text: str) -> str:
    """A text that is safe for a terminal: control sequences are escaped.

    >>> shown("a\\x1b[31m b")
    'a\\\\x1b[31m b'
    """
    return _OBEYED.sub(lambda found: repr(found[0])[1:-1], text)


def shown_line(text: str) -> str:
    """The same on one line: a name with a line break begins no line of its own."""
    return shown(text).replace("\n", "\\n")


def prepare_streams() -> None:
    """Let stdout and stderr write any text in any encoding (file names with stray bytes included)."""
    _occupy_closed()
    codecs.register_error(HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)


def _occupy_closed() -> None:
    """A standard stream that is closed becomes /dev/null: else the next file that is opened takes its number, and what a
    library writes to stderr goes into that file. Python's own `sys.stdout` stays None."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def check_stdout() -> None:
    """Check before any work that stdout can be written (E907)."""
    if sys.stdout is None:
        raise _no_stdout("it is closed")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if fcntl.fcntl(sys.stdout.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise _no_stdout("it is open for reading only")


def _no_stdout(why: str) -> OctcError:
    text = f"standard output cannot be written: {why}"
    return OctcError("OCT-E907", text, hint="octc ... > FILE, or > /dev/null where the result is not wanted", place="stdout")


def shows(stream: TextIO | None, sign: str = "✓") -> bool:
    """Whether the stream's encoding has `sign`."""
    try:
        sign.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def has_colour(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Colour only on a terminal, and not where NO_COLOR or TERM=dumb is set."""
    if stream is None or environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def marked(text: str, stream: TextIO | None, colour: bool) -> str:
    """A line with its leading sign in colour, or as a word where the encoding has no signs."""
    body = text.lstrip()
    indent, sign = text[: len(text) - len(body)], body[:1]
    if sign not in ("✓", "!", "✗") or body[1:2] != " ":
        return text
    if not shows(stream):
        return f"{indent}{'warn' if sign == '!' else ASCII[sign]}{body[1:]}"
    return f"{indent}{COLOURS[sign]}{sign}{PLAIN}{body[1:]}" if colour else text


def tell(text: str) -> None:
    """Write to stderr and flush. What cannot be told there cannot be told anywhere, and is no reason to stop.

    Raises:
        ClosedPipe: the reader has gone.
    """
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        _write(sys.stderr, text)


class Untiring:
    """A stream for a bar: what cannot be shown because the terminal has gone is passed over, as `tell` does."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def answer(text: str) -> None:
    """Write to stdout and flush: the result, which is never lost without a word.

    Raises:
        ClosedPipe: the reader has gone.
        OctcError: E904 no space behind stdout, E907 it is closed or cannot be written.
    """
    if sys.stdout is None:
        raise _no_stdout("it is closed")
    with reaching_stdout():
        _write(sys.stdout, text)


@contextlib.contextmanager
def reaching_stdout() -> Iterator[None]:
    """What goes wrong with stdout inside, as E904 or E907."""
    try:
        yield
    except BrokenPipeError as error:
        raise ClosedPipe from error
    except OSError as error:
        if error.errno in FULL:
            hint = "free some space, or octc ... > FILE on another disk"
            raise OctcError("OCT-E904", "no space left for standard output", hint=hint, place="stdout") from error
        raise _no_stdout(str(error.strerror or error)) from error
    except ValueError as error:  # Python's own object was closed
        raise _no_stdout(str(error)) from error


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except UnicodeEncodeError:  # a stream that could not be reconfigured
        encoding = getattr(stream, "encoding", None) or "ascii"
        codecs.register_error(HANDLER, _replace)
        stream.write(text.encode(encoding, HANDLER).decode(encoding))
        stream.flush()
    except BrokenPipeError as error:
        raise ClosedPipe from error


def drop_pipes() -> None:
    """After a closed pipe: let the interpreter flush into nothing at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, stream.fileno())
            except (OSError, ValueError, AttributeError):
                continue
            finally:
                os.close(null)
