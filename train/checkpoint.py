"""Checkpoints: model.safetensors + checkpoint.json, written atomically, summed, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from octc.errors import OctcError
from octc.files import read_json, sha256_bytes, write_bytes, write_json
from octc.image import Preprocess

WEIGHTS = "model.safetensors"
META = "checkpoint.json"
SCHEMA = "1.0"

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What stands beside the weights.

    Attributes:
        role: "teacher" or "student".
        model, model_kwargs: timm name, and what `timm.create_model` is told besides the number of classes.
        recipe: the resolved recipe as a dictionary.
        metrics: on the validation part (the split's "val"), with how the epoch was chosen.
        weights: where the start weights came from: source and licence.
        quantisation: None, or the facts that rebuild the fake-quantised graph.
        parent: what this was made from (teacher run and sum; the float checkpoint of a quantised one).
        sha256: of model.safetensors.
    """

    role: str
    model: str
    model_kwargs: dict[str, Any]
    classes: tuple[str, ...]
    preprocess: Preprocess
    recipe: dict[str, Any]
    dataset: str
    split_digest: str
    data_digest: str
    metrics: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    quantisation: dict[str, Any] | None = None
    parent: dict[str, Any] | None = None
    sha256: str = ""


def write_checkpoint(folder: Path, state: State, checkpoint: Checkpoint) -> Checkpoint:
    """Write the weights, then checkpoint.json with their sum; a reader that sees the new json sees the new weights."""
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    summed = replace(checkpoint, sha256=sha256_bytes(data))
    write_bytes(folder / WEIGHTS, data)
    write_json(folder / META, {"schema_version": SCHEMA, **asdict(summed)})
    return summed


def read_checkpoint(folder: Path) -> tuple[Checkpoint, dict[str, torch.Tensor]]:
    """Read a checkpoint folder.

    Raises:
        OctcError: E107 there is none, E307 not readable or of another schema, E501 the weights do not match their sum.
    """
    if not (folder / META).is_file():
        raise OctcError("OCT-E107", f"no checkpoint in {folder}", mend="octc train makes one", place=str(folder))
    try:
        value: dict[str, Any] = read_json(folder / META)
        if value.pop("schema_version") != SCHEMA:
            raise ValueError("written by another version of octc")
        value["preprocess"] = Preprocess.from_json(value["preprocess"])
        value["classes"] = tuple(value["classes"])
        checkpoint = Checkpoint(**value)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OctcError("OCT-E307", f"checkpoint.json is not valid: {error}", mend="train again", place=str(folder)) from error
    return checkpoint, read_weights(folder / WEIGHTS, checkpoint.sha256)


def read_weights(path: Path, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """Read a safetensors file; a pickle (.pth, .pt, .bin) is refused (E308), a wrong sum too (E501)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OctcError(
            "OCT-E310", f"weights are not on disk: {error.strerror}", mend="--weights FILE", place=str(path)
        ) from error
    if sha256 is not None and sha256_bytes(data) != sha256:
        raise OctcError(
            "OCT-E501", f"{path.name} does not match its sha256", mend="train again or restore the file", place=str(path)
        )
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise OctcError(
            "OCT-E308",
            "pickle refused: it could run code",
            mend="convert it to safetensors where you trust it",
            place=str(path),
        )
    try:
        return load(data)
    except SafetensorError as error:
        raise OctcError(
            "OCT-E307", f"not a safetensors file: {error}", mend="give a .safetensors file", place=str(path)
        ) from error


def load_strictly(model: torch.nn.Module, state: State, place: str) -> None:
    """Load every tensor, or refuse with the difference of keys and shapes (E307)."""
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    extra = [name for name in state if name not in own]
    shapes = [
        f"{name}: file {list(state[name].shape)}, model {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems = [f"{len(rows)} {what} ({'; '.join(rows[:3])})" for what, rows in _named(missing, extra, shapes) if rows]
    if problems:
        text = "checkpoint does not fit the model: " + ", ".join(problems)
        raise OctcError("OCT-E307", text, mend="use a checkpoint of the same model and classes", place=place)
    model.load_state_dict(dict(state))


def _named(missing: list[str], extra: list[str], shapes: list[str]) -> tuple[tuple[str, list[str]], ...]:
    return (("missing keys", missing), ("unknown keys", extra), ("different shapes", shapes))
