from __future__ import annotations

import pytest

from octc.store.runs import Run
from tests.tiny_artifacts import shared_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)
