"""Checkpoints: model.safetensors + checkpoint.json, written atomically, summed, never a pickle."""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from octc.core.errors import OctcError, shorten
from octc.core.faults import fault_of
from octc.core.files import canonical_json, parse_json, read_json, sha256_bytes, write_bytes, write_json
from octc.core.newer import newer, refuse_newer
from octc.imaging.preprocess import Preprocess

WEIGHTS = "model.safetensors"
META = "checkpoint.json"
SCHEMA = "1.0"
LFS = b"version https://git-lfs.github.com/spec/"
KERAS = "convert the network to ONNX (tf2onnx), then octc import FILE.onnx"
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
    """A safetensors file. Tensors that share memory (tied weights, a module under two names) are written under each name."""
    written: dict[str, torch.Tensor] = {}
    memory: set[int] = set()
    for name, tensor in state.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        written[name] = plain.clone() if place in memory else plain
        memory.add(place)
    return bytes(save(written))


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint that was written whole."""
    return (folder / META).is_file()


def read_checkpoint(folder: Path) -> tuple[Checkpoint, dict[str, torch.Tensor]]:
    """Read a checkpoint folder.

    Raises:
        OctcError: E107 there is none, E307 not readable or of another schema, E501 a file does not match its sum.
    """
    if not is_checkpoint(folder):
        raise OctcError("OCT-E107", f"no checkpoint in {folder}", hint="octc train makes one", place=str(folder))
    try:
        checkpoint = _from_json(read_json(folder / META), folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OctcError("OCT-E307", f"checkpoint.json is not valid: {error}", hint="train again", place=str(folder)) from error
    state = read_weights(folder / WEIGHTS, checkpoint.sha256)
    refuse_not_finite(state, str(folder / WEIGHTS))
    return checkpoint, state


def _from_json(value: dict[str, Any], folder: Path) -> Checkpoint:
    schema = value.get("schema_version")
    refuse_newer(schema, SCHEMA, "this checkpoint", str(folder / META))
    if schema != SCHEMA:
        raise ValueError(f"its schema is {schema}, this octc reads {SCHEMA}")
    stated = value.pop(JSON_SUM, None)
    if stated is not None and stated != sha256_bytes(canonical_json(value)):
        text = "checkpoint.json does not match its sha256"
        raise OctcError("OCT-E501", text, hint="train again or restore the file", place=str(folder / META))
    del value["schema_version"]
    known = {f.name for f in fields(Checkpoint)}
    if set(value) != known:
        missing, extra = sorted(known - set(value)), sorted(set(value) - known)
        if not missing:
            raise newer(f"this checkpoint has fields that this octc does not know: {', '.join(extra)}", str(folder / META))
        raise ValueError(f"fields missing: {', '.join(missing) or 'none'}; unknown: {', '.join(extra) or 'none'}")
    if len(set(value["classes"])) != len(value["classes"]):
        raise ValueError(f"a class that stands twice: {', '.join(map(str, value['classes']))}"[:300])
    preprocess = Preprocess.from_json(value["preprocess"])
    return Checkpoint(**{**value, "preprocess": preprocess, "classes": tuple(value["classes"])})


def read_weights(path: Path, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        OctcError: E310 there is none, or a pointer of Git LFS in its place; E501 a wrong sum; E307 not such a file, or one that
            was cut short; E308 a pickle (.pth, .pt, .bin).
    """
    data = _bytes_of(path, sha256)
    try:
        return load(data)  # first: the length of a safetensors header can spell the first bytes of a pickle
    except SafetensorError as error:
        if _may_be_pickle(data):
            text, hint = "pickle refused: it could run code", "convert it to safetensors where you trust it"
            raise OctcError("OCT-E308", text, hint=hint, place=str(path)) from error
        text, hint = f"not a safetensors file: {_cut_short(data) or error}", "give a .safetensors file, whole"
        if (other := _of_others(path, data)) is not None:
            text, hint = f"{path.name} is {other[0]}, not weights of PyTorch", other[1]
        raise OctcError("OCT-E307", text, hint=hint, place=str(path)) from error


