"""The structure of a network that is not trained on its task yet, made simpler: what goes, as data.

Which channels go is told by the weights that the network begins with. The loss of the task says nothing before the classifier
has learnt anything, so the Taylor expansion of `octc.compress.simplify.pruning` has nothing to expand. Importance of a channel
is the variance that it gives to what reads it: the sum of squared scales of the batch norms that give it (Liu et al. 2017,
"Network Slimming", take the scale) times the sum of squares of the weights that read it; where no norm is, the squares of the
filters stand for the scale.

Every group of channels loses the same share, its least important ones. Weights of different layers have no common unit, and a
network that is trained whole afterwards owes its accuracy to its widths more than to the weights that it keeps (Liu et al.
2019, "Rethinking the Value of Network Pruning"). The widths then hang on the network and the share alone: one that begins at
random has those of one that begins with ImageNet weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from octc.compress.simplify.pruning import Group, Member, choose_evenly, cut_channels, find_groups
from octc.compress.simplify.steps import check_convolutional
from octc.core.errors import OctcError
from octc.schemas.simplified import Step
from octc.train.loop.averaging import refresh_norms
from octc.train.networks.simplified import is_depthwise
from octc.train.networks.squeeze_excite import fold_gates

CLEAR = 128  # pixels at which the last maps are larger than one value, where a gate looks like any other module


def structure_steps(model: nn.Module, size: int, *, no_se: bool, share: float, learned: bool) -> list[Step]:
    """What takes squeeze-excite and a share of the channels out of a network, which is changed so itself.

    Args:
        model: with the weights that it will begin with. size: of its input, pixels.
        no_se: squeeze-excite goes. share: of the channels of each group, 0 for none, at most 0.75; groups of sixteen
            and more keep a multiple of eight.
        learned: False: its weights are random, and the last channels of each group go.

    Raises:
        OctcError: E413 attention, nothing to take out, or a gate that cannot be folded; E104 a share out of range; E901
            torch-pruning is not installed.
    """
    check_convolutional(model)
    steps: list[Step] = []
    if no_se:
        side = max(size, CLEAR)
        noise = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        refresh_norms(model, [noise])  # nothing dies out or overflows in it, with random weights either
        folded = fold_gates(model, lambda: [noise])
        if folded.kept:
            text = f"squeeze-excite of {type(model).__name__} cannot be taken out whole: {', '.join(folded.kept)} would stay"
            raise OctcError("OCT-E413", text, hint="leave squeeze_excite out")
        assert folded.step is not None
        steps.append(folded.step)
    if share:
        groups = find_groups(model, size)
        scores = weight_importance(model, groups) if learned else [-torch.arange(float(one.count)) for one in groups]
        cut = cut_channels(model, groups, choose_evenly(scores, share), size)
        if cut is None:
            text = f"a share of {share:g} removes no channel of {type(model).__name__}: layers keep a multiple of 8"
            raise OctcError("OCT-E413", text, hint="a larger prune")
        steps.append(cut)
    return steps


@torch.no_grad()
def weight_importance(model: nn.Module, groups: Sequence[Group]) -> list[torch.Tensor]:
    """The importance of every channel by the weights alone, float64 [count] a group: what gives it times what reads it."""
    return [_given(model, group) * _read(model, group) for group in groups]


def _given(model: nn.Module, group: Group) -> torch.Tensor:
    """Squares of what scales each channel: its norms, or where none is its filters."""
    given = [(one, model.get_submodule(one.name)) for one in group.members if one.gives]
    norms = [pair for pair in given if isinstance(pair[1], nn.BatchNorm2d)]
    return _summed(group, [(member, _squares(layer, 0)) for member, layer in norms or given])


def _read(model: nn.Module, group: Group) -> torch.Tensor:
    """Squares of the weights that read each channel."""
    layers = [(one, model.get_submodule(one.name)) for one in group.members if not one.gives]
    return _summed(group, [(member, _squares(layer, 1)) for member, layer in layers])


def _squares(layer: Any, dim: int) -> torch.Tensor:
    """Sums of squares of a layer's weights over all of their dimensions but one, [channels], float64."""
    weight: torch.Tensor = layer.weight.double().cpu() ** 2
    return weight.transpose(0, 0 if is_depthwise(layer) else dim).flatten(1).sum(1) if weight.ndim > 1 else weight


def _summed(group: Group, parts: Sequence[tuple[Member, torch.Tensor]]) -> torch.Tensor:
    total = torch.zeros(group.count, dtype=torch.float64)
    for member, values in parts:
        total.index_add_(0, torch.tensor(member.channel), values[list(member.index)])
    return total
