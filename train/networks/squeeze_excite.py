"""Squeeze-excite taken out: the mean of its gates over calibration images goes into the weights beside it.

A gate is found by what it does, not by its class: a module with layers inside, whose output is its input times one number for
each channel and image, and in which no convolution works on a map (a block whose branch gives zero is none).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from octc.core.errors import OctcError
from octc.schemas.simplified import GateStep
from octc.train.networks.simplified import put_module

EQUAL = 1e-3  # of the largest value: how far an output may lie from input times gate
CLOSE = 1e-4  # of the largest logit: how far the folded network may lie from one with constant gates
Batches = Callable[[], Iterable[torch.Tensor]]


class ConstantGate(nn.Module):
    """Multiplies [N, C, H, W] by one number a channel."""

    gate: torch.Tensor

    def __init__(self, gate: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("gate", gate.view(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate


def gates_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
    """The gates [N, C] with y = gate * x, NaN where a channel of x is zero; None where there are none. x, y: [N, C, H, W]."""
    if x.ndim != 4 or x.shape != y.shape or max(x.shape[2:]) == 1:
        return None
    square = (x * x).sum((2, 3))
    gate = (x * y).sum((2, 3)) / square.where(square > 0, math.nan)
    rest = (y - x * gate.nan_to_num()[:, :, None, None]).abs().max()
    return gate if float(rest) <= EQUAL * float(y.abs().max()) else None


@torch.no_grad()
def mean_gates(model: nn.Module, batches: Batches) -> dict[str, torch.Tensor]:
    """Mean gates [C] of every squeeze-excite module, by its name, over images (normalised float [N, 3, H, W])."""
    model.eval()
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, torch.Tensor] = {}
    other: set[str] = set()
    called: set[str] = set()

    def look(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            tensors = [one for one in (*inputs, output) if isinstance(one, torch.Tensor)]
            gate = gates_of(*tensors) if len(tensors) == 2 and name not in called else None
            called.add(name)  # again for the same images: it stands in several places, each with gates of its own
            if gate is None:
                other.add(name)
                return
            known = ~gate.isnan()
            sums[name] = sums.get(name, 0) + gate.nan_to_num().double().sum(0)
            counts[name] = counts.get(name, 0) + known.sum(0)

        return hook

    def on_maps(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if max(inputs[0].shape[2:]) > 1:
                other.update(name[: at.start()] for at in re.finditer(r"\.", name))

        return hook

    modules = dict(model.named_modules())
    hooks = [part.register_forward_hook(look(name)) for name, part in modules.items() if name and _has_layers(part)]
    convs = {name: part for name, part in modules.items() if isinstance(part, nn.Conv2d)}
    hooks += [part.register_forward_pre_hook(on_maps(name)) for name, part in convs.items()]
    for batch in batches():
        called.clear()
        model(batch)
    for one in hooks:
        one.remove()
    found = {
        name: torch.where(counts[name] > 0, total / counts[name].clamp(min=1), 1.0).float()
        for name, total in sums.items()
        if name not in other
    }
    return {name: gate for name, gate in found.items() if not any(name.startswith(f"{outer}.") for outer in found)}


def _has_layers(part: nn.Module) -> bool:
    """Whether a module holds at least one layer with weights, and is none itself."""
    return not isinstance(part, _BatchNorm) and any(
        isinstance(one, (nn.Conv1d, nn.Conv2d, nn.Linear)) for one in list(part.modules())[1:]
    )


@dataclass(frozen=True)
class Folded:
    """What came of taking gates out. step: None where none could be folded. kept: gates that stay, with the reason.

    into: where each gate went, by its name. gates: their means.
    """

    step: GateStep | None
    kept: dict[str, str] = field(default_factory=dict)
    into: dict[str, list[str]] = field(default_factory=dict)
    gates: dict[str, torch.Tensor] = field(default_factory=dict)


@torch.no_grad()
def fold_gates(model: nn.Module, batches: Batches) -> Folded:
    """Take squeeze-excite out of a network, in place: mean gates go into the convolutions that read their output, or into the
    batch norm that feeds them. The network then gives what it would give with constant gates; one for which it does not
    (something else reads the map as well) stays, and is named.

    Raises:
        OctcError: E413 the network has no squeeze-excite, or none that could be folded.
    """
    gates = mean_gates(model, batches)
    if not gates:
        text = f"{type(model).__name__} has no squeeze-excite module"
        raise OctcError("OCT-E413", text, hint="leave --no-se out", place="--no-se")
    image = next(iter(batches()))[:2]
    kept, into = {}, {}
    for name, gate in gates.items():
        where = _folded(model, name, gate, image)
        if where is None:
            kept[name] = "no convolution alone reads its output, and no batch norm alone feeds it"
        else:
            into[name] = where
    if not into:
        text = f"no squeeze-excite module of {type(model).__name__} can be folded: {next(iter(kept.values()))}"
        raise OctcError("OCT-E413", text, hint="leave --no-se out", place="--no-se")
    return Folded(GateStep(modules=sorted(into)), kept, into, gates)


@torch.no_grad()
def take_out(model: nn.Module, step: GateStep, batches: Batches) -> dict[str, list[str]]:
    """Take the modules of a step out of a network, in place, with their mean gates over images in the weights beside them.

    It is `fold_gates` where the modules are known. A gate that cannot be folded with these weights is left out of them.

    Returns: where each gate went, by its name.

    Raises:
        AttributeError: the step is of another network.
    """
    gates, image, into = mean_gates(model, batches), next(iter(batches()))[:2], {}
    for name in step.modules:
        where = _folded(model, name, gates[name], image) if name in gates else None
        if where is None:
            put_module(model, name, nn.Identity())
        else:
            into[name] = where
    return into


def _folded(model: nn.Module, name: str, gate: torch.Tensor, image: torch.Tensor) -> list[str] | None:
    """Names of the layers that took the gate of a module, which does nothing since; None where it could not go, and stays."""
    module = model.get_submodule(name)
    put_module(model, name, ConstantGate(gate))
    where = _fold(model, name, gate, image, model(image))
    if where is None:
        put_module(model, name, module)
    return where


def _fold(model: nn.Module, name: str, gate: torch.Tensor, image: torch.Tensor, expected: torch.Tensor) -> list[str] | None:
    """Names of the layers that took a gate, whose module does nothing now; None where none could (nothing changed)."""
    readers, sources = _neighbours(model, name, image)
    put_module(model, name, nn.Identity())
    for layers, scale in ((readers, _scale_columns), (sources, _scale_norm)):
        before = [{key: value.clone() for key, value in layer.state_dict().items()} for layer in layers.values()]
        for layer in layers.values():
            scale(layer, gate)
        if layers and float((model(image) - expected).abs().max()) <= CLOSE * float(expected.abs().max()) + 1e-6:
            return sorted(layers)
        for layer, state in zip(layers.values(), before, strict=True):
            layer.load_state_dict(state)
    return None


def _neighbours(model: nn.Module, name: str, image: torch.Tensor) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """The convolutions that read a module's output, and the batch norm whose output it reads: by the tensors themselves."""
    made: dict[int, tuple[str, torch.Tensor]] = {}  # kept, so that no id is given away
    taken: list[tuple[str, torch.Tensor]] = []
    passed: dict[str, torch.Tensor] = {}

    def at_gate(_module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        passed.update(into=inputs[0], out=output)

    def at_norm(norm: str) -> Any:
        return lambda _module, _inputs, output: made.__setitem__(id(output), (norm, output))

    def at_conv(conv: str) -> Any:
        return lambda _module, inputs: taken.append((conv, inputs[0]))

    hooks = [model.get_submodule(name).register_forward_hook(at_gate)]
    for one, part in model.named_modules():
        if isinstance(part, _BatchNorm):
            hooks.append(part.register_forward_hook(at_norm(one)))
        elif isinstance(part, nn.Conv2d):
            hooks.append(part.register_forward_pre_hook(at_conv(one)))
    model(image)
    for hook in hooks:
        hook.remove()
    readers = {conv: model.get_submodule(conv) for conv, tensor in taken if tensor is passed["out"]}
    source = made.get(id(passed["into"]))
    norm = None if source is None else model.get_submodule(source[0])
    return readers, {source[0]: norm} if source is not None and norm is not None and norm.weight is not None else {}


def _scale_columns(conv: Any, gate: torch.Tensor) -> None:
    """w'[o, i] = w[o, i] * gate[i], with the channels of each group of a convolution."""
    groups, per_group = conv.groups, conv.in_channels // conv.groups
    weight = conv.weight.reshape(groups, conv.out_channels // groups, per_group, *conv.kernel_size)
    conv.weight.copy_((weight * gate.view(groups, 1, per_group, 1, 1)).reshape(conv.weight.shape))


def _scale_norm(norm: Any, gate: torch.Tensor) -> None:
    norm.weight.mul_(gate)
    norm.bias.mul_(gate)
