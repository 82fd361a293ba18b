"""What KServe's protocol says of tensors, whichever way it comes: one input, two outputs, and what is refused.

The input `image` is what `octc.Preprocess.prepare` returns: uint8 [N, channels, size, size], not normalised, for the graph does
that. Outputs are `logits`, float32 [N, classes], as the engine gives them, and `probabilities`, float64 [N, classes], as
`octc predict` computes them.
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
KINDS = {"FP32": "<f4", "FP64": "<f8"}  # little-endian, as the protocol has them
SHORT = 128  # of an id of a request
JSON_BYTES = 6  # of a pixel in JSON: three digits, a comma, and what a program that indents puts between them
ROOM = 64 << 10  # bytes of a request besides its pixels
SERVER = {"name": "octc", "version": version("octc")}
EXTENSIONS = ("binary_tensor_data", "model_repository")


@dataclass(frozen=True)
class Wanted:
    """A request for inference, checked. outputs: names, in the order of the answer. id: of the client, "" without one.

    timeout: seconds, None without one.
    """

    id: str
    images: UInt8
    outputs: tuple[str, ...]
    timeout: float | None = None


def bad(text: str, hint: str = "docs/serving.md shows a request", place: str | None = None) -> OctcError:
    """E104: what a client sent does not fit."""
    return OctcError("OCT-E104", text, hint=hint, place=place)


def shape_of(model: Opened) -> tuple[int, int, int]:
    """(channels, side, side) of an image."""
    pre = model.artifact.preprocess
    return pre.channels, pre.size, pre.size


def largest_body(models: Sequence[Opened], queue: int) -> int:
    """Bytes of the largest request that can be answered: as many images as may wait, in JSON."""
    return ROOM + queue * JSON_BYTES * max(math.prod(shape_of(model)) for model in models)


def only_input(model: Opened, inputs: Sequence[Any]) -> Any:
    """The one input that there may be."""
    if len(inputs) != 1:
        raise bad(f"{len(inputs)} inputs, {model.name} has one")
    return inputs[0]


def check_input(model: Opened, name: str, datatype: str, shape: Sequence[int], most: int) -> int:
    """How many images an input's description names.

    Raises:
        OctcError: E104 it is not what the model takes, E911 more images than may wait.
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
    """The images of raw bytes."""
    wanted = count * math.prod(shape_of(model))
    if len(data) != wanted:
        raise bad(f"{len(data)} bytes of data, the shape says {wanted}", place=INPUT)
    return np.frombuffer(data, np.uint8).reshape(count, *shape_of(model))


def check_outputs(names: Sequence[str]) -> tuple[str, ...]:
    """Names of requested outputs; without any, all of them."""
    for name in names:
        if name not in OUTPUTS:
            raise bad(f"there is no output {name[:100]!r}", f"outputs are {', '.join(OUTPUTS)}", name[:100])
    if len(set(names)) != len(names):
        raise bad("an output is requested twice", "name each output once")
    return tuple(names) or tuple(OUTPUTS)


def check_id(word: str) -> str:
    """The client's id of a request."""
    if len(word) > SHORT or not word.isprintable():
        raise bad("the id of the request is too long or not printable", f"up to {SHORT} printable characters", "id")
    return word


def check_parameters(found: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    """Refuse what would be silently left out: sequences, shared memory, classification, priorities."""
    for name in found:
        if name not in known:
            hint = f"known here: {', '.join(known)}" if known else "leave it out: no parameter is known here"
            raise OctcError("OCT-E912", f"parameter {name[:100]!r} of {place} is not offered", hint=hint, place=place)


def wanted_of(word: str, images: UInt8, outputs: Sequence[Any], parameters: Mapping[str, Any]) -> Wanted:
    """A request of an id, images, requested outputs (by their `name`) and parameters, checked."""
    return Wanted(check_id(word), images, check_outputs([one.name for one in outputs]), timeout_of(parameters))


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """Seconds of the parameter `timeout`, which is in microseconds; 0 is no limit of the client's."""
    value = parameters.get("timeout", 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise bad("timeout is not a whole number of microseconds", place="timeout")
    return value / 1e6 if value else None


def answers(model: Opened, logits: Float32, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Outputs by name.

    Raises:
        OctcError: E701 logits that are not finite.
    """
    if not np.isfinite(logits).all():
        raise OctcError("OCT-E701", "outputs are not finite", hint="octc verify this artifact", place=model.name)
    return {name: logits if name == OUTPUT else _scores(model, logits) for name in names}


def _scores(model: Opened, logits: Float32) -> npt.NDArray[np.float64]:
    """Each image by itself, as `octc predict` does it: the same bits."""
    if model.artifact.task == "multilabel":
        return np.concatenate([view_scores(row[None, None]) for row in logits])
    return np.concatenate([combine_views(row[None, None])[0] for row in logits])


def metadata(model: Opened, models: Sequence[Opened]) -> dict[str, Any]:
    """Model metadata of the protocol; models: all that are served, of which the first of a name answers without a version."""
    classes = len(model.artifact.classes)
    return {
        "name": model.name,
        "versions": [one.version for one in models if one.name == model.name],
        "platform": model.artifact.target,
        "inputs": [{"name": INPUT, "datatype": DATATYPE, "shape": [-1, *shape_of(model)]}],
        "outputs": [{"name": name, "datatype": kind, "shape": [-1, classes]} for name, kind in OUTPUTS.items()],
    }


def listing(models: Sequence[Opened]) -> list[dict[str, str]]:
    """The index of the repository: every model that is here is ready."""
    return [{"name": one.name, "version": one.version, "state": "READY", "reason": ""} for one in models]
