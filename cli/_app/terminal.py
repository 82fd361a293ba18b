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

# ASCII replacements for encodings without these characters
ASCII = {
    "✓": "ok", "✗": "FAIL", "→": "->", "←": "<-", "·": "-", "•": "*", "…": "...", "–": "-", "—": "-", "−": "-", "×": "x",
    "±": "+-", "≥": ">=", "≤": "<=", "≈": "~", "°": " deg", "µ": "u", "Δ": "D", "²": "^2", "“": '"', "”": '"',
    "‘": "'", "’": "'",
}  # fmt: skip
COLOURS = {"error": "\033[1;31m", "warning": "\033[33m", "✓": "\033[32m", "✗": "\033[31m", "!": "\033[33m"}
PLAIN = "\033[0m"
HANDLER = "octc"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # EFBIG: a limit on file size
# Characters that a terminal interprets: control characters (except line break and tab) and text direction marks. File names,
# class names and messages of other libraries may contain them.
_OBEYED = re.compile("[\\0-\\b\\v-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")


class ClosedPipe(Exception):
    """The reader of our output is gone."""


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(ASCII.get(sign) or _escaped(sign) for sign in signs), error.end


def _escaped(sign: str) -> str:
    """Box-drawing characters become ASCII lines; any other character becomes its escape."""
    if "─" <= sign <= "╿":
        return "|" if sign in "│┃║" else "-"
    return sign.encode("ascii", "backslashreplace").decode("ascii")


def shown(text: str) -> str:
    """Escape the control sequences of a text for output on a terminal.

    >>> shown("a\\x1b[31m b")
    'a\\\\x1b[31m b'
    """
    return _OBEYED.sub(lambda found: repr(found[0])[1:-1], text)


def shown_line(text: str) -> str:
    """Escape a text as `shown` does, and its line breaks too."""
    return shown(text).replace("\n", "\\n")


def prepare_streams() -> None:
    """Configure stdout and stderr to accept any text in any encoding (undecodable bytes in file names included)."""
    _occupy_closed()
    codecs.register_error(HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)


def _occupy_closed() -> None:
    """Replace closed standard streams with /dev/null. Otherwise the next opened file would get their descriptor, and a library
    that writes to stderr would write into it. `sys.stdout` stays None."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def check_stdout() -> None:
    """Check before any work that stdout is writable (OctcError E907)."""
    if sys.stdout is None:
        raise _no_stdout("it is closed")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if fcntl.fcntl(sys.stdout.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise _no_stdout("it is open for reading only")


def _no_stdout(why: str) -> OctcError:
    text = f"standard output cannot be written: {why}"
    return OctcError("OCT-E907", text, hint="octc ... > FILE, or > /dev/null where the result is not wanted", place="stdout")


def shows(stream: TextIO | None, sign: str = "✓") -> bool:
    """Whether the stream's encoding can represent `sign`."""
    try:
        sign.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def has_colour(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Whether to use colour: only on a terminal, and not if NO_COLOR or TERM=dumb is set."""
    if stream is None or environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def marked(text: str, stream: TextIO | None, colour: bool) -> str:
    """A line with its leading symbol in colour, or as a word if the encoding has no such symbol."""
    body = text.lstrip()
    indent, sign = text[: len(text) - len(body)], body[:1]
    if sign not in ("✓", "!", "✗") or body[1:2] != " ":
        return text
    if not shows(stream):
        return f"{indent}{'warn' if sign == '!' else ASCII[sign]}{body[1:]}"
    return f"{indent}{COLOURS[sign]}{sign}{PLAIN}{body[1:]}" if colour else text


def tell(text: str) -> None:
    """Write to stderr and flush. A failure to write is ignored, since there is no other place to report it.

    Raises:
        ClosedPipe: the reader has gone.
    """
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        _write(sys.stderr, text)


class Untiring:
    """A stream for a progress bar that ignores write failures if the terminal is gone, as `tell` does."""

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
    """Write the result to stdout and flush; a failure is always reported.

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
    """Convert errors of stdout inside the block to OctcError E904 or E907."""
    try:
        yield
    except BrokenPipeError as error:
        raise ClosedPipe from error
    except OSError as error:
        if error.errno in FULL:
            hint = "free some space, or octc ... > FILE on another disk"
            raise OctcError("OCT-E904", "no space left for standard output", hint=hint, place="stdout") from error
        raise _no_stdout(str(error.strerror or error)) from error
    except ValueError as error:  # sys.stdout was closed
        raise _no_stdout(str(error)) from error


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except UnicodeEncodeError:  # a stream without an error handler for its encoding
        encoding = getattr(stream, "encoding", None) or "ascii"
        codecs.register_error(HANDLER, _replace)
        stream.write(text.encode(encoding, HANDLER).decode(encoding))
        stream.flush()
    except BrokenPipeError as error:
        raise ClosedPipe from error


def drop_pipes() -> None:
    """After a closed pipe: redirect stdout to /dev/null, so that the final flush of the interpreter succeeds."""
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
