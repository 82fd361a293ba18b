"""Connections: uvicorn would wait for ever for the headers of a slow client, and answers a quick one in two packets."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from octc.core.optional import need

HEADER_SECONDS = 10.0  # from the opening of a connection, or the first byte of a further request, to the end of its headers


class Joined:
    """A transport that sends what is written in one turn of the loop together: head and body of an answer are one packet.

    Two would be two system calls, and would wake the client twice.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        if len(self._parts) == 1:
            self._loop.call_soon(self._flush)  # what has no second part goes too
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
    """Whether a client that has sent all that it will is still answered (RFC 9112, 9.6): `nc -N` ends so. Its connection ends
    with the last answer. TLS knows no half of a connection."""
    newest = protocol.cycle
    waits = newest is not None and not newest.response_complete and not newest.more_body and protocol.scheme == "http"
    if waits:
        newest.keep_alive = False
    return bool(waits)


@functools.cache
def protocol_class() -> Any:
    """uvicorn's protocol on httptools, with a limit of time for the headers, and with answers in one packet."""
    base = need("uvicorn.protocols.http.httptools_impl").HttpToolsProtocol

    class Timed(base):  # type: ignore[misc, valid-type]
        _timer: asyncio.TimerHandle | None = None
        eof_received = _ends_after_its_answers

        def connection_made(self, transport: Any) -> None:
            super().connection_made(Joined(transport, self.loop))
            self._begin()

        def data_received(self, data: bytes) -> None:
            if self._timer is None and self.timeout_keep_alive_task is not None:  # a further request on this connection
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
