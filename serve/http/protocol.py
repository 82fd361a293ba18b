"""Connections: adds a timeout for request headers to uvicorn, and sends small responses in one packet."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from octc.core.optional import need

HEADER_SECONDS = 10.0  # maximum time for the headers, from the opening of a connection or the first byte of a further request


class Joined:
    """A transport that joins all writes of one event loop iteration: head and body of a response become one packet.

    Two packets would need two system calls, and wake the client twice.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        if len(self._parts) == 1:
            self._loop.call_soon(self._flush)  # sends a single write too
        else:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _ends_after_its_answers(protocol: Any) -> bool:
    """Handle a client that half-closes its connection after the request (RFC 9112, 9.6; `nc -N`): it still gets the response,
    and the connection ends with the last one. TLS has no half-closed connections."""
    newest = protocol.cycle
    waits = newest is not None and not newest.response_complete and not newest.more_body and protocol.scheme == "http"
    if waits:
        newest.keep_alive = False
    return bool(waits)


@functools.cache
def protocol_class(connections: int) -> Any:
    """uvicorn's httptools protocol with a timeout for the headers and responses in one packet.

    Args:
        connections: maximum number; a further one is closed at once, so that those who wait for nothing leave open files to
            the requests.
    """
    base = need("uvicorn.protocols.http.httptools_impl").HttpToolsProtocol

    class Timed(base):  # type: ignore[misc, valid-type]
        _timer: asyncio.TimerHandle | None = None
        eof_received = _ends_after_its_answers

        def connection_made(self, transport: Any) -> None:
            super().connection_made(Joined(transport, self.loop))
            (self._begin, self.transport.abort)[len(self.connections) > connections]()

        def data_received(self, data: bytes) -> None:
            if self._timer is None and self.timeout_keep_alive_task is not None:  # another request on this connection
                self._begin()
            super().data_received(data)

        def on_headers_complete(self) -> None:
            self._end()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end()
            super().connection_lost(exc)

        def _begin(self) -> None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self._late)

        def _end(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self.transport.abort()

    return Timed
