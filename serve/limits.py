"""Memory limit of all requests together."""

from __future__ import annotations

import threading

from octc.core.errors import OctcError


class Bytes:
    """A budget of bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        return self._held

    def take(self, count: int) -> None:
        """Take bytes from the budget (OctcError E908: not enough left)."""
        with self._lock:
            if self._held + count > self.most:
                text = f"requests hold {self._held} bytes, {count} more are too many"
                raise OctcError("OCT-E908", text, hint="retry in 1 s")
            self._held += count

    def release(self, count: int) -> None:
        with self._lock:
            self._held -= count
