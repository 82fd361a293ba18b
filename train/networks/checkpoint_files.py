"""One network of a checkpoint that another program wrote: which of its dictionaries, which names, and what is left out.

Named cases: a plain state_dict (KD-OCT's best_model.pth), timm's (`arch`, `state_dict`, `state_dict_ema`), Lightning's
(`state_dict` with the attribute's name before each tensor), DeiT's and others' `model` and `model_ema`, DataParallel,
torch.compile, FSDP, torch's AveragedModel. A file with a network and its average is two networks: which one is meant is for the
user to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from octc.core.errors import OctcError, shorten
from octc.core.files import parse_json, sha256_bytes, sha256_file, write_bytes
from octc.train.loop.checkpoint import read_weights, refuse_not_finite
from octc.train.networks.torch_files import Tensors, flat_tensors, read_torch_file
from octc.train.networks.weight_matching import BESIDE, WRAPPERS

# words under which programs keep a network, and its average
NETWORKS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module", "student",
    "teacher", "target", "state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema", "ema_model",
    "params_ema", "averaged_model", "swa_model", "swa_state_dict",
)  # fmt: skip
ARCHITECTURE = ("arch", "architecture", "model_name", "backbone", "model_arch")
CLASSES = ("classes", "class_names", "label_names", "classnames")
FRONT = ("module", "_orig_mod", "model", "net", "network", "backbone", "encoder", "student", "teacher", "ema", "ema_model")
WHOLE = "the whole file"
META = "octc"  # key of the safetensors header
MOST = 20  # names that are kept of what was left out


@dataclass(frozen=True)
class Taken:
    """One network of a file.

    Attributes:
        state: its tensors by their own names. where: the dictionary that it lay in (`WHOLE`: none).
        prefix: what stood before every name. others: further networks in the file. dropped: what else is in there, and why it
            was left out. architecture, classes: what the file says of them, None where it says nothing.
        sha256: of the file.
    """

    state: Tensors
    where: str
    prefix: str
    others: tuple[str, ...]
    dropped: tuple[str, ...]
    architecture: str | None
    classes: tuple[str, ...] | None
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """For the record: without the tensors."""
        return {
            "taken": self.where, "prefix": self.prefix, "tensors": len(self.state), "others": list(self.others),
            "dropped": list(self.dropped[:MOST]), "dropped_count": len(self.dropped), "architecture": self.architecture,
            "classes": None if self.classes is None else list(self.classes), "sha256": self.sha256,
        }  # fmt: skip


def read_checkpoint_file(path: Path, take: str | None = None) -> Taken:
    """One network of a safetensors file or of what torch.save wrote.

    Args:
        take: name of the dictionary that it lies in ("state_dict_ema"); None: the only one.

    Raises:
        OctcError: E307 several networks and none named, no network of that name, or none at all; values that are not finite;
            and what the readers raise (E308, E310, E501, E504).
    """
    meta: Mapping[str, Any] = {}
    try:
        found: dict[str, Any] = dict(read_weights(path))
        meta = _header(path)
    except OctcError as error:
        if error.code != "OCT-E308":
            raise
        found = read_torch_file(path)
    places = _networks(found, str(path))
    where = _chosen(places, take, path)
    state, prefix = _plain(places[where])
    if not state:
        raise OctcError("OCT-E307", f"no tensors in {where}", hint="give a file with a state_dict", place=str(path))
    refuse_not_finite(state, str(path))
    others = tuple(name for name in places if name != where)
    inside = [name for name in places[where] if _beside_network(_unwrapped(name))]
    dropped = tuple(_left_out(found, where, others, inside))
    said = {**_stated(found), **meta}
    classes = said.get("classes")
    return Taken(
        state, where, prefix, others, dropped, said.get("architecture"), None if classes is None else tuple(classes),
        sha256_file(path),
    )  # fmt: skip


def write_converted(taken: Taken, out: Path, source: str) -> str:
    """Write a safetensors file with what is known of the network in its header; its SHA-256."""
    kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in taken.state.items()}
    header = {META: json.dumps({"source": source, **taken.to_json()}, sort_keys=True), "format": "pt"}
    data = bytes(save(kept, header))
    write_bytes(out, data)
    return sha256_bytes(data)


def _header(path: Path) -> dict[str, Any]:
    """What `write_converted` wrote of architecture and classes; {} in other files."""
    try:
        with safe_open(str(path), "pt") as file:
            text = (file.metadata() or {}).get(META)
        value = {} if text is None else parse_json(text)
        return {key: value[key] for key in ("architecture", "classes") if value.get(key)}
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError):
        return {}


def _networks(found: Mapping[str, Any], place: str) -> dict[str, Tensors]:
    """The dictionaries of tensors in a file by their names; the whole of one that is nothing else."""
    places: dict[str, Tensors] = {}
    for name, value in found.items():
        if isinstance(value, Mapping) and str(name) in NETWORKS and (tensors := flat_tensors(value, place)):
            inner = _networks(value, place)
            places |= {f"{name}.{more}": state for more, state in inner.items() if more != WHOLE} or {str(name): tensors}
    if places:
        return places
    return {WHOLE: flat_tensors(found, place)}


def _is_beside(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in BESIDE


def _chosen(places: Mapping[str, Tensors], take: str | None, path: Path) -> str:
    named = ", ".join(f"{name} ({len(state)} tensors)" for name, state in places.items())
    if take is not None:
        if take in places:
            return take
        raise OctcError("OCT-E307", f"no network called {take} in {path.name}", hint=f"--take one of: {named}", place=str(path))
    if len(places) == 1:
        return next(iter(places))
    first = next(iter(places))
    text = f"{path.name} holds {len(places)} networks: {named}"
    average = next((name for name in places if "ema" in name or "swa" in name or "averaged" in name), first)
    hint = f"octc weights convert {path} --take {average}   (timm validates the average, `_ema`)"
    raise OctcError("OCT-E307", text, hint=hint, place=str(path))


def _unwrapped(name: str) -> str:
    return ".".join(word for word in name.split(".") if word not in WRAPPERS)


def _beside_network(name: str) -> bool:
    """Whether a name in a network's dictionary is a loss, an optimiser or a counter of averages."""
    return name == "n_averaged" or _is_beside(name)


