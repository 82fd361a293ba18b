"""The OpenAPI 3.1 description of the REST interface, for the served models.

Its schemas are strict: an image in JSON has the shape of these models, so that generated clients send valid requests. Requests
with several images, and tensors as raw bytes after the JSON, are described in text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from octc.imaging.preprocess import VIEWS
from octc.schemas.artifact import INPUT
from octc.schemas.predict import ServedPredictions
from octc.serve.doors import Doors
from octc.serve.models import Opened
from octc.serve.site import Site
from octc.serve.tensors import DATATYPE, OUTPUTS, SERVER, shape_of
from octc.stats.aggregation import PLAIN

Table = dict[str, Any]
TEXT: Table = {"type": "string"}
NULLABLE: Table = {"type": ["string", "null"]}
WHOLE: Table = {"type": "integer"}
REF = "#/components/schemas/{name}"
FILES: Table = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["file"],
            "properties": {"file": {"type": "string", "format": "binary", "description": "one or more files with names"}},
            "additionalProperties": False,
        }
    },
    "application/octet-stream": {"schema": {"type": "string", "format": "binary", "minLength": 1}},
}
ERRORS = {
    400: "invalid or unsupported request", 401: "the token is missing or wrong", 404: "no such model", 405: "wrong method",
    408: "the request was not whole in time", 413: "larger than the limits", 415: "unsupported encoding or type of the body",
    422: "a file that cannot be processed", 429: "the server is at its limit: retry after Retry-After seconds",
    500: "an error of the server", 503: "the server lacks something (open files)", 504: "timeout",
    507: "no room on the disk, or in the memory, of the server",
}  # fmt: skip


READY: Table = {  # faults: what is wrong beside the artifacts, where something is
    "type": "object", "required": ["ready"],
    "properties": {"ready": {"type": "boolean"}, "faults": {"type": "array", "items": TEXT}},
}  # fmt: skip


def describe(site: Site, doors: Doors) -> Table:
    """The document for /openapi.json."""
    found: Table = {
        "openapi": "3.1.0",
        "info": {
            "title": "octc serve",
            "version": SERVER["version"],
            "description": "Classifiers of retinal OCT. KServe v2 below /v2, files below /v1. Not a medical device.",
        },
        "paths": {**_protocol(site.models), **_own(site.models)},
        "components": {"schemas": _schemas(site.models)},
    }
    if doors.token is not None:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
    return found


def _protocol(models: Sequence[Opened]) -> Table:
    names, versions = sorted({one.name for one in models}), sorted({one.version for one in models})
    name = _at("name", "path", {"type": "string", "enum": names})
    version = _at("version", "path", {"type": "string", "enum": versions})
    paths = {
        "/v2": {"get": _line("Server metadata", _json(_object(name=TEXT, version=TEXT, extensions=_list(TEXT))))},
        "/v2/health/live": {"get": _line("Whether the server is alive", _json(_object(live={"type": "boolean"})))},
        "/v2/health/ready": {"get": _line("Whether the server is ready", _json(READY))},
        "/v2/repository/index": {
            "post": _line(
                "The served models",
                _json(_list(_object(name=TEXT, version=TEXT, state={"const": "READY"}, reason=TEXT))),
                body=_body({"application/json": {"schema": _options(ready={"type": "boolean"})}}, required=False),
            )
        },
    }
    for path, more in (("/v2/models/{name}", (name,)), ("/v2/models/{name}/versions/{version}", (name, version))):
        ready = _line("Whether a model is ready", _json(_object(name=TEXT, ready={"const": True})), more)
        paths[path] = {"get": _line("Model metadata", _json(_ref("Metadata")), more)}
        paths[f"{path}/ready"] = {"get": ready}
        paths[f"{path}/infer"] = {"post": _infer(more)}
    return paths


def _infer(parameters: tuple[Table, ...]) -> Table:
    binary = {
        "type": "string",
        "format": "binary",
        "description": "JSON, then tensors as raw bytes: Inference-Header-Content-Length",
    }
    content = {**_json(_ref("InferResponse")), "application/octet-stream": {"schema": binary}}
    body = _body(_json(_ref("InferRequest")))
    return _line("Logits and probabilities of preprocessed images", content, parameters, body)


def _own(models: Sequence[Opened]) -> Table:
    choice = (
        _at("model", "query", {"type": "string", "enum": sorted({one.name for one in models})}),
        _at("version", "query", {"type": "string", "enum": sorted({one.version for one in models})}),
        _at("name", "query", TEXT, "file name, if the body is a single file"),
        _at("allow_cut", "query", {"type": "boolean"}, "read the complete B-scans of a truncated volume"),
    )
    how = (
        _at("tta", "query", {"type": "string", "enum": list(VIEWS)}, "test-time augmentation: views to average"),
        _at("aggregation", "query", {"type": "string", "enum": list(PLAIN)}, "how to aggregate the B-scans of an eye"),
        _at("previews", "query", {"type": "boolean"}, "add a preview image to each record"),
    )
    frame = _at("frame", "query", {"type": "integer", "minimum": 0, "maximum": 999999}, "index of the B-scan or file, from 0")
    text = {"schema": TEXT}
    return {
        "/v1/predict": {
            "post": _line(
                "Predictions for files, as octc predict --json", _json(_ref("ServedPredictions")), (*choice, *how), _body(FILES)
            )
        },
        "/v1/map": {
            "post": _line(
                "An occlusion heat map",
                _json(_object(record={"type": "object"}, map=NULLABLE, caption=_list(TEXT), served={"type": "object"})),
                (*choice, frame),
                _body(FILES),
            )
        },
        "/v1/models": {"get": _line("Model cards", _json(_object(models=_list({"type": "object"}))))},
        "/v1/reload": {
            "post": _line("Reload the artifacts; requires a token", _json(_object(models=_list({"type": "object"}))))
        },
        "/metrics": {"get": _line("Prometheus metrics", {"text/plain": text})},
        "/openapi.json": {"get": _line("This description", _json({"type": "object"}))},
        "/": {"get": _line("The page", {"text/html": text})},
        "/page.js": {"get": _line("Its program", {"text/javascript": text})},
        "/page.css": {"get": _line("Its style", {"text/css": text})},
    }


def _line(summary: str, content: Table | None, parameters: Sequence[Table] = (), body: Table | None = None) -> Table:
    """An operation. content: of the response 200, None without a body."""
    error = _json(_ref("Error"))
    found: Table = {} if content is None else {"200": {"description": summary, "content": content}}
    found |= {str(status): {"description": text, "content": error} for status, text in ERRORS.items()}
    found["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    more = {} if body is None else {"requestBody": body}
    return {"summary": summary, "parameters": list(parameters), "responses": found, **more}


def _schemas(models: Sequence[Opened]) -> Table:
    (_,), parts = msgspec.json.schema_components((ServedPredictions,), ref_template=REF)
    tensor = _object(name=TEXT, datatype=TEXT, shape=_list(WHOLE))
    output = _object(name={"enum": list(OUTPUTS)}, datatype={"enum": list(OUTPUTS.values())}, shape=_list(WHOLE))
    output["properties"] |= {"data": _list({"type": "number"}), "parameters": {"type": "object"}}
    answer = _object(model_name=TEXT, model_version=TEXT, outputs=_list(output))
    answer["properties"]["id"] = TEXT
    return {
        **parts,
        "Error": _object(error=TEXT, code=NULLABLE, help=NULLABLE),
        "Metadata": _object(name=TEXT, versions=_list(TEXT), platform=TEXT, inputs=_list(tensor), outputs=_list(tensor)),
        "InferRequest": _request(models),
        "InferResponse": answer,
    }


def _request(models: Sequence[Opened]) -> Table:
    """The schema of a request for one image in JSON, with the shape of one of the models."""
    inputs = []
    for shape in sorted({shape_of(model) for model in models}):
        pixels = math.prod(shape)
        data = {**_list({"type": "integer", "minimum": 0, "maximum": 255}), "minItems": pixels, "maxItems": pixels}
        inputs.append(
            _closed(_object(name={"const": INPUT}, datatype={"const": DATATYPE}, shape={"const": [1, *shape]}, data=data))
        )
    output = _closed(_object(name={"enum": list(OUTPUTS)}))
    found = _object(inputs={**_list({"oneOf": inputs}), "minItems": 1, "maxItems": 1})
    found["properties"] |= {
        "id": {"type": "string", "maxLength": 128, "pattern": "^[ -~]*$"},
        "outputs": {**_list(output), "maxItems": len(OUTPUTS), "uniqueItems": True},
    }
    text = (
        "One image, row by row. Several: shape [N, ...] and N times the data, or nested lists. As bytes: binary_data_size in "
        "the input's parameters, and the bytes behind the JSON. Parameters: timeout (microseconds), binary_data_output."
    )
    return {**_closed(found), "description": text}


def _ref(name: str) -> Table:
    return {"$ref": REF.format(name=name)}


def _json(schema: Table) -> Table:
    return {"application/json": {"schema": schema}}


def _body(content: Table, *, required: bool = True) -> Table:
    return {"required": required, "content": content}


def _at(name: str, place: str, schema: Table, text: str = "") -> Table:
    return {"name": name, "in": place, "required": place == "path", "schema": schema, **({"description": text} if text else {})}


def _list(items: Table) -> Table:
    return {"type": "array", "items": items}


def _object(**properties: Table) -> Table:
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def _options(**properties: Table) -> Table:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _closed(schema: Mapping[str, Any]) -> Table:
    return {**schema, "additionalProperties": False}
