"""One tiny run for the tests of a process; a test that writes takes a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from octc.store.runs import Run
from tests.tiny_run import make_run, write_patterns


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("patterns")
    write_patterns(root)
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, patterns: Path) -> Run:
    return make_run(tmp_path_factory.mktemp("runs"), patterns)


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    copy = tmp_path / "runs"
    shutil.copytree(trained.path.parent, copy)
    return Run(copy / trained.id)
