"""The KServe v2 protocol over gRPC, with the messages published by tritonclient."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from octc.core.errors import OctcError
from octc.core.optional import need
from octc.serve.doors import Doors, allowed, no_token
from octc.serve.http.answers import status_of
from octc.serve.logs import log
from octc.serve.models import Opened
from octc.serve.site import Site
from octc.serve.tensors import (
    EXTENSIONS,
    KINDS,
    OUTPUTS,
    SERVER,
    Wanted,
    bad,
    check_input,
    check_parameters,
    images_of,
    largest_body,
    listing,
    metadata,
    only_input,
    wanted_of,
)

SERVICE = "inference.GRPCInferenceService"
CODES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 413: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED",
         503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED", 507: "RESOURCE_EXHAUSTED"}  # fmt: skip
Method = Callable[[Site, Any, Any], Awaitable[Any]]  # site, messages, request


@dataclass(frozen=True)
class Rpc:
    """A running server and its port."""

    server: Any
    port: int

    async def stop(self, grace: float) -> None:
        """Stop accepting requests, and wait for the running ones."""
        await self.server.stop(grace)


async def start_rpc(site: Site, doors: Doors) -> Rpc:
    """Listen on the gRPC port (OctcError E906: not available)."""
    grpc = need("grpc")
    options = site.options
    limit = largest_body(site.models, options.queue)
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", limit), ("grpc.so_reuseport", 0)],
        maximum_concurrent_rpcs=options.requests,
    )
    server.add_generic_rpc_handlers((_handlers(site, doors),))
    host = f"[{options.host}]" if ":" in options.host else options.host
    place = f"{host}:{options.grpc_port}"
    try:
        if doors.cert is None or doors.key is None:
            port = server.add_insecure_port(place)
        else:
            port = server.add_secure_port(place, grpc.ssl_server_credentials([(doors.key, doors.cert)]))
    except RuntimeError as error:
        text = f"cannot listen at {place} for gRPC"
        raise OctcError("OCT-E906", text, hint="--grpc-port with a free one (0: any), or --http-only") from error
    await server.start()
    return Rpc(server, port)


def _handlers(site: Site, doors: Doors) -> Any:
    """The methods of the service; all others are UNIMPLEMENTED."""
    grpc, messages = need("grpc"), need("tritonclient.grpc.service_pb2")
    found = {}
    for name, method in METHODS.items():
        request = getattr(messages, f"{name}Request")
        found[name] = grpc.unary_unary_rpc_method_handler(
            _bounded(name, method, site, doors),
            request_deserializer=request.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
    return grpc.method_handlers_generic_handler(SERVICE, found)


def _bounded(name: str, method: Method, site: Site, doors: Doors) -> Callable[[Any, Any], Awaitable[Any]]:
    """Wrap a method with token check, limits, error codes, log line and metrics."""
    grpc, messages = need("grpc"), need("tritonclient.grpc.service_pb2")

    async def call(request: Any, context: Any) -> Any:
        start, word, code = time.perf_counter(), "OK", None
        site.metrics.started("grpc")
        try:
            header = dict(context.invocation_metadata() or ()).get("authorization")
            if not allowed(doors, header if isinstance(header, str) else None):
                raise no_token()
            return await asyncio.wait_for(method(site, messages, request), site.options.timeout)
        except OctcError as error:
            word, code = CODES.get(status_of(error), "INTERNAL"), error.code
            await _abort(context, getattr(grpc.StatusCode, word), f"{error.message} ({error.code}; {error.hint})", site)
        except (TimeoutError, asyncio.TimeoutError):
            word, code = "DEADLINE_EXCEEDED", "OCT-E909"
            await _abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, "the request timed out (OCT-E909)", site)
        except asyncio.CancelledError:
            word = "CANCELLED"
            raise
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            word = "INTERNAL"
            log("internal error", level=logging.ERROR, error=error)
            await _abort(context, grpc.StatusCode.INTERNAL, "internal error", site)
        finally:
            seconds = time.perf_counter() - start
            site.metrics.ended("grpc", name, word, seconds)
            facts: dict[str, Any] = {} if code is None else {"code": code}
            log("rpc", route=name, status=word, ms=round(1000 * seconds, 2), **facts)

    return call


async def _abort(context: Any, code: Any, text: str, site: Site) -> None:
    if code.name == "RESOURCE_EXHAUSTED":
        context.set_trailing_metadata((("retry-after", str(site.pool.retry_after())),))
    await context.abort(code, text)


async def _live(site: Site, messages: Any, request: Any) -> Any:
    return messages.ServerLiveResponse(live=True)


async def _ready(site: Site, messages: Any, request: Any) -> Any:
    return messages.ServerReadyResponse(ready=True)


async def _model_ready(site: Site, messages: Any, request: Any) -> Any:
    with site.use(request.name, request.version or None):
        return messages.ModelReadyResponse(ready=True)


async def _server_metadata(site: Site, messages: Any, request: Any) -> Any:
    return messages.ServerMetadataResponse(**SERVER, extensions=EXTENSIONS)


async def _model_metadata(site: Site, messages: Any, request: Any) -> Any:
    with site.use(request.name, request.version or None) as model:
        return messages.ModelMetadataResponse(**metadata(model, site.models))


async def _index(site: Site, messages: Any, request: Any) -> Any:
    return messages.RepositoryIndexResponse(models=listing(site.models))


async def _infer(site: Site, messages: Any, request: Any) -> Any:
    with site.use(request.model_name, request.model_version or None) as model:
        wanted = _read(model, request, site.options.queue)
        found = await site.infer(model, wanted)
        answer = messages.ModelInferResponse(model_name=model.name, model_version=model.version, id=wanted.id)
        for name, values in found.items():  # raw, whatever the form of the input: tritonclient reads no other form
            answer.outputs.add(name=name, datatype=OUTPUTS[name], shape=values.shape)
            answer.raw_output_contents.append(values.astype(KINDS[OUTPUTS[name]], copy=False).tobytes())
        return answer


def _read(model: Opened, request: Any, most: int) -> Wanted:
    parameters = _parameters(request.parameters)
    check_parameters(parameters, ("timeout",), "the request")
    one = only_input(model, request.inputs)
    check_parameters(_parameters(one.parameters), (), f"input {one.name[:100]}")
    count = check_input(model, one.name, one.datatype, one.shape, most)
    for output in request.outputs:
        check_parameters(_parameters(output.parameters), (), f"output {output.name[:100]}")
    return wanted_of(request.id, _images(model, request, count), request.outputs, parameters)


def _images(model: Opened, request: Any, count: int) -> Any:
    raw, contents = request.raw_input_contents, request.inputs[0].contents
    given = [field.name for field, _ in contents.ListFields()]
    if raw and given:
        raise bad("the input has raw_input_contents and contents", "give one of the two")
    if raw:
        if len(raw) != 1:
            raise bad(f"{len(raw)} raw_input_contents for one input")
        return images_of(model, count, raw[0])
    if given != ["uint_contents"]:
        raise bad(f"contents are {', '.join(given) or 'missing'}", "give uint_contents or raw_input_contents")
    values = np.fromiter(contents.uint_contents, np.uint32, len(contents.uint_contents))
    if values.size and int(values.max()) > 255:
        raise bad("contents are not whole numbers from 0 to 255")
    return images_of(model, count, values.astype(np.uint8).tobytes())


def _parameters(found: Any) -> Mapping[str, Any]:
    return {name: getattr(value, value.WhichOneof("parameter_choice") or "", None) for name, value in found.items()}


METHODS: dict[str, Method] = {
    "ServerLive": _live,
    "ServerReady": _ready,
    "ModelReady": _model_ready,
    "ServerMetadata": _server_metadata,
    "ModelMetadata": _model_metadata,
    "RepositoryIndex": _index,
    "ModelInfer": _infer,
}
