"""The door in this process; a module that tests one command has a `said` of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from octc.cli._app.main import main

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Run `octc WORDS...` in tmp_path: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
