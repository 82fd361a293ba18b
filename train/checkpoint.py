"""Checkpoints: model.safetensors + checkpoint.json, written atomically, summed, never a pickle."""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from octc.errors import OctcError
from octc.faults import fault_of
from octc.files import canonical_json, read_json, sha256_bytes, write_bytes, write_json
from octc.image import Preprocess

WEIGHTS = "model.safetensors"
META = "checkpoint.json"
SCHEMA = "1.0"
JSON_SUM = "json_sha256"  # of everything else in checkpoint.json

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
    """Write the weights, then checkpoint.json with their sum and its own; who reads a new json finds the new weights."""
    data = tensors_as_bytes(state)
    summed = replace(checkpoint, sha256=sha256_bytes(data))
    value = {"schema_version": SCHEMA, **asdict(summed)}
    write_bytes(folder / WEIGHTS, data)
    write_json(folder / META, {**value, JSON_SUM: sha256_bytes(canonical_json(value))})
    return summed


def tensors_as_bytes(state: State) -> bytes:
    """A safetensors file."""
    return bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}))


def read_checkpoint(folder: Path) -> tuple[Checkpoint, dict[str, torch.Tensor]]:
    """Read a checkpoint folder.

    Raises:
        OctcError: E107 there is none, E307 not readable or of another schema, E501 a file does not match its sum.
    """
    if not (folder / META).is_file():
        raise OctcError("OCT-E107", f"no checkpoint in {folder}", mend="octc train makes one", place=str(folder))
    try:
        checkpoint = _from_json(read_json(folder / META), folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OctcError("OCT-E307", f"checkpoint.json is not valid: {error}", mend="train again", place=str(folder)) from error
    return checkpoint, read_weights(folder / WEIGHTS, checkpoint.sha256)


def _from_json(value: dict[str, Any], folder: Path) -> Checkpoint:
    schema = value.get("schema_version")
    if schema != SCHEMA:
        raise ValueError(f"its schema is {schema}, this octc reads {SCHEMA}")
    stated = value.pop(JSON_SUM, None)
    if stated is not None and stated != sha256_bytes(canonical_json(value)):
        text = "checkpoint.json does not match its sha256"
        raise OctcError("OCT-E501", text, mend="train again or restore the file", place=str(folder / META))
    del value["schema_version"]
    known = {f.name for f in fields(Checkpoint)}
    if set(value) != known:
        missing, extra = sorted(known - set(value)), sorted(set(value) - known)
        raise ValueError(f"fields missing: {', '.join(missing) or 'none'}; unknown: {', '.join(extra) or 'none'}")
    preprocess = Preprocess.from_json(value["preprocess"])
    return Checkpoint(**{**value, "preprocess": preprocess, "classes": tuple(value["classes"])})


def read_weights(path: Path, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """Read a safetensors file; a pickle (.pth, .pt, .bin) is refused (E308), a wrong sum too (E501)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        if (fault := fault_of(error, path)) is not None:
            raise fault from error
        mend = "--weights FILE" if sha256 is None else "train again or restore the file"
        raise OctcError("OCT-E310", f"weights are not on disk: {error.strerror}", mend=mend, place=str(path)) from error
    if sha256 is not None and sha256_bytes(data) != sha256:
        raise OctcError(
            "OCT-E501", f"{path.name} does not match its sha256", mend="train again or restore the file", place=str(path)
        )
    try:
        return load(data)  # first: the length of a safetensors header can spell the first bytes of a pickle
    except SafetensorError as error:
        if _may_be_pickle(data):
            text, mend = "pickle refused: it could run code", "convert it to safetensors where you trust it"
            raise OctcError("OCT-E308", text, mend=mend, place=str(path)) from error
        text = f"not a safetensors file: {error}"
        raise OctcError("OCT-E307", text, mend="give a .safetensors file", place=str(path)) from error


def _may_be_pickle(data: bytes) -> bool:
    """Whether a file is what torch.load takes: a zip or tar archive, or a pickle. Looked at, never executed."""
    if data[:2] == b"PK" or data[257:262] == b"ustar" or data[:1] == b"\x80":
        return True
    try:
        return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(data[: 1 << 16]))
    except (ValueError, IndexError, KeyError, EOFError, OverflowError, UnicodeError):
        return False


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
