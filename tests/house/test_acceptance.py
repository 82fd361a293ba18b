"""docs/acceptance.md: every row of the training half is there, and every test that it names exists."""

from __future__ import annotations

import ast
import re

import pytest

from tests.house.tree import ROOT

TEXT = (ROOT / "docs" / "acceptance.md").read_text()
NAMED = re.compile(r"`((?:octc|cli|train|bench|compress|export|runtimes|house)/test_\w+\.py)(?:::(test_\w+))?`")
ROWS = [*range(1, 8), *range(11, 21), *range(26, 34), *range(36, 49), *range(51, 62), *range(71, 74), 75]


def test_every_row_of_the_training_half_is_in_the_table() -> None:
    heads = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| F")]
    found = sorted(int(number) for head in heads for number in re.findall(r"F(\d\d)", head))
    assert found == ROWS


def test_every_line_names_a_test() -> None:
    lines = [line for line in TEXT.splitlines() if re.match(r"\| (F\d|T\d|D\d|- )", line)]
    assert len(lines) > 60
    assert not [line for line in lines if not NAMED.search(line) and "as F16" not in line]


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(TEXT))))
def test_the_test_that_is_named_exists(file: str, name: str) -> None:
    path = ROOT / "tests" / file
    assert path.is_file(), file
    names = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    assert not name or name in names
