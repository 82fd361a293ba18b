"""Routes of the web page, the Prometheus metrics and the OpenAPI description."""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING

from octc.core.optional import need
from octc.serve.http.answers import json_response, plain_response
from octc.serve.http.openapi import describe

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def metrics(request: Request) -> Response:
    """GET /metrics."""
    text = request.app.state.site.metrics.text()
    return plain_response(text, need("prometheus_client").CONTENT_TYPE_LATEST)


async def description(request: Request) -> Response:
    """GET /openapi.json."""
    return json_response(describe(request.app.state.site, request.app.state.doors))


async def index(request: Request) -> Response:
    """GET /."""
    return plain_response(_file("index.html"), "text/html; charset=utf-8")


async def script(request: Request) -> Response:
    """GET /page.js."""
    return plain_response(_file("page.js"), "text/javascript; charset=utf-8")


async def style(request: Request) -> Response:
    """GET /page.css."""
    return plain_response(_file("page.css"), "text/css; charset=utf-8")


@functools.cache
def _file(name: str) -> bytes:
    return resources.files("octc.serve").joinpath("page", name).read_bytes()
