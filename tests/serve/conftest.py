"""One server with two artifacts for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from octc.store.runs import Run
from tests.serve.process import Serving, serving
from tests.tiny_artifacts import shared_run


@pytest.fixture(scope="session")
def run() -> Run:
    return shared_run()


@pytest.fixture(scope="session")
def pictures(run: Run) -> list[Path]:
    """Images like those that the networks learned from."""
    return sorted((run.path.parent.parent / "patterns").rglob("*.png"))


@pytest.fixture(scope="module")
def server(warm: tuple[str, ...], run: Run) -> Iterator[Serving]:
    with serving(warm, run.artifacts / "onnx-int8", run.artifacts / "openvino-int8") as found:
        yield found
