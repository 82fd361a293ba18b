"""The steps of a simplification: what is wanted, in its order, and how each changes a network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from octc.compress.simplify.activation import activation_step, smooth_activations
from octc.compress.simplify.pruning import (
    MOST,
    Group,
    choose_channels,
    cut_channels,
    find_groups,
    importance_per_mac,
    removed_share,
)
from octc.core.errors import OctcError
from octc.imaging.preprocess import Preprocess, UInt8
from octc.schemas.simplified import Step
from octc.train.loop.averaging import refresh_norms
from octc.train.loop.evaluate import network_input
from octc.train.networks.simplified import apply_steps
from octc.train.networks.squeeze_excite import fold_gates, mean_gates

BATCH, FEW = 32, 8  # images at once: of gates, and of gradients (one square of the importance each)
LOT = 0.25  # of the channels that go before the network is tuned again
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)  # that are measured for a budget
ACTIVATION, GATES, CHANNELS = "activation", "squeeze-excite", "channels"
Latency = Callable[[nn.Module], float]  # milliseconds of an image through what is made of a network


@dataclass(frozen=True)
class Wanted:
    """One step. to: of an activation. share: of channels, of those that the network has then."""

    kind: str
    to: str = ""
    share: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """Images uint8 [N, C, S, S] and labels (class indices) [N], from the training part, and how images become input."""

    images: UInt8
    labels: Sequence[int]
    preprocess: Preprocess

    def batches(self) -> Iterator[torch.Tensor]:
        """Normalised float [<= 32, 3, S, S]."""
        return (self._input(start, BATCH) for start in range(0, len(self.images), BATCH))

    def labelled(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Normalised float [<= 8, 3, S, S] and labels."""
        for start in range(0, len(self.images), FEW):
            yield self._input(start, FEW), torch.tensor(list(self.labels[start : start + FEW]))

    def mixed(self) -> Iterator[torch.Tensor]:
        """The same as `batches`, in an order that is drawn once, so that no batch holds one class alone."""
        order = np.random.default_rng(0).permutation(len(self.images))
        whole = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        return (self._of(rows) for rows in whole if len(rows) > 1)

    def _input(self, start: int, count: int) -> torch.Tensor:
        return self._of(slice(start, start + count))

    def _of(self, rows: Any) -> torch.Tensor:
        return network_input(torch.from_numpy(np.array(self.images[rows])), self.preprocess)


@dataclass(frozen=True)
class Made:
    """A change that was made. facts: what is said of it: counts, layers that took a gate, share of the channels."""

    step: Step
    facts: dict[str, Any] = field(default_factory=dict)


