"""Which tensors of a file are which of a network: renamed where that is one-to-one, refused where it is not, and always said.

Other programs put a word before every name (`module.` of DataParallel, `_orig_mod.` of torch.compile, `model.`, ...), or leave
counters out that only training asks for. Such a file holds the same network.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from octc.core.errors import OctcError, shorten
from octc.train.loop.checkpoint import refuse_not_finite

COUNTERS = ("num_batches_tracked",)  # of the batches that a norm has seen; nothing is computed from them here
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # PyTorch's own, wherever in a name
# what trainings keep beside the network: the first word of a name, and the last one
BESIDE = (
    "optimizer",
    "optimizers",
    "optim",
    "optimizer_state_dict",
    "scheduler",
    "lr_scheduler",
    "scheduler_state_dict",
    "scaler",
    "amp",
    "loss",
    "criterion",
    "loss_fn",
    "rng_state",
)
BESIDE_LAST = ("total_ops", "total_params")
MOST_NAMED, MOST_KEPT = 3, 20  # names in a sentence, and in the record

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Match:
    """The tensors for a network by its own names, and what is not as it was in the file.

    Attributes:
        prefixes: what stood before the network's names. left_out: names in the file that are none of the network's.
        drawn: parameters of the classifier that the file has in another size, or not at all: they stay as they were drawn.
        counters: buffers that the file lacks and that begin at zero. types: those of the file that are not the network's.
    """

    state: dict[str, torch.Tensor]
    prefixes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    drawn: dict[str, str] = field(default_factory=dict)
    counters: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """For the record of the run; {} where every tensor was as it is in the network."""
        found: dict[str, Any] = {
            "prefixes": list(self.prefixes),
            "left_out": len(self.left_out),
            "left_out_names": list(self.left_out[:MOST_KEPT]),
            "classifier_drawn": dict(self.drawn),
            "counters_from_zero": len(self.counters),
            "types": list(self.types),
        }
        return {name: value for name, value in found.items() if value}


def match(own: State, heads: tuple[str, ...], state: State, place: str, *, part: bool = False) -> Match:
    """Find a network's tensors in a file.

    Args:
        own: the network's. heads: how the names of its classifier begin ("fc."). place: what errors name.
        part: the network is a part of what the file holds (a trunk): everything else in there is left out.

    Returns: the match. Its state has other names than `own` where the file holds another network; loading it strictly names
        the difference.

    Raises:
        OctcError: E307 two networks of the file fit, values that are not finite, or whole numbers in place of weights.
    """
    originals = _without_wrappers(state, place)
    plain = {name: state[theirs] for name, theirs in originals.items()}
    body = [name for name in own if not name.startswith(heads) and not _is_counter(name)] or list(own)
    prefixes = _prefixes(own, plain)
    whole = [prefix for prefix in prefixes if _holds(own, body, _under(plain, prefix))]
    if len(whole) > 1:
        shown = " and ".join(originals[f"{prefix}{body[0]}"] for prefix in whole[:MOST_NAMED])
        text = f"{len(whole)} networks of this file fit, and which one is meant cannot be told: {shown}"
        hint = "save the one that is meant as a file of its own (safetensors.torch.save_file)"
        raise OctcError("OCT-E307", text, hint=hint, place=place)
    prefix = whole[0] if whole else _mixed(own, body, plain, prefixes)
    under = _named_under(plain, prefix)
    outside = [name for name in plain if not name.startswith(prefix)]
    names = {**{name: originals[name] for name in outside}, **{name: originals[theirs] for name, theirs in under.items()}}
    strange = [name for name in names if name not in own]
    beside = {name for name in strange if part or name in outside or _is_beside(name, state[names[name]])}
    found = {name: state[theirs] for name, theirs in names.items() if name not in beside}
    drawn = _drawn(own, heads, found) if all(name in own for name in found) else {}  # of another network nothing is kept
    counters = tuple(name for name in own if _is_counter(name) and name not in found)
    used = {name: tensor for name, tensor in found.items() if name in own and name not in drawn}
    _check_types(own, used, place)
    refuse_not_finite({names[name]: tensor.to(own[name].dtype) for name, tensor in used.items()}, place)
    said = {names[name].removesuffix(name) for name in used} - {""}
    left_out = sorted([originals[name] for name in outside if name in under] + [names[name] for name in beside])
    return Match(
        {**found, **{name: own[name] for name in (*drawn, *counters)}},
        tuple(sorted(said)[:MOST_KEPT]),
        tuple(left_out),
        drawn,
        counters,
        _types(own, used),
    )


def words(found: Mapping[str, Any]) -> list[str]:
    """`Match.facts` in words, a line each."""
    lines = []
    if prefixes := found.get("prefixes"):
        lines.append(f"its names begin with {' or '.join(prefixes[:MOST_NAMED])}, which was taken off")
    if drawn := found.get("classifier_drawn"):
        shown = shorten([f"{name}: {what}" for name, what in drawn.items()], MOST_NAMED, "in the run's record")
        lines.append(f"the classifier is not the file's, it begins as drawn: {shown}")
    if count := found.get("counters_from_zero"):
        lines.append(f"{count} counters ({', '.join(COUNTERS)}) are not in the file and begin at 0")
    if count := found.get("left_out"):
        shown = ", ".join(found["left_out_names"][:MOST_NAMED]) + (", ..." if count > MOST_NAMED else "")
        lines.append(f"{count} tensors of the file are none of the network's and are left out: {shown}")
    if types := found.get("types"):
        lines.append(f"stored as {', '.join(types)}, used as float32")
    return lines


def _is_counter(name: str) -> bool:
    return name.rsplit(".", maxsplit=1)[-1] in COUNTERS


def _without_wrappers(state: State, place: str) -> dict[str, str]:
    """Names without PyTorch's wrappers -> the names in the file."""
    found: dict[str, str] = {}
    for name in state:
        plain = ".".join(word for word in name.split(".") if word not in WRAPPERS)
        if plain in found:
            text = f"two networks of this file fit, and which one is meant cannot be told: {found[plain]} and {name}"
            hint = "save the one that is meant as a file of its own (safetensors.torch.save_file)"
            raise OctcError("OCT-E307", text, hint=hint, place=place)
        found[plain] = name
    return found


