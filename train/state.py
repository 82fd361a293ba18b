"""The training state on disk: two slots, written in turn, so a process killed while writing one leaves the other whole."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from octc.errors import OctcError
from octc.files import read_json, sha256_bytes, write_bytes, write_json

log = logging.getLogger(__name__)
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


def write_state(folder: Path, key: str, serial: int, progress: Progress, tensors: dict[str, torch.Tensor]) -> None:
    """Write slot `serial` mod 2: the tensors, then state.json with their sum.

    Args:
        key: digest of what this training is; a state of another training is not read back.
        serial: counts the writes; the newest intact slot is read.
    """
    slot = folder / f"state-{SLOTS[serial % 2]}"
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    values = {**vars(progress), "best": None if progress.best == float("inf") else progress.best}
    (slot / "state.json").unlink(missing_ok=True)
    write_bytes(slot / "state.safetensors", data)
    write_json(slot / "state.json", {"key": key, "serial": serial, "sha256": sha256_bytes(data), "progress": values})


def read_state(folder: Path, key: str | None) -> tuple[int, Progress, dict[str, torch.Tensor], list[str]] | None:
    """The newest intact state: serial, progress, tensors, and a sentence for each damaged slot. None: nothing to resume.

    key: of the training that goes on; None takes the state of any.

    Raises:
        OctcError: E110 when the state belongs to another configuration.
    """
    found: list[tuple[int, Progress, dict[str, torch.Tensor]]] = []
    damaged: list[str] = []
    for name in SLOTS:
        slot = folder / f"state-{name}"
        if not (slot / "state.safetensors").is_file():
            continue
        try:
            value = read_json(slot / "state.json")
            data = (slot / "state.safetensors").read_bytes()
            if sha256_bytes(data) != value["sha256"]:
                raise ValueError("sha256 mismatch")
            tensors = load(data)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            damaged.append(f"damaged training state {slot} skipped ({error})")
            continue
        if key is not None and value["key"] != key:
            text = "the training state belongs to another configuration"
            raise OctcError("OCT-E110", text, mend="train anew without --resume", place=str(slot))
        progress = Progress(**{**value["progress"], "best": value["progress"]["best"] or float("inf")})
        if value["progress"]["best"] is not None:
            progress.best = float(value["progress"]["best"])
        found.append((int(value["serial"]), progress, tensors))
    if not found:
        return None
    serial, progress, tensors = max(found, key=lambda entry: entry[0])
    return serial, progress, tensors, damaged


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
