"""What several files of this folder begin with: a small run, a copy that may be spoilt, and a command in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octc.cli._app.main import main
from octc.cli.json_schema import schema_of
from octc.store.runs import Run
from tests.bench.verify_world import make_world
from tests.schema_checks import validate

Said = Callable[..., "tuple[int, Any]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of `make_world`, one for all tests of a file."""
    return make_world(tmp_path_factory.mktemp("made"))


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    """A copy that a test may spoil; the pictures are shared."""
    return Run(Path(shutil.copytree(made.path, tmp_path / "runs" / made.id)))


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """`octc COMMAND WORDS --json` beside the runs: exit code and document, which fits its schema."""
    monkeypatch.chdir(tmp_path)

    def call(command: str, *words: str) -> tuple[int, Any]:
        code = main([command, *words, "--json"])
        document = json.loads(capsys.readouterr().out)
        validate(document, schema_of(command))
        return code, document

    return call
