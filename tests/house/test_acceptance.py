"""docs/acceptance.md: every row of the training half and every fault is there, and every test that it names exists."""

from __future__ import annotations

import ast
import re

import pytest

from tests.house.tree import ROOT

TEXT = (ROOT / "docs" / "acceptance.md").read_text()
NAMED = re.compile(r"`((?:octc|cli|train|bench|compress|export|runtimes|house)/(?:\w+/)?test_\w+\.py)(?:::(test_\w+))?`")
ROWS = [*range(1, 8), *range(11, 21), *range(26, 34), *range(36, 49), *range(51, 62), *range(71, 74), 75]

# rows of the table of faults; those of the same letter that are missing are of other programs
FAULTS = {
    "D": (1, 2, 3, 4, 5, 7, 8, 10, 11, 13, 14, 16, 18, 19, 20, 21, 22, 23, 25, 26, 27, 29, 30, 31, 33, 34),
    "T": (1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 20, 22, 23, 24),
    "X": (1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 14, 15),
    "B": (1, 2, 4, 5, 7, 8, 9),
    "R": (1, 2, 3, 5, 6, 8, 9, 10),
    "P": (1, 2, 3, 4),
    "C": (1, 2, 4, 6, 7, 8, 10, 11),
}


def test_every_row_of_the_table_of_faults_is_there() -> None:
    """A row may stand for several, and a range for all in it; a test of each is named (`test_every_line_names_a_test`)."""
    heads = [line.split("|")[1] for line in TEXT.splitlines() if re.match(r"\| [TDXBRPC]\d\d", line)]
    found = set()
    for head in heads:
        for letter, first, last in re.findall(r"([A-Z])(\d\d)(?:-[A-Z](\d\d))?", head):
            found |= {(letter, number) for number in range(int(first), int(last or first) + 1)}
    assert not {(letter, number) for letter, numbers in FAULTS.items() for number in numbers} - found


def test_every_row_of_the_training_half_is_in_the_table() -> None:
    heads = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| F")]
    found = sorted(int(number) for head in heads for number in re.findall(r"F(\d\d)", head))
    assert found == ROWS


def test_every_line_names_a_test() -> None:
    lines = [line for line in TEXT.splitlines() if re.match(r"\| (F\d|[TDXBRPC]\d|- )", line)]
    assert len(lines) > 60
    assert not [line for line in lines if not NAMED.search(line) and "as F16" not in line]


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(TEXT))))
def test_the_test_that_is_named_exists(file: str, name: str) -> None:
    path = ROOT / "tests" / file
    assert path.is_file(), file
    names = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    assert not name or name in names
