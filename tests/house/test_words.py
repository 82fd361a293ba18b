"""The words of CONTRIBUTING.md: those of its "not" columns stand in no help, no message, no page of the documentation.

Old names that still work (octc/core/deprecated.py) and the spellings that `octc explain` looks up may have them, and so may
what tells of the past: CHANGELOG.md, docs/experiments.md, docs/example.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from octc.cli.explain import texts
from tests.house.tree import ROOT, sources, tree

WORDS = {
    "hint": r"\bmend(s|ed|ing)?\b",
    "command": r"\bverbs?\b",
    "synthetic data": r"\bphantoms\b|\bdata (paired-)?phantom\b|\bphantom (data|images|set)\b",
    "reference, candidates": r"\bparties\b",
    "temperature scaling": r"\btemper(s|ed|ing)?\b",
    "checksums": r"(?<![.\w])sums?\b(?! (?:of|may|hides|to)\b| [np]_| \(|[,(])",
    "validation set": r"\bselect (set|images?|part)s?\b",
    "regressed, improved": r"\blost\b[^.]{0,20}\bgained\b",
    "run summary": r"(?<!change )(?<!octc )\bdossiers?\b(?![-.])",
    "test-set log": r"\bstanding\b|\b(first|earlier|later|every|each) looks?\b",
    "mixed-precision fallback": r"\bladders?\b",
    "CPU steal": r"\blent its time\b",
    "artifact": r"\bbundles?\b",
    "tests non-inferiority": r"\bprov(e|es|ed|ing)\b",
}
PAST = ("experiments.md",)
FIELDS = re.compile(r"`details\.ladder`")  # of stored documents, whose fields stay
OLD = ROOT / "octc" / "core" / "deprecated.py"


def wrong(text: str) -> list[str]:
    """What stands in a text, and what to write instead. `Sum` is an operator of ONNX."""
    found = ((one[0], word) for word, pattern in WORDS.items() for one in re.finditer(pattern, text, re.IGNORECASE))
    return [f"{one} ({word})" for one, word in found if one not in ("Sum", "SUM")]


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """Strings of several words in a file of code that are no documentation of it: help, messages, pages."""
    parsed = tree(path)
    documents = {
        id(node.body[0].value)
        for node in ast.walk(parsed)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(parsed):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value and id(node) not in documents:
            yield node.lineno, node.value


def test_messages_and_help_of_options() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {word}"
        for path in sources()
        if path != OLD
        for line, text in sentences(path)
        for word in wrong(text)
    ]
    assert found == []


def test_help_of_commands() -> None:
    found = []
    for path in sorted((ROOT / "cli").glob("*.py")):
        for node in tree(path).body:
            if isinstance(node, ast.FunctionDef) and node.args.args[:1] and node.args.args[0].arg == "session":
                found += [f"{path.name} {node.name}: {word}" for word in wrong(ast.get_docstring(node) or "")]
    assert found == []


PAGES = [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in PAST)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages(path: Path) -> None:
    lines = enumerate(FIELDS.sub("", path.read_text()).splitlines(), 1)
    assert [f"{number} {word}" for number, line in lines for word in wrong(line)] == []


def test_explanations() -> None:
    found = []
    for name, entry in texts().items():
        told = [entry["why"], *entry.get("causes", ()), *entry.get("hint", ())]
        found += [f"{name}: {word}" for text in told for word in wrong(text)]
    assert found == []


def test_the_patterns_find_what_they_are_for() -> None:
    for text in ("how to mend it", "check its sum", "the select set", "lost 3, gained 4", "before the first look", "proves it"):
        assert wrong(text), text
    for text in ("data check phantom", "temperature", "a sum of squares", "select an artifact", "outstanding", "approved"):
        assert not wrong(text), text
