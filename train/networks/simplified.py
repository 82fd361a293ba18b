"""A network whose structure was simplified: the changes are data (`octc.schemas.simplified`), and made again from them.

The same functions make a change in a trained network (its weights are cut) and in one with random weights, into which a
checkpoint is loaded afterwards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from octc.core.errors import OctcError
from octc.schemas.simplified import ActivationStep, ChannelStep, GateStep, Step, read_steps

MADE = {"hard-swish": nn.Hardswish, "relu": nn.ReLU}
HINT = "use a checkpoint of the same network, as octc simplify wrote it"


def simplify_stored(model: nn.Module, stored: Any) -> nn.Module:
    """Make the changes that a checkpoint's `model_kwargs` state, in place (OctcError E307 where they do not fit)."""
    with fitting(model):
        apply_steps(model, read_steps(stored))
    return model


@contextmanager
def fitting(model: nn.Module) -> Iterator[None]:
    """Stored changes are made within it: OctcError E307 where they are those of another network, or none."""
    try:
        yield
    except (ValueError, AttributeError, IndexError) as error:
        text = f"the simplification that is stored does not fit {type(model).__name__}: {error}"
        raise OctcError("OCT-E307", text[:300], hint=HINT) from error


def apply_steps(model: nn.Module, steps: Iterable[Step]) -> None:
    """Change a network in place, one step after the other (AttributeError, ValueError, IndexError: it is another network)."""
    for step in steps:
        if isinstance(step, ActivationStep):
            for name in step.modules:
                put_module(model, name, MADE[step.to]())
        elif isinstance(step, GateStep):
            for name in step.modules:
                put_module(model, name, nn.Identity())
        else:
            _remove_channels(model, step)


def put_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put a module in the place of another one (AttributeError where there is none)."""
    model.get_submodule(name)
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new.train(model.training))


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a convolution has a filter for each channel."""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1


def can_lose(layer: nn.Module) -> bool:
    """Whether channels can be removed from a layer: plain and depthwise convolutions, batch norms, linear layers.

    Not from one with weights beyond those of its kind, such as a gain for each filter.
    """
    own = {name for name, _ in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]}
    if isinstance(layer, nn.BatchNorm2d):
        return own <= {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    if not isinstance(layer, nn.Conv2d | nn.Linear) or not own <= {"weight", "bias"}:
        return False
    return isinstance(layer, nn.Linear) or layer.groups == 1 or is_depthwise(layer)


def _remove_channels(model: nn.Module, step: ChannelStep) -> None:
    """A layer may give and read channels of several groups: each is cut once, by all of them."""
    out: dict[str, set[int]] = defaultdict(set)
    into: dict[str, set[int]] = defaultdict(set)
    for group in step.groups:
        for name in group.out:
            out[name].update(group.removed)
        for name in group.into:
            into[name].update(group.removed)
    for name in sorted({*out, *into}):
        layer: Any = model.get_submodule(name)
        if not can_lose(layer):
            raise ValueError(f"{name} is a {type(layer).__name__} that loses no channels")
        if isinstance(layer, _BatchNorm):
            _cut_norm(layer, _kept(layer.num_features, out[name] | into[name], name))
        elif is_depthwise(layer):
            _cut_rows(layer, _kept(layer.out_channels, out[name] | into[name], name))
            layer.groups = layer.in_channels = layer.out_channels
        else:
            wide = isinstance(layer, nn.Linear)
            if out[name]:
                _cut_rows(layer, _kept(layer.out_features if wide else layer.out_channels, out[name], name))
            if into[name]:
                _cut_columns(layer, _kept(layer.in_features if wide else layer.in_channels, into[name], name))


def _kept(count: int, removed: set[int], name: str) -> torch.Tensor:
    """Indices that stay."""
    if removed and (max(removed) >= count or len(removed) >= count):
        raise ValueError(f"{name} has {count} channels, {len(removed)} of them (up to {max(removed)}) were to go")
    return torch.tensor([k for k in range(count) if k not in removed], dtype=torch.long)


def _cut(values: nn.Parameter, kept: torch.Tensor, dim: int) -> nn.Parameter:
    return nn.Parameter(values.detach().index_select(dim, kept.to(values.device)).clone(), values.requires_grad)


def _cut_rows(layer: Any, kept: torch.Tensor) -> None:
    layer.weight = _cut(layer.weight, kept, 0)
    if layer.bias is not None:
        layer.bias = _cut(layer.bias, kept, 0)
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(kept))


def _cut_columns(layer: Any, kept: torch.Tensor) -> None:
    layer.weight = _cut(layer.weight, kept, 1)
    setattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", len(kept))


def _cut_norm(norm: Any, kept: torch.Tensor) -> None:
    for name in ("weight", "bias"):
        if getattr(norm, name) is not None:
            setattr(norm, name, _cut(getattr(norm, name), kept, 0))
    for name in ("running_mean", "running_var"):
        if getattr(norm, name) is not None:
            setattr(norm, name, getattr(norm, name).index_select(0, kept.to(getattr(norm, name).device)).clone())
    norm.num_features = len(kept)
