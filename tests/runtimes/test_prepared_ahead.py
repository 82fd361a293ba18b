"""Pictures that are decoded ahead, when nobody takes them any more."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from octc.runtimes import predict


def test_records_that_are_forgotten_may_be_closed_in_a_thread_that_decodes() -> None:
    """Python's collector runs in any thread; a thread that waits for itself is a RuntimeError."""
    go, done = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def prepare(item: Any) -> Any:
        if item == Path("2"):
            go.wait(10)
            try:
                taken.close()
            except BaseException as error:
                raised.append(error)
            done.set()
        return item

    taken = predict._prepared(prepare, [Path(str(i)) for i in range(50)], each=1, threads=2)
    assert next(taken) == Path("0")
    go.set()
    assert done.wait(10)
    assert raised == []
    assert next(taken, None) is None
