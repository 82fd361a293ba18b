"""HTTP bodies: reads requests within the limits; writes responses as JSON, errors with code and hint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from octc.core.cells import digits_of
from octc.core.errors import OctcError
from octc.core.optional import need
from octc.serve.limits import Bytes

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

TICKET = "octc.ticket"  # key of the ticket in the ASGI scope of a request
STATUS = {
    "OCT-E104": 400, "OCT-E102": 400, "OCT-E912": 400, "OCT-E910": 401, "OCT-E107": 404, "OCT-E911": 413, "OCT-E913": 415,
    "OCT-E908": 429, "OCT-E909": 504, "OCT-E904": 507, "OCT-E906": 503,
}  # fmt: skip
UNREADABLE = 422  # status of a complete upload that cannot be processed


@dataclass
class Ticket:
    """State of a running request.

    Attributes:
        id: request id, the client's or a new one. route: from the table of routes. held: bytes of its body in memory.
        whole: whether its body is complete. code: code of the error that ended it. model, version, images: what is requested.
    """

    id: str
    budget: Bytes
    route: str = "-"
    held: int = 0
    whole: bool = False
    code: str | None = None
    model: str | None = None
    version: str | None = None
    images: int = 0

    def take(self, count: int) -> None:
        """Count bytes in memory (OctcError E908: all requests together hold too many)."""
        self.budget.take(count)
        self.held += count

    def release(self) -> None:
        self.budget.release(self.held)
        self.held = 0


def ticket_of(request: Request) -> Ticket:
    found: Ticket = request.scope[TICKET]
    return found


async def chunks_of(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body of a request in chunks; if its length is stated, it is counted before it is read.

    Raises:
        OctcError: E911 longer than `limit` bytes; E908 too much in memory; E913 compressed.
    """
    ticket = ticket_of(request)
    codings = [one.strip() for value in request.headers.getlist("content-encoding") for one in value.split(",")]
    if named := [one for one in codings if one and one.lower() != "identity"]:
        text = f"a body compressed with {', '.join(named)[:60]} is not supported"
        raise OctcError("OCT-E913", text, hint="send the body uncompressed, without Content-Encoding", place="Content-Encoding")
    length = request.headers.get("content-length", "").lstrip("0")
    known = (digits_of(length, 15) or limit + 1) if length else 0  # more digits exceed any limit
    if known > limit:
        raise too_large(limit)
    ticket.take(known)
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > limit:
            raise too_large(limit)
        if count > known:
            ticket.take(min(len(chunk), count - known))
        yield chunk
    ticket.whole = True


async def body_of(request: Request, limit: int) -> bytes:
    """The whole body. Raises as `chunks_of`."""
    chunks = [chunk async for chunk in chunks_of(request, limit)]
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def too_large(limit: int) -> OctcError:
    return OctcError("OCT-E911", f"the body is longer than {limit} bytes", hint="send less at once")


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return plain_response(msgspec.json.encode(value), "application/json", status, headers)


def plain_response(data: bytes, media_type: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    found: Response = need("starlette.responses").Response(data, status, dict(headers or {}), media_type)
    return found


def status_of(error: OctcError) -> int:
    """The HTTP status of an error: 4xx for errors of the client, else 500."""
    return STATUS.get(error.code, UNREADABLE if error.exit_code == 3 else 500)


def error_document(code: str | None, text: str, hint: str | None) -> dict[str, str | None]:
    """The JSON of an error: `error` as required by KServe's protocol, plus octc's code and hint."""
    return {"error": text, "code": code, "help": hint}
