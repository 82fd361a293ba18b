"""A process that is lost is told by name; other failures stay what they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from octc.core.errors import OctcError
from octc.train.loop.processes import LOST, named_failures


@pytest.mark.parametrize("word", LOST)
def test_t14_broken_connection_to_a_process_is_e305(word: str) -> None:
    two: Any = SimpleNamespace(num_processes=2, process_index=1)
    with pytest.raises(OctcError) as caught, named_failures(two, 8):
        raise RuntimeError(f"gloo: {word} [127.0.0.1]:29500")
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E305", 5)
    assert "--resume" in caught.value.hint


@pytest.mark.parametrize(("processes", "text"), [(1, LOST[0]), (2, "shapes do not fit")])
def test_other_failures_stay_what_they_are(processes: int, text: str) -> None:
    accelerator: Any = SimpleNamespace(num_processes=processes, process_index=0)
    with pytest.raises(RuntimeError, match="^" + text), named_failures(accelerator, 8):
        raise RuntimeError(text)
