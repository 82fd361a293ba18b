"""Whole channels removed: which go together is found by torch-pruning, which go first by a first-order Taylor expansion.

Importance of a channel: the squared change of the loss that its removal makes to first order, (sum of g * w over the scale and
the shift of its batch norms)^2, mean over batches (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning",
equation 8). Filters in front of a batch norm have none of their own: the norm undoes their scale. Where no norm is, the
weights of the filter count. torch-pruning (Fang et al. 2023, "DepGraph") is asked for the groups only; what goes is data, and
cut by `octc.train.networks.simplified`, so that a network is built again without that library.

The least important channels may cost next to nothing. What decides is therefore the importance for each multiply-accumulate
that a channel takes (benchmarks/pruning.py measures the difference).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from octc.core.errors import OctcError, first_line
from octc.core.optional import need
from octc.schemas.simplified import ChannelStep, Coupled
from octc.train.networks.macs import layer_macs
from octc.train.networks.simplified import apply_steps, can_lose

MOST = 0.75  # of a group's channels that may go: what is left of a layer is still a layer
ROUND = 8  # channels that kernels take at once; groups of fewer than two such lots are cut exactly
Labelled = Iterable[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Member:
    """A layer of a group: whether it gives the channels (else it reads them), and its index of each channel of the group.

    channel, index: [n], the channel of the group and its place in the layer, pair by pair.
    """

    name: str
    gives: bool
    channel: tuple[int, ...]
    index: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Channels that can only go together in all of these layers."""

    count: int
    members: tuple[Member, ...]


def find_groups(model: nn.Module, size: int) -> list[Group]:
    """The groups of channels of a network that can be removed, at an input of `size` pixels.

    Raises:
        OctcError: E901 torch-pruning is not installed; E413 the network cannot be traced, has weights outside of layers, or no
            channel that can go.
    """
    tp: Any = need("torch_pruning")
    image = torch.zeros(1, 3, size, size, device=next(model.parameters()).device)
    frozen = [one for one in model.parameters() if not one.requires_grad]
    model.eval().requires_grad_(True)  # it follows the gradients
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            graph = tp.DependencyGraph().build_dependency(model, example_inputs=image)
            found = [_group(model, one) for one in graph.get_all_groups(root_module_types=[nn.Conv2d])]
    except (UserWarning, RuntimeError, TypeError, ValueError, AttributeError, KeyError, AssertionError) as error:
        text = f"channels of {type(model).__name__} cannot be removed: {first_line(error)}"
        raise OctcError("OCT-E413", text, hint="leave --prune out, or choose a convolutional network of timm") from error
    finally:
        for one in frozen:
            one.requires_grad_(False)
    groups = _that_can_go(model, [one for one in found if one is not None], size)
    if not groups:
        text = f"{type(model).__name__} has no channels that can be removed"
        raise OctcError("OCT-E413", text, hint="leave --prune out", place="--prune")
    return groups


def _that_can_go(model: nn.Module, groups: list[Group], size: int) -> list[Group]:
    """The groups of which channels can go: sizes of slices and splits that a network keeps as numbers do not change."""
    if _can_go(model, groups, size):
        return groups
    alone = [one for one in groups if _can_go(model, [one], size)]
    return alone if _can_go(model, alone, size) else []


def _can_go(model: nn.Module, groups: Sequence[Group], size: int) -> bool:
    """Whether the network computes without every other channel, and without those of the first quarter."""
    others = [list(range(0, group.count, 2)) for group in groups]
    first = [list(range(math.ceil(group.count / 4))) for group in groups]
    for chosen in (others, first):
        try:
            cut_channels(copy.deepcopy(model), groups, chosen, size)
        except OctcError:
            return False
    return True


