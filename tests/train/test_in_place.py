"""Activations of a training write to new memory where that saves a copy, and nothing else changes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from octc.train.networks.in_place import COPIED, without_copies
from octc.train.networks.models import build_model
from tests.train import tiny


def _made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), kind(inplace=True), nn.Flatten(), nn.Linear(8 * 36, 2))


@pytest.mark.parametrize("kind", COPIED)
def test_values_and_gradients_are_the_same_to_the_bit(kind: type[nn.Module]) -> None:
    before = _made(kind)
    after = without_copies(copy.deepcopy(before))
    x = torch.linspace(-9, 9, 2 * 3 * 64).view(2, 3, 8, 8)
    for net in (before, after):
        net(x).square().sum().backward()
    assert torch.equal(before(x), after(x))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(before.parameters(), after.parameters(), strict=True))  # type: ignore[arg-type]
    assert [m.inplace for net in (before, after) for m in net.modules() if isinstance(m, kind)] == [True, False]


@pytest.mark.parametrize("kind", [nn.ReLU, nn.LeakyReLU])
def test_what_needs_no_copy_stays_in_place(kind: type[nn.Module]) -> None:
    assert [m.inplace for m in without_copies(_made(kind)).modules() if isinstance(m, kind)] == [True]


def test_a_training_has_no_activation_that_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[nn.Module] = []

    def kept(*words: Any, **more: Any) -> nn.Module:
        built.append(build_model(*words, **more))
        return built[-1]

    monkeypatch.setattr(tiny, "build_model", kept)
    tiny.train(tmp_path, epochs=1)
    acts = [m.inplace for m in built[0].modules() if isinstance(m, COPIED)]
    assert acts
    assert not any(acts)
