"""Folding the norms of a frozen teacher changes nothing but the time; what cannot be folded is left as it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from octc.train.loop.averaging import batch_norms
from octc.train.networks.folded import folded
from octc.train.networks.models import build_model


def trained(model: nn.Module) -> nn.Module:
    """A network whose norms have statistics and weights as after a training."""
    generator = torch.Generator().manual_seed(1)
    for norm in batch_norms(model):
        for tensor, low, high in ((norm.running_mean, -0.3, 0.3), (norm.running_var, 0.5, 2.0), (norm.weight.data, 0.5, 1.5)):
            assert tensor is not None
            tensor.uniform_(low, high, generator=generator)
    return model.eval()


@pytest.mark.parametrize("name", ["test_efficientnet", "resnet18", "densenet121"])
def test_logits_stay_and_norms_behind_a_convolution_go(name: str) -> None:
    model = trained(build_model(name, 4))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    fast = folded(model, x)
    assert fast is not model
    kept, before = len(batch_norms(fast)), len(batch_norms(model))
    assert kept == 0 or (name == "densenet121" and kept < before)  # some norms of DenseNet stand behind a concatenation
    with torch.no_grad():
        other = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
        assert torch.allclose(model(other), fast(other), atol=1e-4, rtol=1e-3)
    assert not any(p.requires_grad for p in fast.parameters())


def test_a_network_without_norms_is_left_as_it_is() -> None:
    model = build_model("test_vit", 4)
    assert folded(model, torch.zeros(1, 3, 160, 160)) is model


class Twice(nn.Module):
    """Uses a convolution's output behind its norm and beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        return (self.norm(out) + out).mean((2, 3))


def test_a_convolution_that_is_used_elsewhere_is_not_folded() -> None:
    model = trained(Twice())
    assert folded(model, torch.randn(2, 3, 8, 8)) is model
