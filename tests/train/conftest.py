from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def reset_accelerate() -> Iterator[None]:
    """Accelerate keeps the first precision of a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()
