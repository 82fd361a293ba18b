"""Tensors of the KServe v2 protocol, for REST and gRPC: one input, two outputs, and validation.

The input `image` is the result of `octc.Preprocess.prepare`: uint8 [N, channels, size, size], not normalised, because the graph
does that. The outputs are `logits`, float32 [N, classes], from the engine, and `probabilities`, float64 [N, classes], as in
`octc predict`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError
from octc.imaging.preprocess import Float32, UInt8
from octc.schemas.artifact import INPUT, OUTPUT
from octc.serve.models import Opened
from octc.stats.metrics import combine_views
from octc.stats.multilabel import view_scores

SCORES = "probabilities"
DATATYPE = "UINT8"
OUTPUTS = {OUTPUT: "FP32", SCORES: "FP64"}
KINDS = {"FP32": "<f4", "FP64": "<f8"}  # little-endian, as in the protocol
SHORT = 128  # maximum length of a request id
JSON_BYTES = 6  # maximum bytes per pixel in JSON: three digits, a comma, and white space of an indenting program
ROOM = 64 << 10  # maximum bytes of a request in addition to its pixels
SERVER = {"name": "octc", "version": version("octc")}
EXTENSIONS = ("binary_tensor_data", "model_repository")


@dataclass(frozen=True)
class Wanted:
    """A checked inference request. outputs: names, in the order of the response. id: the client's request id, or "".

    timeout: seconds, or None.
    """

    id: str
    images: UInt8
    outputs: tuple[str, ...]
    timeout: float | None = None


def bad(text: str, hint: str = "docs/serving.md shows a request", place: str | None = None) -> OctcError:
    """OctcError E104 for an invalid request."""
    return OctcError("OCT-E104", text, hint=hint, place=place)


def shape_of(model: Opened) -> tuple[int, int, int]:
    """The shape (channels, side, side) of an image."""
    pre = model.artifact.preprocess
    return pre.channels, pre.size, pre.size


def largest_body(models: Sequence[Opened], queue: int) -> int:
    """Size of the largest possible request, bytes: as many images as the queue holds, in JSON."""
    return ROOM + queue * JSON_BYTES * max(math.prod(shape_of(model)) for model in models)


def only_input(model: Opened, inputs: Sequence[Any]) -> Any:
    """The single input of a request (OctcError E104: another number of inputs)."""
    if len(inputs) != 1:
        raise bad(f"{len(inputs)} inputs, {model.name} has one")
    return inputs[0]


def check_input(model: Opened, name: str, datatype: str, shape: Sequence[int], most: int) -> int:
    """Check the description of an input; returns its number of images.

    Raises:
        OctcError: E104 another name, datatype or shape than the model's; E911 more images than the queue holds.
    """
    own = shape_of(model)
    takes = f"{INPUT}, {DATATYPE} [N, {', '.join(map(str, own))}]"
    if name != INPUT:
        raise bad(f"{model.name} has no input {name[:100]!r}", f"it takes {takes}", name[:100])
    if datatype != DATATYPE:
        raise bad(f"datatype {datatype[:20]!r}", f"{model.name} takes {takes}, not normalised: the graph does that", name)
    if len(shape) != 4 or tuple(shape[1:]) != own or shape[0] < 1:
        raise bad(f"shape {list(shape)[:8]}", f"{model.name} takes {takes}", name)
    if shape[0] > most:
        text = f"{shape[0]} images in one request, the limit is {most}"
        raise OctcError("OCT-E911", text, hint="several requests, or raise --queue", place=name)
    return int(shape[0])


def images_of(model: Opened, count: int, data: bytes | memoryview) -> UInt8:
    """Images from raw bytes."""
    wanted = count * math.prod(shape_of(model))
    if len(data) != wanted:
        raise bad(f"{len(data)} bytes of data, the shape requires {wanted}", place=INPUT)
    return np.frombuffer(data, np.uint8).reshape(count, *shape_of(model))


def check_outputs(names: Sequence[str]) -> tuple[str, ...]:
    """Check the names of requested outputs; without any, all outputs."""
    for name in names:
        if name not in OUTPUTS:
            raise bad(f"there is no output {name[:100]!r}", f"outputs are {', '.join(OUTPUTS)}", name[:100])
    if len(set(names)) != len(names):
        raise bad("an output is requested twice", "request each output once")
    return tuple(names) or tuple(OUTPUTS)


def check_id(word: str) -> str:
    """Check the client's request id."""
    if len(word) > SHORT or not word.isprintable():
        raise bad("the id of the request is too long or not printable", f"up to {SHORT} printable characters", "id")
    return word


def check_parameters(found: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    """Refuse unsupported parameters instead of ignoring them: sequences, shared memory, classification, priorities."""
    for name in found:
        if name not in known:
            hint = f"supported: {', '.join(known)}" if known else "leave it out: no parameter is supported here"
            raise OctcError("OCT-E912", f"parameter {name[:100]!r} of {place} is not supported", hint=hint, place=place)


def wanted_of(word: str, images: UInt8, outputs: Sequence[Any], parameters: Mapping[str, Any]) -> Wanted:
    """Make a checked request from id, images, requested outputs and parameters."""
    return Wanted(check_id(word), images, check_outputs([one.name for one in outputs]), timeout_of(parameters))


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """The parameter `timeout` (microseconds) in seconds; 0: no limit by the client."""
    value = parameters.get("timeout", 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise bad("timeout is not a whole number of microseconds", place="timeout")
    return value / 1e6 if value else None


def answers(model: Opened, logits: Float32, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """The requested outputs by name.

    Raises:
        OctcError: E701 the logits are not finite.
    """
    if not np.isfinite(logits).all():
        raise OctcError("OCT-E701", "outputs are not finite", hint="octc verify this artifact", place=model.name)
    return {name: logits if name == OUTPUT else _scores(model, logits) for name in names}


def _scores(model: Opened, logits: Float32) -> npt.NDArray[np.float64]:
    """Probabilities image by image as in `octc predict`, for bit-identical results."""
    if model.artifact.task == "multilabel":
        return np.concatenate([view_scores(row[None, None]) for row in logits])
    return np.concatenate([combine_views(row[None, None])[0] for row in logits])


def metadata(model: Opened, models: Sequence[Opened]) -> dict[str, Any]:
    """Model metadata of the protocol. models: all served ones; the first with a name is used for requests without a version."""
    classes = len(model.artifact.classes)
    return {
        "name": model.name,
        "versions": [one.version for one in models if one.name == model.name],
        "platform": model.artifact.target,
        "inputs": [{"name": INPUT, "datatype": DATATYPE, "shape": [-1, *shape_of(model)]}],
        "outputs": [{"name": name, "datatype": kind, "shape": [-1, classes]} for name, kind in OUTPUTS.items()],
    }


def listing(models: Sequence[Opened]) -> list[dict[str, str]]:
    """The repository index; all served models are ready."""
    return [{"name": one.name, "version": one.version, "state": "READY", "reason": ""} for one in models]
