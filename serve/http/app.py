"""The table of routes and the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octc.core.optional import need
from octc.machine.cpu import usable_threads
from octc.serve.doors import Doors
from octc.serve.http import kserve, page, predict
from octc.serve.http.answers import error_document, json_response, ticket_of
from octc.serve.http.guard import App, Guard
from octc.serve.limits import Bytes
from octc.serve.site import Site

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

Handler = Callable[["Request"], Awaitable["Response"]]
UPLOADS = 2  # number of uploads of maximum size that may be in memory


@dataclass(frozen=True)
class Line:
    """A route: method, path, handler."""

    method: str
    path: str
    handler: Handler


MODEL, VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
ROUTES = (  # the first match is used: time-critical routes come first
    Line("POST", f"{MODEL}/infer", kserve.infer),
    Line("POST", f"{VERSION}/infer", kserve.infer),
    Line("POST", "/v1/predict", predict.predict),
    Line("GET", "/v2/health/live", kserve.live),
    Line("GET", "/v2/health/ready", kserve.ready),
    Line("GET", "/v2", kserve.server),
    Line("GET", MODEL, kserve.model_metadata),
    Line("GET", VERSION, kserve.model_metadata),
    Line("GET", f"{MODEL}/ready", kserve.model_ready),
    Line("GET", f"{VERSION}/ready", kserve.model_ready),
    Line("POST", "/v2/repository/index", kserve.index),
    Line("POST", "/v2/repository/models/{name}/load", kserve.fixed),
    Line("POST", "/v2/repository/models/{name}/unload", kserve.fixed),
    Line("POST", "/v1/map", predict.heat_map),
    Line("GET", "/v1/models", predict.models),
    Line("POST", "/v1/reload", predict.reload),
    Line("GET", "/metrics", page.metrics),
    Line("GET", "/openapi.json", page.description),
    Line("GET", "/", page.index),
    Line("GET", "/page.js", page.script),
    Line("GET", "/page.css", page.style),
)


def make_app(site: Site, doors: Doors, root: str) -> App:
    """Make the application. root: folder for uploads."""
    routing, exceptions = need("starlette.routing"), need("starlette.exceptions")
    routes = [routing.Route(line.path, _named(line), methods=[line.method]) for line in ROUTES]
    app = need("starlette.applications").Starlette(routes=routes, exception_handlers={exceptions.HTTPException: _plain_error})
    app.router.redirect_slashes = False
    app.state.site, app.state.doors, app.state.uploads = site, doors, root
    app.state.readers = need("anyio").CapacityLimiter(site.pool.lanes + usable_threads()[0] + 1)  # to decode, and to wait
    # Starlette's handler of unknown errors, which responds in HTML, is bypassed: the guard handles them
    return Guard(_bare(app), site, doors, Bytes((site.options.max_bytes << 20) * UPLOADS))


def _bare(app: Any) -> App:
    """The application without Starlette's outermost layer, which handles unknown errors."""
    inner = need("starlette.middleware.exceptions").ExceptionMiddleware(app.router, handlers=app.exception_handlers)

    async def call(scope: Any, receive: Any, send: Any) -> None:
        scope["app"] = app
        await inner(scope, receive, send)

    return call


def _named(line: Line) -> Handler:
    async def handle(request: Request) -> Response:
        ticket_of(request).route = line.path
        return await line.handler(request)

    return handle


async def _plain_error(request: Request, error: Any) -> Response:
    """Responses for unknown routes and methods, as JSON."""
    return json_response(
        error_document(None, str(error.detail), "GET /openapi.json lists what there is"), error.status_code, error.headers
    )