def cut_channels(model: nn.Module, groups: Sequence[Group], chosen: Sequence[Sequence[int]], size: int) -> ChannelStep | None:
    """Remove channels in place, and try the network on a picture of `size` pixels. Returns: the step; None where none go.

    Raises:
        OctcError: E413 the network does not compute any more.
    """
    cut = channel_step(groups, chosen)
    try:
        apply_steps(model, [] if cut is None else [cut])
        with torch.no_grad():
            model(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        text = f"{type(model).__name__} does not compute without these channels: {first_line(error)}"
        raise OctcError("OCT-E413", text, hint="leave --prune out, or choose another network", place="--prune") from error
    return cut


def _group(model: nn.Module, found: Any) -> Group | None:
    """A group of torch-pruning; None where it reaches a layer that loses no channels, or what the network answers."""
    names = {id(part): name for name, part in model.named_modules()}
    members, read = [], False
    for item in found:
        layer = item.dep.target.module
        if not any(True for _ in layer.parameters(recurse=False)):
            continue
        name = names.get(id(layer))
        if name is None or not can_lose(layer):
            return None
        gives = bool(found._DG.is_out_channel_pruning_fn(item.dep.handler))
        channel = tuple(map(int, item.root_idxs))
        members.append(Member(name, gives, channel, tuple(int(one) for one in item.idxs)))
        read = read or not gives
    count = len(set(members[0].channel)) if members else 0
    return Group(count, tuple(members)) if read and count > 1 else None


def importance(model: nn.Module, groups: Sequence[Group], batches: Labelled) -> list[torch.Tensor]:
    """The importance of every channel, float64 [count] a group; the network is left as it was, but for its gradients (none).

    batches: normalised images [N, 3, H, W] and class indices [N], about eight at a time.
    """
    flags = [(one, one.requires_grad) for one in model.parameters()]
    model.eval().requires_grad_(True)
    totals = [torch.zeros(group.count, dtype=torch.float64) for group in groups]
    seen = 0
    for images, labels in batches:
        model.zero_grad(set_to_none=True)
        with torch.enable_grad():
            functional.cross_entropy(model(images), labels).backward()
        totals = [total + _effect(model, group) ** 2 for group, total in zip(groups, totals, strict=True)]
        seen += 1
    model.zero_grad(set_to_none=True)
    for one, flag in flags:
        one.requires_grad_(flag)
    return [total / max(seen, 1) for total in totals]


def channel_macs(model: nn.Module, groups: Sequence[Group], size: int) -> list[torch.Tensor]:
    """Multiply-accumulates of one [3, size, size] image that go with a channel, float64 [count] a group, as the network is now.

    Its filters in the layers that give it, and what the layers behind read of it.
    """
    named = {name: part for name, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}
    macs = layer_macs(model, size)
    return [_cost(group, named, macs) for group in groups]


def importance_per_mac(model: nn.Module, groups: Sequence[Group], batches: Labelled, size: int) -> list[torch.Tensor]:
    """`importance` of every channel, divided by its `channel_macs`: float64 [count] a group."""
    macs = channel_macs(model, groups, size)
    return [found / cost.clamp(min=1) for found, cost in zip(importance(model, groups, batches), macs, strict=True)]


def _cost(group: Group, layers: Mapping[str, nn.Module], macs: Mapping[str, int]) -> torch.Tensor:
    total = torch.zeros(group.count, dtype=torch.float64)
    for member in {one.name: one for one in group.members if one.name in layers}.values():  # a depthwise one gives and reads
        layer: Any = layers[member.name]
        given, read = layer.weight.shape[0], layer.weight.shape[1] * getattr(layer, "groups", 1)
        each = torch.full((len(member.channel),), macs[member.name] / (given if member.gives else read), dtype=torch.float64)
        total.index_add_(0, torch.tensor(member.channel), each)
    return total


def _effect(model: nn.Module, group: Group) -> torch.Tensor:
    """g * w of each channel, summed over the layers that give it: [count], float64."""
    given = [(one, model.get_submodule(one.name)) for one in group.members if one.gives]
    norms = [pair for pair in given if isinstance(pair[1], nn.BatchNorm2d)]
    total = torch.zeros(group.count, dtype=torch.float64)
    for member, layer in norms or given:
        own = torch.zeros(len(next(layer.parameters())), dtype=torch.float64)
        for values in layer.parameters(recurse=False):
            if values.grad is not None:
                own += (
                    (values.detach() * values.grad).double().flatten(1).sum(1).cpu()
                    if values.ndim > 1
                    else (values.detach() * values.grad).double().cpu()
                )
        total.index_add_(0, torch.tensor(member.channel), own[list(member.index)])
    return total


def choose_channels(scores: Sequence[torch.Tensor], share: float) -> list[list[int]]:
    """The channels of each group that go: those of all groups with the lowest scores, about `share` of their number.

    A group keeps at least a quarter of its channels, and (from sixteen on) a multiple of eight, which is what kernels take.

    Raises:
        OctcError: E104 a share that is not above 0 and at most 0.75.
    """
    check_share(share)
    limits = [_most(len(one)) for one in scores]
    wanted = round(share * sum(map(len, scores)))
    order = sorted((float(value), group, channel) for group, one in enumerate(scores) for channel, value in enumerate(one))
    chosen: list[list[int]] = [[] for _ in scores]
    for _, group, channel in order:
        if wanted and len(chosen[group]) < limits[group]:
            chosen[group].append(channel)
            wanted -= 1
    return [sorted(one[: _rounded(len(values), len(one))]) for one, values in zip(chosen, scores, strict=True)]


def choose_evenly(scores: Sequence[torch.Tensor], share: float) -> list[list[int]]:
    """The channels of each group that go: the least important ones of that group, the same share of every one.

    A group keeps what `choose_channels` lets it keep.

    Raises:
        OctcError: E104 as `choose_channels`.
    """
    check_share(share)
    going = [_rounded(len(one), min(round(share * len(one)), _most(len(one)))) for one in scores]
    return [sorted(one.argsort(stable=True)[:count].tolist()) for one, count in zip(scores, going, strict=True)]


def check_share(share: float) -> None:
    """Refuse (E104) a share of channels that no network can lose."""
    if not 0 < share <= MOST:
        raise OctcError("OCT-E104", f"share of channels {share:g}", hint=f"above 0, at most {MOST}", place="--prune")


def _most(count: int) -> int:
    return count - max(1, math.ceil((1 - MOST) * count))


def _rounded(count: int, removed: int) -> int:
    """How many go of `removed`, so that a multiple of `ROUND` stays; none where less than one lot would."""
    if count < 2 * ROUND:
        return removed
    return max(0, count - -(-(count - removed) // ROUND) * ROUND)


def channel_step(groups: Sequence[Group], chosen: Sequence[Sequence[int]]) -> ChannelStep | None:
    """The channels that go, as data: layers with the same indices stand together. None where none go."""
    alike: dict[tuple[int, ...], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for group, channels in zip(groups, chosen, strict=True):
        going = set(channels)
        for member in group.members if going else ():
            removed = tuple(sorted(i for c, i in zip(member.channel, member.index, strict=True) if c in going))
            names = alike[removed][0 if member.gives else 1]
            if member.name not in names:
                names.append(member.name)
    found = [Coupled(removed=list(removed), out=out, into=into) for removed, (out, into) in alike.items()]
    return ChannelStep(groups=found) if found else None


def removed_share(groups: Sequence[Group], chosen: Sequence[Sequence[int]]) -> float:
    """The share of the channels that go."""
    return sum(map(len, chosen)) / sum(group.count for group in groups)
