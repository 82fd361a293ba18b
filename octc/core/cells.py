"""Cells of tables written by people and programs: names, empty values, and different spellings of one name."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

# what a spreadsheet program writes where a formula failed (in six languages), or a column is too narrow
FAILED = (
    "#n/a", "#nv", "#n/d", "#nd", "#value!", "#ref!", "#name?", "#div/0!", "#num!", "#null!", "#spill!", "#calc!", "#field!",
    "#wert!", "#bezug!", "#zahl!", "#überlauf!", "#valeur!", "#nom?", "#nombre!", "#nul!", "#¡valor!", "#¡ref!", "#¿nombre?",
    "#¡div/0!", "#¡num!", "#valore!", "#rif!", "#nome?", "#valor!", "#núm!", "#waarde!", "#verw!", "#naam?", "#getal!",
    *("#" * length for length in range(2, 41)),
)  # fmt: skip
# cells that say that there is nothing, in lower case; "none" and "unknown" may be classes
NO_LABEL = frozenset(("", "-", "--", "?", "n/a", "na", "nan", "nat", "null", "nil", "<na>", *FAILED))
WHOLE = re.compile(r"(\d+)(?:\.(?:0{1,2}|0{4,}))?")
NO_PATIENT = NO_LABEL | {"none", "unknown", "not known"}


def trimmed(text: str) -> str:
    """A cell without white space and invisible characters at its ends (byte order marks, direction marks).

    >>> trimmed(" CNV\u200b "), trimmed("\ufeffpath"), trimmed("\u200eP 7\u00a0")
    ('CNV', 'path', 'P 7')
    """
    text = text.strip()
    if text.isascii():
        return text
    seen = [i for i, one in enumerate(text) if not one.isspace() and unicodedata.category(one) != "Cf"]
    return text[seen[0] : seen[-1] + 1] if seen else ""


def text_of(cell: Any) -> str:
    """A cell as a name; whole numbers are written without a fraction. "" for an empty cell.

    >>> text_of(" CNV "), text_of(3.0), text_of(float("nan")), text_of(True), len(text_of(10**400))
    ('CNV', '3', '', '1', 401)
    """
    if isinstance(cell, str):
        return trimmed(cell)
    if cell is None:
        return ""
    if isinstance(cell, Real):
        if (whole := whole_number(cell)) is not None:
            return str(whole)
        return "" if math.isnan(number := float(cell)) else str(number)
    return str(cell)


def whole_number(value: Any) -> int | None:
    """A cell as a whole number (3, 3.0, True, or a text of digits); None for everything else.

    pandas and Excel write a column of whole numbers that has gaps as 12.0. Three zeros may be thousands.

    >>> whole_number(3.0), whole_number("12"), whole_number("12.0"), whole_number("1.5"), whole_number("1.000")
    (3, 12, 12, None, None)
    """
    if isinstance(value, str):
        return int(found[1]) if (found := WHOLE.fullmatch(value)) is not None else None
    if isinstance(value, Integral):
        return int(value)
    return int(number) if isinstance(value, Real) and (number := float(value)).is_integer() else None


def plain_values(values: Iterable[Any]) -> list[Any]:
    """Values as Python has them: of an array, a tensor, a column of pandas too.

    >>> plain_values((1, 2))
    [1, 2]
    """
    plain_list = getattr(values, "tolist", None)
    return list(values) if plain_list is None else list(plain_list())


def digits_of(text: str, most: int = 18) -> int | None:
    """A text of ASCII digits (at most `most`) as a number; None for everything else.

    >>> digits_of("007"), digits_of("\u00b2"), digits_of("\u0663"), digits_of("+1"), digits_of("")
    (7, None, None, None, None)
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= most else None


def label_of(cell: Any) -> str:
    """The class named by a cell; "" for an empty cell or a word for a missing value ("NaN", "N/A")."""
    text = text_of(cell)
    return "" if text.casefold() in NO_LABEL else text


def given(cell: Any) -> str | None:
    """The patient named by a cell; None for an empty cell or a word for a missing value."""
    text = text_of(cell)
    return None if text.casefold() in NO_PATIENT else text


def plain(value: str) -> str:
    """A normalised value for comparisons: ignores letter case, white space, invisible characters, full-width forms and extra
    zeros.

    >>> plain(" p 007.0 ") == plain("P007"), plain("12.50"), plain("0042"), plain("\uff12\u200b")
    (True, '12.50', '42', '2')
    """
    text = unicodedata.normalize("NFKC", value).casefold()
    if not text.isascii():
        text = "".join(one for one in text if unicodedata.category(one) != "Cf")
    text = re.sub(r"(?<=\d)\.0+$", "", re.sub(r"\s+", "", text))
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text


def same_names(values: Iterable[str]) -> list[str]:
    """Groups of values that are equal after `plain`, as "CNV = cnv", sorted.

    >>> same_names(["cnv", "DME", "CNV", "1", "1.0"])
    ['1 = 1.0', 'CNV = cnv']
    """
    groups: dict[str, set[str]] = {}
    for one in values:
        groups.setdefault(plain(one), set()).add(one)
    return sorted(" = ".join(sorted(group)) for group in groups.values() if len(group) > 1)
