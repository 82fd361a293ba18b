"""What a terminal can show: symbols that an encoding lacks, colour, closed pipes. Nothing that is written may crash."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Mapping
from typing import TextIO

# what is written instead where the encoding has no such sign
ASCII = {
    "✓": "ok", "✗": "FAIL", "→": "->", "←": "<-", "·": "-", "•": "*", "…": "...", "–": "-", "—": "-", "−": "-", "×": "x",
    "±": "+-", "≥": ">=", "≤": "<=", "≈": "~", "°": " deg", "µ": "u", "Δ": "D", "²": "^2", "“": '"', "”": '"',
    "‘": "'", "’": "'",
}  # fmt: skip
COLOURS = {"error": "\033[1;31m", "warning": "\033[33m", "✓": "\033[32m", "✗": "\033[31m", "!": "\033[33m"}
PLAIN = "\033[0m"
HANDLER = "octc"


class ClosedPipe(Exception):
    """Whoever read our output has gone."""


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


def prepare_streams() -> None:
    """Let stdout and stderr write any text in any encoding (file names with stray bytes included)."""
    codecs.register_error(HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)


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


def write(stream: TextIO | None, text: str) -> None:
    """Write and flush; a closed stream is nothing to write to.

    Raises:
        ClosedPipe: the reader has gone.
    """
    if stream is None:
        return
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
