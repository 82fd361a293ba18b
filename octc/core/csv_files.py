"""CSV that octc writes and reads: spreadsheets run no cell as a formula, and every text survives the round trip.

A spreadsheet runs a cell that begins with = + - @ (or with a tab or a return before one). Such a text is written behind a
single quotation mark, as OWASP recommends (https://owasp.org/www-community/attacks/CSV_Injection), and so is a text that
begins with that mark itself. What UTF-8 cannot hold (a stray byte of a file name) is written as `\\xe9` in a cell that begins
with `'\\`. Numbers are written as numbers: -0.5 stays one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from numbers import Number
from pathlib import Path
from typing import Any

MARK, STRAY_MARK = "'", "'\\"
FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@'＝＋－＠]")  # the last four: what a Japanese or Chinese keyboard types
QUOTED = re.compile(r'[",;\r\n]|^\s|\s$')
STRAY = re.compile(r"[\0\ud800-\udfff]")
SPELT = re.compile(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4})")


def csv_line(cells: Sequence[Any]) -> str:
    """One row with its line feed; None is an empty cell, a number stays a number, everything else is text."""
    row = ",".join(_quoted("" if c is None else str(c) if isinstance(c, Number) else escape(str(c))) for c in cells)
    return (row or '""') + "\n"


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A whole file, UTF-8."""
    return "".join(csv_line(row) for row in (columns, *rows)).encode()


def read_csv(path: Path) -> list[list[str]]:
    """The rows of a file that octc wrote, the header first (OSError, UnicodeDecodeError or csv.Error where it is none)."""
    return parse_csv(path.read_bytes().decode())


def parse_csv(text: str) -> list[list[str]]:
    """The rows of a CSV text that octc wrote, every cell as it was before it was written."""
    return [[unescape(cell) for cell in row] for row in csv.reader(io.StringIO(text, newline=""), strict=True)]


def escape(text: str) -> str:
    """A text as a cell that no spreadsheet runs."""
    if STRAY.search(text):
        return STRAY_MARK + STRAY.sub(_spell, text.replace("\\", "\\\\"))
    return MARK + text if FORMULA.match(text) else text


def unescape(cell: str) -> str:
    """The text that `escape` was given."""
    if cell.startswith(STRAY_MARK):
        return SPELT.sub(_unspell, cell[len(STRAY_MARK) :])
    return cell[1:] if cell.startswith(MARK) and FORMULA.match(cell[1:]) else cell


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if QUOTED.search(cell) else cell


def _spell(found: re.Match[str]) -> str:
    """A stray byte as \\xe9 (Python holds it as U+DCE9), another half of a pair as \\ud800, NUL as \\x00."""
    code = ord(found[0])
    return f"\\x{code & 0xFF:02x}" if code == 0 or 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _unspell(found: re.Match[str]) -> str:
    word = found[1]
    if word == "\\":
        return word
    code = int(word[1:], 16)
    return chr(code + 0xDC00 if word[0] == "x" and code else code)
