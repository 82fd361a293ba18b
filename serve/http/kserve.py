"""The KServe v2 protocol over HTTP: JSON, optionally followed by tensors as raw bytes.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, and the extension
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from octc.core.cells import digits_of
from octc.core.errors import OctcError
from octc.serve.http.answers import body_of, json_response, plain_response, ticket_of
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

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

JSON_LENGTH = "inference-header-content-length"
Pixel = Annotated[int, msgspec.Meta(ge=0, le=255)]
Level = Annotated[float, msgspec.Meta(ge=0, le=255)]
FLAT = (msgspec.json.Decoder(list[Pixel]), msgspec.json.Decoder(list[Level]))
NESTED = (msgspec.json.Decoder(list[list[list[list[Pixel]]]]), msgspec.json.Decoder(list[list[list[list[Level]]]]))


class RequestInput(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    shape: Annotated[list[int], msgspec.Meta(max_length=8)]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] = {}


class RequestOutput(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct, forbid_unknown_fields=True):
    inputs: Annotated[list[RequestInput], msgspec.Meta(min_length=1, max_length=16)]
    id: str = ""
    outputs: Annotated[list[RequestOutput], msgspec.Meta(max_length=16)] = []
    parameters: dict[str, Any] = {}


REQUEST = msgspec.json.Decoder(InferRequest)


@dataclass(frozen=True)
class _Read:
    """A request, and which of its outputs are sent as raw bytes."""

    wanted: Wanted
    binary: frozenset[str]


async def infer(request: Request) -> Response:
    """POST /v2/models/{name}[/versions/{version}]/infer."""
    site: Site = request.app.state.site
    data = await body_of(request, largest_body(site.models, site.options.queue))
    with used(request, site) as model:
        read = _read(model, data, request.headers.get(JSON_LENGTH), site.options.queue)
        ticket = ticket_of(request)
        ticket.model, ticket.version, ticket.images = model.name, model.version, len(read.wanted.images)
        return _response(model, read, await site.infer(model, read.wanted))


def used(request: Request, site: Site) -> Any:
    """The model in a request path, kept open while in use."""
    return site.use(request.path_params["name"], request.path_params.get("version"))


def _read(model: Opened, data: bytes, length: str | None, most: int) -> _Read:
    head, rest = _split(data, length)
    try:
        found = REQUEST.decode(head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad(f"not a request for inference: {str(error)[:300]}") from error
    check_parameters(found.parameters, ("binary_data_output", "timeout"), "the request")
    one = only_input(model, found.inputs)
    count = check_input(model, one.name, one.datatype, one.shape, most)
    everything = found.parameters.get("binary_data_output", False)
    wanted = wanted_of(found.id, _images(model, one, count, rest), found.outputs, found.parameters)
    return _Read(wanted, _binary(found.outputs, everything))


def _split(data: bytes, length: str | None) -> tuple[memoryview, memoryview]:
    """The JSON of a body, and the bytes after it."""
    view = memoryview(data)
    if length is None:
        return view, view[:0]
    if (end := digits_of(length, 12)) is None or end > len(data):
        raise bad(f"Inference-Header-Content-Length {length[:20]!r} does not fit a body of {len(data)} bytes")
    return view[:end], view[end:]


def _images(model: Opened, one: RequestInput, count: int, rest: memoryview) -> npt.NDArray[np.uint8]:
    check_parameters(one.parameters, ("binary_data_size",), f"input {one.name}")
    size = one.parameters.get("binary_data_size")
    if size is None:
        if len(rest):
            raise bad(f"{len(rest)} bytes after the JSON do not belong to an input", place=one.name)
        if one.data is msgspec.UNSET:
            raise bad("the input has no data", place=one.name)
        return _numbers(model, one.data, count)
    if one.data is not msgspec.UNSET:
        raise bad("the input has data in JSON and as bytes", "give one of the two", one.name)
    if not isinstance(size, int) or isinstance(size, bool) or size != len(rest):
        text = f"binary_data_size {repr(size)[:20]}, {len(rest)} bytes after the JSON"
        raise bad(text, "give a whole number: the number of all bytes after the JSON", one.name)
    return images_of(model, count, rest)


def _numbers(model: Opened, data: msgspec.Raw, count: int) -> npt.NDArray[np.uint8]:
    """Pixels in JSON: a flat list in row-major order, or nested lists according to the shape."""
    text = bytes(data)
    nested = text[1:].lstrip()[:1] == b"["
    try:
        found = _whole_numbers(text, NESTED if nested else FLAT)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise bad(f"data are not whole numbers from 0 to 255: {str(error)[:200]}", place="data") from error
    if nested and found.shape[1:] != (model.artifact.preprocess.channels, *[model.artifact.preprocess.size] * 2):
        raise bad(f"data are nested as {list(found.shape)}", place="data")
    return images_of(model, count, found.tobytes())


def _whole_numbers(text: bytes, kind: Any) -> npt.NDArray[np.uint8]:
    """Pixels from a list; whole numbers as floats (5.0) are accepted too, but slower."""
    try:
        return np.array(kind[0].decode(text), np.uint8)
    except msgspec.ValidationError:
        found = np.array(kind[1].decode(text), np.float64)
        if not np.array_equal(found, found.astype(np.uint8)):
            raise
        return found.astype(np.uint8)


def _binary(outputs: Sequence[RequestOutput], everything: Any) -> frozenset[str]:
    if not isinstance(everything, bool):
        raise bad("binary_data_output is true or false")
    names = []
    for one in outputs:
        check_parameters(one.parameters, ("binary_data",), f"output {one.name}")
        own = one.parameters.get("binary_data", everything)
        if not isinstance(own, bool):
            raise bad("binary_data is true or false", place=one.name)
        names += [one.name] if own else []
    return frozenset(names if outputs else OUTPUTS if everything else ())


def _response(model: Opened, read: _Read, found: Mapping[str, npt.NDArray[Any]]) -> Response:
    listed, raw = [], []
    for name, values in found.items():
        one: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": list(values.shape)}
        if name in read.binary:
            raw.append(values.astype(KINDS[OUTPUTS[name]], copy=False).tobytes())
            one["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            one["data"] = values.ravel().tolist()
        listed.append(one)
    document: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if read.wanted.id:
        document["id"] = read.wanted.id
    head = msgspec.json.encode({**document, "outputs": listed})
    if not raw:
        return plain_response(head, "application/json")
    more = {"Inference-Header-Content-Length": str(len(head))}
    return plain_response(b"".join([head, *raw]), "application/octet-stream", headers=more)


async def live(request: Request) -> Response:
    """GET /v2/health/live."""
    return json_response({"live": True})


async def ready(request: Request) -> Response:
    """GET /v2/health/ready: all artifacts were checked before the server started to listen. What else fails is named."""
    faults = list(request.app.state.site.faults())
    return json_response({"ready": True, **({"faults": faults} if faults else {})})


async def server(request: Request) -> Response:
    """GET /v2."""
    return json_response({**SERVER, "extensions": list(EXTENSIONS)})


async def model_metadata(request: Request) -> Response:
    """GET /v2/models/{name}[/versions/{version}]."""
    site: Site = request.app.state.site
    with used(request, site) as model:
        return json_response(metadata(model, site.models))


async def model_ready(request: Request) -> Response:
    """GET /v2/models/{name}[/versions/{version}]/ready."""
    with used(request, request.app.state.site) as model:
        return json_response({"name": model.name, "ready": True})


async def index(request: Request) -> Response:
    """POST /v2/repository/index."""
    data = await body_of(request, 4096)
    try:
        wanted = msgspec.json.decode(data, type=dict[str, bool]) if data.strip() else {}
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise bad(f"not a request for the index: {str(error)[:200]}") from error
    if unknown := sorted(set(wanted) - {"ready"}):
        raise bad(f"unknown: {unknown[0][:100]!r}", "known: ready")
    return json_response(listing(request.app.state.site.models))


async def fixed(request: Request) -> Response:
    """POST /v2/repository/models/{name}/load and /unload: refused, clients cannot change what is served."""
    raise OctcError("OCT-E912", "models are chosen where the server is started", hint="octc serve ARTIFACT...; POST /v1/reload")
