"""Checks before every request: token, host name, number of simultaneous requests. Afterwards: log line and metrics."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import msgspec

from octc.core.errors import OctcError
from octc.core.faults import fault_of
from octc.core.optional import need
from octc.serve.doors import Doors, allowed, host_known, no_token, same_origin
from octc.serve.http.answers import TICKET, Ticket, error_document, status_of
from octc.serve.limits import Bytes
from octc.serve.logs import log
from octc.serve.site import Site

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
OWN = {  # headers of every response: no caching, and pages load content of this server only
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
HEADERS = [(name.encode(), value.encode()) for name, value in OWN.items()]
GONE = 499  # the client disconnected: used in the log only
CLOSING = (401, 408, 413, 415, 429)
HEALTH = 8  # additional simultaneous requests for health and metrics, so that a busy server still counts as alive


class _Answer:
    """The response, with this server's own headers; status: 0 until it starts."""

    def __init__(self, send: Send, request: str) -> None:
        self.status = 0
        self._send, self._request = send, request

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [*HEADERS, (b"x-request-id", self._request.encode())]
            message = {**message, "headers": [*message["headers"], *own]}
        await self._send(message)

    async def refuse(self, error: OctcError, status: int, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send an error as the response, unless one has started. If the rest of a request body may still arrive, the connection
        is closed."""
        if self.status:
            return
        data = msgspec.json.encode(error_document(error.code, error.message, error.hint))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode()), *more]
        if status in CLOSING:
            headers.append((b"connection", b"close"))
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": data})


class Guard:
    """ASGI middleware."""

    def __init__(self, app: App, site: Site, doors: Doors, budget: Bytes) -> None:
        self._app, self._site, self._doors, self._budget = app, site, doors, budget
        self._running = 0
        self._fail_after = need("anyio").fail_after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # websockets are not supported
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", "")
        ticket = Ticket(given if ID.fullmatch(given) else uuid.uuid4().hex, self._budget)
        scope[TICKET] = ticket
        answer, start = _Answer(send, ticket.id), time.perf_counter()
        self._site.metrics.started("http")
        self._running += 1
        try:
            await self._bounded(scope, headers, receive, answer)
        finally:
            self._running -= 1
            ticket.release()
            seconds = time.perf_counter() - start
            self._site.metrics.ended("http", ticket.route, str(answer.status), seconds)
            self._log(ticket, scope, answer.status, seconds)

    async def _bounded(self, scope: Scope, headers: dict[bytes, str], receive: Receive, answer: _Answer) -> None:
        """The response of the application, or an error instead."""
        ticket: Ticket = scope[TICKET]
        limit = self._site.options.timeout
        try:
            with self._fail_after(limit):
                self._check(scope, headers)
                await self._app(scope, receive, answer)
        except TimeoutError:
            await answer.refuse(_late(ticket, limit), 504 if ticket.whole else 408)
        except OctcError as error:
            await self._error(answer, ticket, error)
        except Exception as error:
            if (fault := fault_of(error)) is not None:  # for example no disk space for an upload
                await self._error(answer, ticket, fault)
                return
            if isinstance(error, OSError) or type(error).__name__ == "ClientDisconnect":  # the client disconnected
                answer.status = answer.status or GONE
                return
            log("internal error", level=logging.ERROR, error=error, request=ticket.id)
            await answer.refuse(OctcError("OCT-E999", "internal error", hint="the server's log has it"), 500)

    def _check(self, scope: Scope, headers: dict[bytes, str]) -> None:
        host = headers.get(b"host")
        if not allowed(self._doors, headers.get(b"authorization")):
            raise no_token()
        if not host_known(self._doors, host) or not same_origin(
            headers.get(b"origin"), host, headers.get(b"sec-fetch-site") if scope["method"] != "GET" else None
        ):
            raise OctcError(
                "OCT-E912", "requests from other sites and host names are refused", hint="use this server's own address"
            )
        spare = HEALTH if scope["path"].startswith(("/v2/health", "/metrics")) else 0
        if self._running > self._site.options.requests + spare:
            text = f"{self._site.options.requests} requests are already running"
            raise OctcError("OCT-E908", text, hint=f"retry in {self._site.pool.retry_after()} s")

    async def _error(self, answer: _Answer, ticket: Ticket, error: OctcError) -> None:
        ticket.code, status = error.code, status_of(error)
        if status >= 500:
            log("error", level=logging.ERROR, request=ticket.id, code=error.code, message=error.message)
        more = []
        if status == 429:
            more.append((b"retry-after", str(self._site.pool.retry_after()).encode()))
        if error.place == "Content-Encoding":
            more.append((b"accept-encoding", b"identity"))  # RFC 9110, 15.5.16: accepted encodings
        if status == 401:
            more += [
                (b"www-authenticate", b'Bearer realm="octc"'),
                (b"www-authenticate", b'Basic realm="octc", charset="UTF-8"'),
            ]
        await answer.refuse(error, status, more)

    def _log(self, ticket: Ticket, scope: Scope, status: int, seconds: float) -> None:
        facts: dict[str, Any] = {"request": ticket.id, "method": scope["method"], "route": ticket.route, "status": status}
        more: dict[str, Any] = {
            "model": ticket.model,
            "version": ticket.version,
            "images": ticket.images or None,
            "code": ticket.code,
        }
        log("request", **facts, ms=round(1000 * seconds, 2), **{key: value for key, value in more.items() if value is not None})


def _late(ticket: Ticket, seconds: float) -> OctcError:
    ticket.code = "OCT-E909"
    text = f"the response took longer than {seconds:g} s" if ticket.whole else f"the request was incomplete after {seconds:g} s"
    return OctcError("OCT-E909", text, hint="send fewer images at once, or raise --timeout")
