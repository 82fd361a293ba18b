"""A network of one's own made simpler (`octc.simplify`): what is changed is data, and the result an ordinary module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from octc.compress.ordinary import ordinary_copy, untie
from octc.compress.simplify.steps import (
    CHANNELS,
    Calibration,
    Latency,
    Wanted,
    make_step,
    preview,
    share_within,
    steps_wanted,
)
from octc.core.cells import plain_values, whole_number
from octc.core.errors import OctcError, shorten
from octc.datasets.calibration import check_count
from octc.imaging.preparing import prepare_pictures
from octc.imaging.preprocess import Preprocess
from octc.schemas.simplified import Step, steps_json
from octc.train.loop.evaluate import logits_of
from octc.train.networks.macs import count_macs
from octc.train.networks.models import parameter_count


@dataclass(frozen=True)
class Simplification:
    """Options of `octc.simplify`: the steps.

    Attributes:
        activation: "hard-swish" or "relu" replaces every SiLU, GELU and Mish module; None keeps them.
        no_se: remove squeeze-excite; its mean gates are folded into the neighbouring weights.
        prune: share of the channels to remove, above 0 and at most 0.75; None: none.
        budget_ms: choose that share: the smallest one with which the network is within this time, measured by `latency`.
        latency: function from a network to milliseconds; `octc.latency_of` makes one for INT8 on this machine.
        refresh: re-estimate batch-norm statistics on the calibration images after each step.
    """

    activation: str | None = None
    no_se: bool = False
    prune: float | None = None
    budget_ms: float | None = None
    latency: Latency | None = None
    refresh: bool = True

    def __post_init__(self) -> None:
        if self.prune is not None and self.budget_ms is not None:
            text = "prune and budget_ms both choose the share of channels that go"
            raise OctcError("OCT-E102", text, hint="leave out one of them", place="budget_ms")
        if (self.budget_ms is None) != (self.latency is None):
            text = "a budget is kept by measuring: budget_ms and latency belong together"
            raise OctcError("OCT-E102", text, hint="budget_ms=5, latency=octc.latency_of(preprocess)", place="budget_ms")
        if not (self.activation or self.no_se or self.prune is not None or self.budget_ms is not None):
            text = "nothing to simplify was named"
            hint = 'activation="hard-swish", no_se=True, prune=0.5 or budget_ms'
            raise OctcError("OCT-E102", text, hint=hint)


@dataclass(frozen=True)
class SimplifiedNetwork:
    """A network that was made simpler.

    Attributes:
        module: an ordinary module with ordinary weights, in eval mode.
        steps: the changes, as plain JSON data; `octc.rebuild_simplified` applies them to a network of the old structure.
        facts: for each step: counts, share of channels, MACs and parameters before and after, times.
    """

    module: nn.Module
    steps: list[dict[str, Any]]
    facts: list[dict[str, Any]] = field(default_factory=list)


def simplify_network(
    module: nn.Module,
    calibration: Sequence[Any],
    preprocess: Preprocess,
    wanted: Simplification,
    *,
    labels: Sequence[int] | None = None,
    tune: Callable[[nn.Module, str], None] | None = None,
    keep: Callable[[nn.Module, str], bool] | None = None,
) -> SimplifiedNetwork:
    """Simplify a trained network of your own: replace SiLU, fold squeeze-excite away, remove channels.

    Each step changes the network's outputs. `tune` retrains it after each step, and `keep` decides whether it is still good
    enough (for a run, `octc simplify RUN` distils from the unchanged student and its teacher, and judges with a gate).

    Args:
        module: normalised float32 [N, 3, S, S] -> logits float32 [N, K]; it is copied, never changed.
        calibration: at least 16 training images (paths or Pillow images), for mean gates and for the importance of channels.
        preprocess: size in pixels, channels, mean and std that the network was trained with.
        wanted: the steps.
        labels: class indices of the images; None: the network's own predictions.
        tune: called with the changed network and the step's name ("activation", "squeeze-excite", "channels"); trains it in
            place.
        keep: called with the same afterwards; if it returns False, the step is undone. None: every step is kept.

    Returns: the new module, the changes as data, and facts of each step ("kept" among them).

    Raises:
        OctcError: E413 nothing to change, or a network with attention; E104 an unknown activation or a share out of range; E214
            too few images; E604 no share of channels is fast enough; E901 torch-pruning is not installed; E201 and others an
            image cannot be read.

    >>> import numpy as np, octc
    >>> from PIL import Image
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    >>> images = [Image.fromarray(np.full((64, 64), 15 * i, np.uint8)) for i in range(16)]
    >>> wanted = octc.Simplification(activation="hard-swish")
    >>> small = octc.simplify(network, images, octc.Preprocess(size=64), wanted)
    >>> [(fact["step"], fact["kept"]) for fact in small.facts]
    [('activation', True)]
    """
    images = prepare_pictures(calibration, preprocess)
    check_count(len(images))
    current = ordinary_copy(module).requires_grad_(True)
    logits = logits_of(current, images, preprocess, "cpu")
    answered = logits.argmax(1).tolist() if labels is None else _indices(labels, len(images), logits.shape[1])
    known = Calibration(images, answered, preprocess)
    queue = steps_wanted(wanted.activation, wanted.no_se, [] if wanted.prune is None else [wanted.prune])
    preview(current, queue, preprocess.size)
    steps: list[Step] = []
    facts: list[dict[str, Any]] = []
    asked = (wanted.refresh, tune, keep)
    for one in queue:
        current = _one(current, one, known, asked, (steps, facts))
    if wanted.budget_ms is not None and wanted.latency is not None:
        share, rows = share_within(current, known, wanted.budget_ms, wanted.latency)
        if share:
            current = _one(current, Wanted(CHANNELS, share=share), known, asked, (steps, facts))
            facts[-1]["measured"] = rows
        else:
            facts.append({"step": CHANNELS, "kept": False, "share": 0.0, "measured": rows})
    return SimplifiedNetwork(current.eval(), steps_json(steps), facts)


def _indices(labels: Sequence[Any], images: int, classes: int) -> list[int]:
    """Labels as class indices (OctcError E706 for what is none, or not one an image)."""
    if len(labels) != images:
        text = f"{images} calibration images, {len(labels)} labels"
        raise OctcError("OCT-E706", text, hint="give one label an image", place="labels")
    found = [whole_number(one) for one in plain_values(labels)]
    if wrong := sorted({str(one) for one, k in zip(labels, found, strict=True) if k is None or not 0 <= k < classes}):
        text = f"labels that are no class index: {shorten(wrong)}"
        raise OctcError("OCT-E706", text, hint=f"whole numbers from 0 to {classes - 1}", place="labels")
    return [k for k in found if k is not None]


def rebuild_network(module: nn.Module, steps: Sequence[dict[str, Any]]) -> nn.Module:
    """Apply stored `SimplifiedNetwork.steps` to a fresh network of the original structure, ready for its weights.

    Args:
        module: the original structure, with any weights; it is copied. steps: as read from JSON.

    Returns: the simplified structure, whose state_dict fits that of `SimplifiedNetwork.module`.

    Raises:
        OctcError: E307 the steps belong to another network.

    >>> import numpy as np, octc
    >>> from PIL import Image
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    >>> images = [Image.fromarray(np.full((64, 64), 15 * i, np.uint8)) for i in range(16)]
    >>> wanted = octc.Simplification(activation="hard-swish")
    >>> small = octc.simplify(network, images, octc.Preprocess(size=64), wanted)
    >>> octc.rebuild_simplified(network, small.steps).load_state_dict(small.module.state_dict())
    <All keys matched successfully>
    """
    from octc.train.networks.simplified import simplify_stored

    plain = copy.deepcopy(module)
    untie(plain)
    return simplify_stored(plain, list(steps))


def _one(
    current: nn.Module,
    one: Wanted,
    known: Calibration,
    asked: tuple[bool, Any, Any],
    found: tuple[list[Step], list[dict[str, Any]]],
) -> nn.Module:
    """The network after a step, or as it was where the step is not kept."""
    (refresh, tune, keep), (steps, facts) = asked, found
    new = copy.deepcopy(current)
    made = make_step(new, one, known, refresh=refresh)
    if tune is not None:
        tune(new, one.kind)
        new.eval()
    kept = keep is None or bool(keep(new, one.kind))
    size = known.preprocess.size
    facts.append({"step": one.kind, "kept": kept, **made.facts, **sizes(current, new, size)})
    if not kept:
        return current
    steps.append(made.step)
    return new


def sizes(before: nn.Module, after: nn.Module, size: int) -> dict[str, list[int]]:
    """Parameters and multiply-accumulates of one image, before and after."""
    return {
        "parameters": [parameter_count(before), parameter_count(after)],
        "macs": [count_macs(before, size), count_macs(after, size)],
    }