def read_any_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file, or what torch.save wrote: tensors alone, and nothing in it is executed.

    Tensors in dictionaries get the dictionaries' keys before their names ("state_dict.fc.weight"); other values are left out.

    Raises:
        OctcError: as `read_weights`; E308 for a pickle that would call anything but torch.
    """
    try:
        return read_weights(path)
    except OctcError as error:
        if error.code != "OCT-E308":
            raise
    from octc.train.networks.torch_files import flat_tensors, read_torch_file  # it stands above this one

    tensors = flat_tensors(read_torch_file(path), str(path))
    if not tensors:
        raise OctcError("OCT-E307", "no tensors in this file", hint="give a file with a state_dict", place=str(path))
    return tensors


def _bytes_of(path: Path, sha256: str | None) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        if (fault := fault_of(error, path)) is not None:
            raise fault from error
        hint = "--weights FILE" if sha256 is None else "train again or restore the file"
        raise OctcError("OCT-E310", f"weights are not on disk: {error.strerror}", hint=hint, place=str(path)) from error
    if data.startswith(LFS):
        text = f"{path.name} is a pointer of Git LFS; the weights themselves were not fetched"
        raise OctcError("OCT-E310", text, hint="git lfs pull", place=str(path))
    if sha256 is not None and sha256_bytes(data) != sha256:
        raise OctcError(
            "OCT-E501", f"{path.name} does not match its sha256", hint="train again or restore the file", place=str(path)
        )
    return data


def _of_others(path: Path, data: bytes) -> tuple[str, str] | None:
    """What a file is that other frameworks wrote, and what to do with it; None for anything else."""
    if data.startswith(b"\x89HDF\r\n\x1a\n"):
        return "an HDF5 file, as Keras writes", KERAS
    if data[4:8] == b"TFL3":
        return "a TFLite file", "export the network it was made from as ONNX: octc import FILE.onnx"
    if path.suffix.lower() == ".onnx":
        return "an ONNX file", f"octc import {path} makes an artifact of it"
    return None


def _cut_short(data: bytes) -> str | None:
    """What a safetensors file lacks at its end, or None where it is no such file, or whole."""
    if not data:
        return "it is empty (0 bytes)"
    try:
        start = 8 + struct.unpack("<Q", data[:8])[0]
        if start > len(data):
            return f"it has {len(data)} bytes, its header alone {start}: cut short" if data[8:9] == b"{" else None
        ends = [entry["data_offsets"][1] for name, entry in parse_json(data[8:start]).items() if name != "__metadata__"]
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    whole = start + max(ends, default=0)
    return f"it has {len(data)} bytes of {whole}: cut short" if whole > len(data) else None


def refuse_not_finite(state: State, place: str) -> None:
    """E307 with the tensors that hold NaN or Infinity: nothing can be learnt from them, at whatever learning rate."""
    bad = []
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            nan, count = int(torch.isnan(tensor).sum()), int((~torch.isfinite(tensor)).sum())
            bad.append(f"{name} ({nan} NaN and {count - nan} infinite of {tensor.numel()} values)")
    if bad:
        text = f"{len(bad)} tensors of the weights are not finite: {shorten(bad, 3, 'the first ones')}"
        hint = "use a checkpoint from before the training that wrote it diverged"
        raise OctcError("OCT-E307", text, hint=hint, place=place)


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
        raise OctcError("OCT-E307", text, hint="use a checkpoint of the same model and classes", place=place)
    model.load_state_dict(dict(state))


def _named(missing: list[str], extra: list[str], shapes: list[str]) -> tuple[tuple[str, list[str]], ...]:
    return (("missing keys", missing), ("unknown keys", extra), ("different shapes", shapes))
