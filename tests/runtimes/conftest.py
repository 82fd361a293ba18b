from __future__ import annotations

import pytest
from tiny_artifacts import shared_run

from octc.run import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)