def _plain(state: Tensors) -> tuple[Tensors, str]:
    """Names without PyTorch's wrappers, without what an average counts, and without one word that stands before all of them."""
    named = {_unwrapped(name): tensor for name, tensor in state.items()}
    named = {name: tensor for name, tensor in named.items() if not _beside_network(name)}
    prefix = ""
    while named:
        words = {name.split(".")[0] for name in named}
        word = next(iter(words))
        if len(words) > 1 or word not in FRONT or any("." not in name for name in named):
            break
        named, prefix = {name.split(".", 1)[1]: tensor for name, tensor in named.items()}, f"{prefix}{word}."
    return named, prefix


def _stated(found: Mapping[str, Any]) -> dict[str, Any]:
    """Architecture and class names where a checkpoint says them as text."""
    said: dict[str, Any] = {}
    inner = found.get("pretrained_cfg")
    for holder in (found, inner if isinstance(inner, Mapping) else {}):
        name = next((holder[key] for key in ARCHITECTURE if isinstance(holder.get(key), str)), None)
        classes = next((holder[key] for key in CLASSES if isinstance(holder.get(key), (list, tuple))), None)
        said |= {"architecture": name} if name else {}
        said |= {"classes": classes} if classes and all(isinstance(one, str) for one in classes) else {}
    return said


def _left_out(found: Mapping[str, Any], where: str, others: tuple[str, ...], inside: list[str]) -> list[str]:
    """What of a file is not in the converted one. inside: what of the network's own dictionary is none of its tensors."""
    top = where.split(".", maxsplit=1)[0]
    rest = [name for name in found if str(name) != top and not (where == WHOLE and isinstance(found[name], torch.Tensor))]
    plain = [f"{name} ({_kind(found[name])})" for name in map(str, rest) if name not in others]
    return [*inside, *plain, *(f"{name} (a network)" for name in others)]


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return "a tensor"
    if isinstance(value, Mapping):
        return "a dictionary"
    return "not read" if type(value).__name__ == "Left" else type(value).__name__


def words(taken: Taken) -> list[str]:
    """What was taken and what was left out, a line each."""
    off = f", {taken.prefix!r} taken off every name" if taken.prefix else ""
    lines = [f"taken {taken.where}: {len(taken.state)} tensors{off}"]
    if taken.architecture:
        lines.append(f"the file says that it is {taken.architecture}")
    if taken.classes:
        lines.append(f"its classes: {shorten(taken.classes, 12)}")
    if taken.dropped:
        lines.append(f"left out: {shorten(taken.dropped, MOST)}")
    return lines
