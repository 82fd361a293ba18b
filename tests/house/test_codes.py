"""Error codes: each one that stands in the source is in the catalogue, and ends as its block says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from octc.core.codes import CODES, EXIT_ORDER
from tests.house.tree import ROOT, files, sources, tree

CODE = re.compile(r"OCT-[EW]\d{3}")
CATALOGUE = ROOT / "octc" / "core" / "codes.py"


def said(path: Path) -> Iterator[tuple[str, int]]:
    """Codes in the strings of a file that are code, not docstrings of something else."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((code, node.lineno) for code in CODE.findall(node.value))


def test_every_code_in_the_source_is_in_the_catalogue() -> None:
    unknown = [
        f"{path.relative_to(ROOT)}:{line} {code}" for path in sources() for code, line in said(path) if code not in CODES
    ]
    assert not unknown


def test_the_catalogue_is_well_formed() -> None:
    text = CATALOGUE.read_text()
    keys = re.findall(r'^    "(OCT-[EW]\d{3})":', text, re.M)
    assert keys == sorted(set(keys)), "codes are listed once, in order"
    assert set(keys) == set(CODES)
    for code, (exit_code, meaning) in CODES.items():
        assert exit_code == 0 if code.startswith("OCT-W") else exit_code in EXIT_ORDER, code
        assert meaning
        assert not meaning.endswith((".", "!"))
        assert len(meaning) < 100


def test_every_error_has_a_message_in_the_house_style_and_a_mend() -> None:
    """Of every OctcError(...) whose message is a literal: lower case, no full stop; `mend` is always given."""
    count = 0
    for path in sources():
        for node in ast.walk(tree(path)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "OctcError"):
                continue
            count += 1
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            keywords = {keyword.arg for keyword in node.keywords}
            assert "hint" in keywords or None in keywords, f"{where} has no hint"
            message = node.args[1] if len(node.args) > 1 else None
            if isinstance(message, ast.Constant):
                assert not message.value.endswith((".", "!")), f"{where}: no full stop"
    assert count > 50


def test_every_error_code_in_the_source_is_raised_by_a_test() -> None:
    used = {code for path in sources() if path != CATALOGUE for code, _ in said(path) if code.startswith("OCT-E")}
    text = "\n".join(path.read_text() for path in files() if path.suffix == ".py" and path.is_relative_to(ROOT / "tests"))
    untested = sorted(code for code in used if code not in text and code.removeprefix("OCT-") not in text)
    assert not untested
