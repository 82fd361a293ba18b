"""CSV that octc writes: no cell is run as a formula, every name comes back, numbers stay numbers."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from octc.core.csv_files import csv_bytes, csv_line, escape, parse_csv, read_csv, unescape

ANY = st.text(st.characters(exclude_categories=()) | st.sampled_from("'=+-@\t\r\n\\\",; x\udce9\ud800\0"), max_size=12)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.lists(ANY, min_size=2, max_size=4), max_size=4))
@example([["'=a", "''"], ["'\\x41", "\\"], ["\r", "\n\r"], ["'", "caf\udce9\\xe9.png"]])
def test_any_text_comes_back_and_the_file_is_utf8(rows: list[list[str]]) -> None:
    data = csv_bytes(["a", "=b"], rows)
    assert parse_csv(data.decode()) == [["a", "=b"], *rows]


@settings(max_examples=500, deadline=None)
@given(ANY)
def test_no_cell_begins_as_a_formula_does(text: str) -> None:
    cell = escape(text)
    assert cell.lstrip()[:1] not in ("=", "+", "-", "@")
    assert cell[:1] not in ("\t", "\r", "\n")
    assert unescape(cell) == text
    (row,) = csv.reader(io.StringIO(csv_line([text, "x"]), newline=""), strict=True)  # what another reader sees
    assert row == [cell, "x"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1", "'=1"])
def test_formulas_stand_behind_a_mark(text: str) -> None:
    assert escape(text) == f"'{text}"


@pytest.mark.parametrize("text", ["NORMAL", "a=b", "x-1.png", "CNV-1-2.jpeg", "", "日本.png", "a\rb", '"quoted"'])
def test_plain_names_stay_as_they_are(text: str) -> None:
    assert escape(text) == text


def test_numbers_stay_numbers_and_none_is_empty() -> None:
    cells = [-0.5, 3, np.float64(-1e-9), np.int64(-2), np.float32(-0.25), None, True, float("-inf")]
    assert csv_line(cells) == "-0.5,3,-1e-09,-2,-0.25,,True,-inf\n"


def test_a_bare_return_breaks_no_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(csv_bytes(["file", "n"], [["a\rb.png", 1], ["c.png", 2]]))
    assert read_csv(tmp_path / "t.csv") == [["file", "n"], ["a\rb.png", "1"], ["c.png", "2"]]


def test_what_was_written_before_the_mark_is_read_as_it_is() -> None:
    assert parse_csv("path,v\n'abc.png,-0.5\n") == [["path", "v"], ["'abc.png", "-0.5"]]