def _prefixes(own: Collection[str], state: Iterable[str]) -> list[str]:
    """Everything that stands before one of the network's names in the file, "" first."""
    found = {""}
    for name in state:
        parts = name.split(".")
        found |= {".".join(parts[:i]) + "." for i in range(1, len(parts)) if ".".join(parts[i:]) in own}
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _named_under(state: Iterable[str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): name for name in state if name.startswith(prefix)}


def _under(state: State, prefix: str) -> dict[str, torch.Tensor]:
    return {name: state[theirs] for name, theirs in _named_under(state, prefix).items()}


def _holds(own: State, body: Iterable[str], state: State) -> bool:
    return all(name in state and state[name].shape == own[name].shape for name in body)


def _mixed(own: State, body: list[str], state: State, prefixes: Iterable[str]) -> str:
    """A prefix that only some names have and with which, and without the others', the network is whole; else the likeliest."""
    fits = [prefix for prefix in prefixes if prefix and (both := _both(state, prefix)) and _holds(own, body, both)]
    if len(fits) == 1:
        return fits[0]
    return max(prefixes, key=lambda prefix: (sum(name in own for name in _named_under(state, prefix)), not prefix))


def _both(state: State, prefix: str) -> dict[str, torch.Tensor] | None:
    """The tensors under a prefix by their names without it, and the others; None where two get one name."""
    under = _under(state, prefix)
    others = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    return None if under.keys() & others.keys() else {**under, **others}


def _is_beside(name: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor that the network does not know is something that a training keeps beside it."""
    parts = name.split(".")
    if parts[0] in BESIDE or parts[-1] in BESIDE_LAST:
        return True
    return len(parts) == 1 and tensor.numel() <= 1  # n_averaged, epoch, global_step


def _drawn(own: State, heads: tuple[str, ...], found: State) -> dict[str, str]:
    """Tensors of the classifier that the file has in another size, or not at all."""
    drawn = {}
    for name in (name for name in own if name.startswith(heads) and not _is_counter(name)):
        if name not in found:
            drawn[name] = f"not in the file, here {list(own[name].shape)}"
        elif found[name].shape != own[name].shape:
            drawn[name] = f"file {list(found[name].shape)}, here {list(own[name].shape)}"
    return drawn


def _check_types(own: State, used: State, place: str) -> None:
    """Whole numbers are no weights: they need a scale that is not in their place."""
    odd = [
        name
        for name, tensor in used.items()
        if own[name].is_floating_point() != tensor.is_floating_point() and not _is_counter(name)
    ]
    if odd:
        shown = shorten([f"{name} ({_type(used[name])})" for name in odd], MOST_NAMED, "the first ones")
        text = f"the file holds whole numbers where the network has weights: {shown}"
        hint = "give the float checkpoint that this quantised one was made from"
        raise OctcError("OCT-E307", text, hint=hint, place=place)


def _types(own: State, used: State) -> tuple[str, ...]:
    other = {_type(t) for name, t in used.items() if t.dtype != own[name].dtype and t.is_floating_point()}
    return tuple(sorted(other))


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
