"""One tiny run for the tests of a process; a test that writes takes a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from octc.store.runs import Run
from tests.tiny_run import trained_run


@pytest.fixture(scope="session")
def patterns() -> Path:
    return trained_run().path.parent.parent / "patterns"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy: exports of a session lie in it."""
    made = trained_run()
    return Run(Path(shutil.copytree(made.path, tmp_path_factory.mktemp("runs") / made.id)))


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    copy = tmp_path / "runs"
    shutil.copytree(trained.path.parent, copy)
    return Run(copy / trained.id)
