"""The training state on disk: two slots, written in turn, so a process killed while writing one leaves the other whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from octc.core.errors import OctcError, shorten
from octc.core.files import canonical_json, read_json, sha256_bytes, write_bytes, write_json
from octc.train.loop.checkpoint import tensors_as_bytes

SLOTS = ("a", "b")


@dataclass
class Progress:
    """Where training stands.

    Attributes:
        epoch, step: the next step to do (step within the epoch).
        best: value of the criterion at the best epoch (lower is better), best_epoch, bad: epochs since.
        averaged: epochs in the average of SWA.
        sums: running sums of this epoch's losses, so that a resumed epoch reports the same means.
        history: one row an epoch.
    """

    epoch: int = 0
    step: int = 0
    best: float = float("inf")
    best_epoch: int = -1
    bad: int = 0
    averaged: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Saved:
    """A training state that was read, and what there is to say about it (damaged slots, changes that were allowed)."""

    serial: int
    progress: Progress
    tensors: dict[str, torch.Tensor]
    warnings: tuple[str, ...]


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested dictionaries as one: {"stage.lr": 0.001}. Sequences become lists, as JSON gives them back."""
    if isinstance(value, Mapping):
        return {key: leaf for name, inner in value.items() for key, leaf in flat(inner, f"{path}.{name}".lstrip(".")).items()}
    return {path: list(value) if isinstance(value, (list, tuple)) else value}


def write_state(
    folder: Path, facts: Mapping[str, Any], serial: int, progress: Progress, tensors: dict[str, torch.Tensor]
) -> None:
    """Write slot `serial` mod 2: the tensors, then state.json with their sum and its own.

    Args:
        facts: all that decides the result (`flat`); a state with other facts is not read back unasked.
        serial: counts the writes; the newest intact slot is read.
    """
    slot = folder / f"state-{SLOTS[serial % 2]}"
    data = tensors_as_bytes(tensors)
    values = {**vars(progress), "best": None if progress.best == float("inf") else progress.best}
    head = {"facts": dict(facts), "serial": serial, "sha256": sha256_bytes(data), "progress": values}
    (slot / "state.json").unlink(missing_ok=True)
    write_bytes(slot / "state.safetensors", data)
    write_json(slot / "state.json", {**head, "json_sha256": sha256_bytes(canonical_json(head))})


def read_state(folder: Path, facts: Mapping[str, Any], allow_change: bool = False) -> Saved | None:
    """The newest intact state, or None where none was written yet. With allowed changes its epoch begins anew.

    Raises:
        OctcError: E110 the facts differ (all are named), E501 states were written, and none of them is intact.
    """
    found: list[tuple[int, dict[str, Any], dict[str, torch.Tensor]]] = []
    damaged: list[str] = []
    for name in SLOTS:
        slot = folder / f"state-{name}"
        if not (slot / "state.json").is_file():  # never written, or killed while it was
            continue
        try:
            found.append(_read_slot(slot))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            damaged.append(f"damaged training state {slot} skipped ({error})")
    if not found:
        if damaged:
            text = "no training state is intact"
            raise OctcError("OCT-E501", text, hint="train anew without --resume", place=str(folder), why="; ".join(damaged))
        return None
    serial, value, tensors = max(found, key=lambda entry: entry[0])
    progress = Progress(**{k: v for k, v in value["progress"].items() if v is not None})
    changes = differences(value["facts"], facts)
    if changes and not allow_change:
        text = f"the training state belongs to another configuration: {shorten(changes)}"
        raise OctcError("OCT-E110", text, hint="--allow-change, or train anew without --resume", place=str(folder))
    if changes:
        progress.step, progress.sums = 0, {}
        damaged.append(f"training state resumed from its epoch's start although it began otherwise: {shorten(changes)}")
    return Saved(serial, progress, tensors, tuple(damaged))


def made_from(folder: Path) -> Any:
    """What the states in a folder say that their training began from; None where there is none, or they say nothing."""
    for name in SLOTS:
        try:
            return read_json(folder / f"state-{name}" / "state.json")["facts"]["from"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _read_slot(slot: Path) -> tuple[int, dict[str, Any], dict[str, torch.Tensor]]:
    value: dict[str, Any] = read_json(slot / "state.json")
    stated = value.pop("json_sha256")
    if sha256_bytes(canonical_json(value)) != stated:
        raise ValueError("sha256 mismatch of state.json")
    data = (slot / "state.safetensors").read_bytes()
    if sha256_bytes(data) != value["sha256"]:
        raise ValueError("sha256 mismatch of state.safetensors")
    return int(value["serial"]), value, load(data)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed between two flat dictionaries, a text each: "stage.lr 0.001 -> 0.01"."""
    names = sorted({*before, *now})
    return [f"{name} {before.get(name)} -> {now.get(name)}" for name in names if before.get(name) != now.get(name)]


def pack(parts: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """{"model": {...}, "ema": {...}} -> one flat dictionary."""
    return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def unpack(tensors: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """The tensors of one part, without its prefix."""
    return {name.split("/", 1)[1]: tensor for name, tensor in tensors.items() if name.startswith(f"{part}/")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's moments and step counts, by parameter number."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": torch.as_tensor(value) for number, entry in state.items() for name, value in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put the moments back."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
