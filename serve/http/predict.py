"""octc's own routes: predictions for uploaded files."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from octc.core.cells import digits_of
from octc.core.errors import OctcError
from octc.core.optional import need
from octc.serve.cards import card_of
from octc.serve.http.answers import chunks_of, json_response, ticket_of
from octc.serve.logs import log
from octc.serve.predict import Options, map_file, predict_files
from octc.serve.previews import data_url, with_previews
from octc.serve.site import Site
from octc.serve.tensors import bad
from octc.serve.uploads import Upload, receive

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from octc.serve.models import Opened

T = TypeVar("T")
CHOICE = ("model", "version", "name", "allow_cut")
TRUTH = {"true": True, "false": False}


async def predict(request: Request) -> Response:
    """POST /v1/predict: predictions for image files and volumes."""
    words = _words(request, (*CHOICE, "tta", "aggregation", "previews"))
    options, previews = _options(request, words), _truth(words, "previews")
    options.check()

    def work(site: Site, model: Opened, upload: Upload) -> dict[str, Any]:
        found = predict_files(site, model, upload.files, options)
        if previews:
            with_previews(found)
        served = {"model": model.name, "version": model.version}
        document: dict[str, Any] = {**upload.hide(found.document), "served": served}
        return document

    return json_response(await _answered(request, words, work))


async def heat_map(request: Request) -> Response:
    """POST /v1/map: the heat map of an image or B-scan."""
    words = _words(request, (*CHOICE, "frame"))
    said = words.get("frame", "0")
    if (frame := digits_of(said, 6)) is None:
        raise bad(f"frame {said[:20]!r}", "a whole number from 0", "frame")
    options = _options(request, words)

    def work(site: Site, model: Opened, upload: Upload) -> dict[str, Any]:
        record, found = map_file(site, model, upload.files, frame, options)
        document: dict[str, Any] = {
            "record": upload.hide(record.to_json(model.artifact.classes)),
            "map": None if found is None else data_url(found.to_png(), "image/png"),
            "caption": [] if found is None else found.caption(),
            "served": {"model": model.name, "version": model.version},
        }
        return document

    return json_response(await _answered(request, words, work))


async def models(request: Request) -> Response:
    """GET /v1/models: the model cards of all models."""
    return json_response({"models": [card_of(model) for model in request.app.state.site.models]})


async def reload(request: Request) -> Response:
    """POST /v1/reload: reload all artifacts; only if the server requires a token."""
    site: Site = request.app.state.site
    if request.app.state.doors.token is None:
        raise OctcError("OCT-E910", "reloading artifacts requires a token", hint="--token-file FILE, or kill -HUP")
    _words(request, ())
    fresh = await need("anyio").to_thread.run_sync(lambda: reloaded(site))
    return json_response({"models": [{"name": one.name, "version": one.version} for one in fresh]})


def reloaded(site: Site, *, wait: bool = False) -> tuple[Opened, ...]:
    """Reload the artifacts and log it. wait: as in `Site.reload`."""
    try:
        fresh = site.reload(wait=wait)
    except OctcError as error:
        site.metrics.reloaded("refused")
        log("reload refused", code=error.code, message=error.message)
        raise
    site.metrics.reloaded("done")
    log("reloaded", models=[f"{one.name} {one.version}" for one in fresh])
    return fresh


async def _answered(request: Request, words: Mapping[str, str], work: Callable[[Site, Opened, Upload], T]) -> T:
    """Receive an upload and process it in a thread. The upload is removed when the thread ends, even after a disconnect."""
    site: Site = request.app.state.site
    ticket = ticket_of(request)
    readers = request.app.state.readers
    if readers.statistics().tasks_waiting >= site.options.requests // 2:
        raise OctcError("OCT-E908", "too many uploads wait", hint=f"retry in {site.pool.retry_after()} s")
    limit = site.options.max_bytes << 20
    with Upload(request.app.state.uploads) as upload:
        await receive(upload, chunks_of(request, limit), request.headers.get("content-type", ""), words.get("name", "upload"))

        def job() -> T:
            with site.use(words.get("model"), words.get("version")) as model:
                ticket.model, ticket.version = model.name, model.version
                return work(site, model, upload)

        found: T = await need("anyio").to_thread.run_sync(job, limiter=readers)
        return found


def _words(request: Request, known: tuple[str, ...]) -> dict[str, str]:
    """The query parameters; unknown and repeated ones are refused."""
    found = request.query_params.multi_items()
    for name, _ in found:
        if name not in known:
            raise bad(f"unknown: {name[:100]!r}", f"known are: {', '.join(known) or 'none'}", name[:100])
    if len(dict(found)) != len(found):
        raise bad("a query parameter is repeated", "give each once")
    return dict(found)


def _truth(words: Mapping[str, str], name: str) -> bool:
    value = words.get(name, "false")
    if value not in TRUTH:
        raise bad(f"{name} {value[:20]!r}", "true or false", name)
    return TRUTH[value]


def _options(request: Request, words: Mapping[str, str]) -> Options:
    return Options(
        tta=words.get("tta", "none"),
        aggregation=words.get("aggregation"),
        allow_cut=_truth(words, "allow_cut"),
        deadline=time.monotonic() + request.app.state.site.options.timeout,
    )