def lots(share: float, lot: float = LOT) -> list[float]:
    """A share of channels in lots of about `lot`, each as a share of what is there then.

    >>> [round(one, 3) for one in lots(0.5)]
    [0.25, 0.333]
    """
    count = max(1, -(-round(1e6 * share) // round(1e6 * lot)))
    return [share / count / (1 - i * share / count) for i in range(count)]


def steps_wanted(activation: str | None, no_se: bool, shares: Sequence[float]) -> list[Wanted]:
    """The steps in their order."""
    wanted = [Wanted(ACTIVATION, to=activation)] if activation else []
    wanted += [Wanted(GATES)] if no_se else []
    return [*wanted, *(Wanted(CHANNELS, share=share) for share in shares)]


def check_convolutional(model: nn.Module) -> None:
    """Refuse a network with attention (OctcError E413): its channels hang together otherwise, and INT8 is not made of it."""
    for name, part in model.named_modules():
        if isinstance(part, nn.MultiheadAttention) or isinstance(getattr(part, "qkv", None), nn.Module):
            text = f"{type(model).__name__} has attention ({name}): octc simplify is for convolutional networks"
            raise OctcError("OCT-E413", text, hint="choose a convolutional student (octc list recipes)")


def preview(model: nn.Module, wanted: Sequence[Wanted], size: int) -> dict[str, Any]:
    """What the steps will find in a network, told from a picture of noise: counts, and every refusal, before any work.

    Raises:
        OctcError: E104 another activation or a share out of range, E413 there is nothing to change, E901 torch-pruning.
    """
    check_convolutional(model)
    found: dict[str, Any] = {}
    noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    for one in wanted:
        if one.kind == ACTIVATION:
            found["activations"] = len(activation_step(model, one.to).modules)
        elif one.kind == GATES:
            found["gates"] = len(mean_gates(model, lambda: [noise]))
            if not found["gates"]:
                fold_gates(copy.deepcopy(model), lambda: [noise])  # it refuses, in its own words
        elif one.kind == CHANNELS and "channels" not in found:
            found["channels"] = sum(group.count for group in find_groups(copy.deepcopy(model), size))
        if one.kind == CHANNELS and not 0 < one.share <= MOST:
            choose_channels([], one.share)
    return found


def make_step(model: nn.Module, one: Wanted, calibration: Calibration, *, refresh: bool = True) -> Made:
    """Change a network in place by one step.

    refresh: the statistics of its batch norms are estimated anew on the calibration images, as what they see has changed.

    Raises:
        OctcError: E104 a share out of range; E413 there is nothing to change.
    """
    made = _change(model, one, calibration)
    if refresh:
        refresh_norms(model, calibration.mixed())
    return made


def _change(model: nn.Module, one: Wanted, calibration: Calibration) -> Made:
    if one.kind == ACTIVATION:
        was = smooth_activations(model)
        step = activation_step(model, one.to)
        apply_steps(model, [step])
        names = {name: sum(kind == name for kind in was.values()) for name in sorted(set(was.values()))}
        return Made(step, {"replaced": names, "by": one.to})
    if one.kind == GATES:
        folded = fold_gates(model, calibration.batches)
        assert folded.step is not None
        return Made(folded.step, {"removed": len(folded.into), "into": folded.into, "stay": folded.kept})
    groups = find_groups(model, calibration.preprocess.size)
    chosen = choose_channels(_scores(model, groups, calibration), one.share)
    cut = cut_channels(model, groups, chosen, calibration.preprocess.size)
    if cut is None:
        text = f"a share of {one.share:.3f} removes no channel: layers keep a multiple of 8"
        raise OctcError("OCT-E413", text, hint="a larger --prune", place="--prune")
    facts = {"share": round(removed_share(groups, chosen), 4), "channels": sum(group.count for group in groups)}
    return Made(cut, {**facts, "removed": sum(map(len, chosen))})


def _scores(model: nn.Module, groups: Sequence[Group], calibration: Calibration) -> list[torch.Tensor]:
    """What channels are chosen by, the lowest first."""
    return importance_per_mac(model, groups, calibration.labelled(), calibration.preprocess.size)


def share_within(
    model: nn.Module, calibration: Calibration, budget: float, latency: Latency
) -> tuple[float, list[dict[str, float]]]:
    """The smallest share of channels whose network is within a time, and what was measured on the way.

    Weights do not change a time, so the networks are cut and timed before any of them is tuned. Larger shares are taken to be
    quicker: of `SHARES` those are measured that halve what is left.

    Args:
        budget: milliseconds. latency: of a network, measured.

    Returns: the share (0 where nothing has to go), and rows of "share" and "ms".

    Raises:
        OctcError: E604 the largest share is too slow still.
    """
    rows = [{"share": 0.0, "ms": latency(model)}]
    if rows[0]["ms"] <= budget:
        return 0.0, rows
    groups = find_groups(model, calibration.preprocess.size)
    scores = _scores(model, groups, calibration)
    low, high = 0, len(SHARES)  # SHARES[high:] are within, SHARES[:low] are not
    while low < high:
        middle = (low + high) // 2
        smaller = copy.deepcopy(model)
        cut_channels(smaller, groups, choose_channels(scores, SHARES[middle]), calibration.preprocess.size)
        rows.append({"share": SHARES[middle], "ms": latency(smaller)})
        low, high = (low, middle) if rows[-1]["ms"] <= budget else (middle + 1, high)
    if low == len(SHARES):
        text = f"{rows[-1]['ms']:.2f} ms with {100 * SHARES[-1]:.1f} % of the channels removed, {budget:g} ms are allowed"
        raise OctcError("OCT-E604", text, hint="a larger --budget, a smaller --size or another student", place="--budget")
    return SHARES[low], rows
