"""Where a preprocessing is written down: an object, a JSON file or text, or what an installed library states of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.files import parse_json
from octc.core.optional import need
from octc.imaging.foreign import HINT, Foreign, read_foreign
from octc.imaging.preprocess import Preprocess

MOST = 1 << 20  # bytes of JSON


def read_preset(given: Any) -> Foreign:
    """The preprocessing of `octc import --preprocess`.

    Args:
        given: a Preprocess, a dictionary, JSON as text, a file of it, "timm:NAME" or "torchvision:NAME". Nothing is downloaded.

    Raises:
        OctcError: E104 it is none of these, E107 no such file, E901 the library is not installed.
    """
    if isinstance(given, Foreign):
        return given
    if isinstance(given, Preprocess):
        return read_foreign(given.to_json())
    if isinstance(given, Mapping):
        return read_foreign(given)
    if not isinstance(given, (str, os.PathLike)):
        raise OctcError("OCT-E104", f"preprocessing of type {type(given).__name__}", hint=HINT, place="--preprocess")
    text = os.fspath(given)
    library, colon, name = text.partition(":")
    if colon and library in READERS and not Path(text).exists():
        return read_foreign(READERS[library](name))
    if text.lstrip().startswith("{"):
        return read_foreign(_parsed(text.encode(), "--preprocess"))
    if not Path(text).is_file():
        raise OctcError("OCT-E107", f"no file {text}", hint=f"--preprocess with {HINT}", place="--preprocess")
    return read_foreign(_parsed(Path(text).read_bytes(), text))


def _parsed(data: bytes, place: str) -> Any:
    try:
        return parse_json(data, MOST)
    except ValueError as error:
        raise OctcError("OCT-E104", f"preprocessing is no JSON: {error}", hint=HINT, place=place) from error


def _of_timm(name: str) -> Any:
    """The pretrained_cfg that timm keeps for a model."""
    timm = need("timm")
    try:
        found = timm.models.get_pretrained_cfg(name)
    except Exception as error:  # of timm, for a name that it does not know
        raise OctcError("OCT-E104", f"timm knows no model {name!r}", hint="octc list models", place="--preprocess") from error
    if found is None:
        raise OctcError("OCT-E104", f"timm knows no model {name!r}", hint="octc list models", place="--preprocess")
    return found.to_dict()


def _of_torchvision(name: str) -> Any:
    """The preset of a model's default weights, or of weights by their name (ResNet18_Weights.IMAGENET1K_V1)."""
    models = need("torchvision").models
    try:
        weights = models.get_weight(name) if "." in name else models.get_model_weights(name).DEFAULT
        preset = weights.transforms()
        return {
            "crop_size": list(preset.crop_size), "resize_size": list(preset.resize_size), "mean": list(preset.mean),
            "std": list(preset.std), "interpolation": preset.interpolation.value, "antialias": bool(preset.antialias),
        }  # fmt: skip
    except (ValueError, KeyError, AttributeError) as error:
        text = f"torchvision has no preset of a classifier {name!r}"
        raise OctcError("OCT-E104", text, hint="--preprocess torchvision:resnet18", place="--preprocess") from error


READERS = {"timm": _of_timm, "torchvision": _of_torchvision}
