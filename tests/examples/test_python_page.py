"""docs/python.md: its blocks run in their order and print what the page shows; every command is named on it."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
from pathlib import Path
from typing import Any

import pytest

from tests.house.tree import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.S)


@pytest.mark.slow
def test_the_blocks_run_and_print_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == PAGE.count("```python") > 4
    assert sum(bool(shown) for _, shown in BLOCKS) == PAGE.count("```text") > 3
    names: dict[str, Any] = {"__name__": "page"}
    for number, (code, shown) in enumerate(BLOCKS, 1):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile("from __future__ import annotations\n" + code, f"docs/python.md, block {number}", "exec"), names)
        assert doctest.OutputChecker().check_output(shown, out.getvalue(), 0), (number, out.getvalue())


def test_the_blocks_import_the_public_names_only() -> None:
    assert "import octc\n" in PAGE
    assert not re.search(r"^\s*(from|import) octc\.", "\n".join(code for code, _ in BLOCKS), re.M)


def test_every_command_is_on_the_page() -> None:
    from octc.cli._app.commands import COMMANDS

    missing = [
        command.name for command in COMMANDS if not re.search(rf"`octc\s+{command.name.replace(' ', chr(92) + 's+')}`", PAGE)
    ]
    assert not missing
