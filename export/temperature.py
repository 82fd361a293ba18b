"""One temperature a network, fitted on the validation set and folded into its last layer: W / T, bias / T (Guo et al. 2017).

No operator is added to the graph and no prediction changes; the probabilities come out calibrated on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from octc.core.errors import OctcError
from octc.export.source import Select, Source
from octc.export.targets import Workshop
from octc.imaging.preprocess import Float32
from octc.runtimes.room import BATCH
from octc.stats.metrics import softmax
from octc.stats.temperature import Temperature, fit_temperature
from octc.train.loop.evaluate import logits_of

CLEAR, CLOSE = 1e-6, 1e-6  # margin from which a prediction must not change; largest change of a probability
FLOAT, QUANTISED = "float", "quantised"


def find_head(model: nn.Module, classes: int) -> nn.Linear | nn.Conv2d:
    """The layer that makes the logits.

    Raises:
        OctcError: E404 there is none with that many outputs.
    """
    found = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and m.weight.shape[0] == classes]
    if not found:
        text = f"{type(model).__name__} has no last layer that a temperature could be folded into"
        raise OctcError("OCT-E404", text, hint="octc export without --temperature; octc verify tells the temperature")
    return found[-1]


def fold(model: nn.Module, classes: int, temperature: float) -> None:
    """Divide the last layer's weights and bias, in place."""
    head = find_head(model, classes)
    with torch.no_grad():
        head.weight /= temperature
        if head.bias is not None:
            head.bias /= temperature


def fold_temperatures(shop: Workshop, select: Select) -> tuple[Select, dict[str, Temperature]]:
    """Fit and fold a temperature for the float network of a workshop and for its quantised one, each its own.

    Returns: the validation set with the logits of the folded float network, and the temperatures ("float", "quantised").

    Raises:
        OctcError: E102 several labels an image, E404 there is no last layer, or dividing it is not dividing the logits.
    """
    source, labels = shop.source, [s.label for s in select.samples]
    if source.checkpoint.recipe.get("task") == "multilabel":
        text = "one temperature is for classes that exclude each other, and this network's labels do not"
        raise OctcError("OCT-E102", text, hint="octc export without --temperature", place="--temperature")
    of_float, reference = _scaled(source, source.model, select.reference, select, labels)
    found = {FLOAT: of_float}
    if shop.quantised is not None:
        module = shop.quantised.module
        found[QUANTISED], _ = _scaled(source, module, _logits(source, module, select), select, labels)
    return replace(select, reference=reference), found


def temperature_facts(shop: Workshop, own: bool) -> dict[str, Any]:
    """What a manifest says of the temperature; nothing where none was asked for. own: of octc's quantised network."""
    found = shop.temperatures.get(QUANTISED if own else FLOAT)
    return {} if found is None else {"temperature": {"folded": found.value, **found.to_json()}}


def spell_temperatures(found: dict[str, Temperature]) -> str:
    """One line: of each network the temperature, or why there is none."""
    return ", ".join(
        f"{name} {one.value:.3f} (n={one.n})" if one.reason is None else f"{name} none: {one.reason}"
        for name, one in found.items()
    )


def _scaled(
    source: Source, model: nn.Module, before: Float32, select: Select, labels: Sequence[int]
) -> tuple[Temperature, Float32]:
    """The temperature of a network that answers `before` on the validation set, folded into it, and what it answers then."""
    found = fit_temperature(before, labels)
    if found.reason is not None:
        return found, before
    fold(model, len(source.checkpoint.classes), found.value)
    after = _logits(source, model, select)
    _check(before.astype(np.float64) / found.value, after.astype(np.float64))
    return found, after


def _check(expected: Any, after: Any) -> None:
    """Every clear prediction is the same, and every probability is that of the divided logits."""
    first, second = -np.sort(-expected, axis=1)[:, :2].T
    clear = first - second > CLEAR
    same = (expected.argmax(axis=1) == after.argmax(axis=1))[clear].all()
    change = np.abs(softmax(expected) - softmax(after)).max()
    if not same or change > CLOSE:
        text = f"dividing the last layer is not dividing the logits (a probability changes by {change:.1e})"
        raise OctcError("OCT-E404", text, hint="octc export without --temperature")


def _logits(source: Source, model: nn.Module, select: Select) -> Float32:
    found: Float32 = logits_of(model, select.images, source.checkpoint.preprocess, "cpu", batch=BATCH).numpy()
    return found
