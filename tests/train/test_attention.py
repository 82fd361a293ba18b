"""Grad-CAM finds the place that decides."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from octc.core.errors import OctcError
from octc.train.networks.attention import grad_cam, last_map
from octc.train.networks.models import build_model


def corner_network() -> nn.Module:
    """Class 1 is the brightness of the picture, class 0 its darkness."""
    conv = nn.Conv2d(3, 2, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, :, 1, 1], conv.weight[1, :, 1, 1] = -1.0, 1.0
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_f73_the_bright_corner_is_shown() -> None:
    x = torch.zeros(2, 3, 16, 16)
    x[0, :, :4, :4] = 1.0
    x[1, :, 12:, 12:] = 1.0
    maps = grad_cam(corner_network(), x, torch.tensor([1, 1]))
    assert maps.shape == (2, 16, 16)
    assert float(maps[0, :4, :4].mean()) == pytest.approx(1.0)
    assert float(maps[0, 8:, 8:].max()) == 0.0
    assert int(maps[1].flatten().argmax()) // 16 >= 12


def test_evidence_for_another_class_lies_elsewhere() -> None:
    x = torch.full((1, 3, 16, 16), -1.0)
    x[:, :, :4, :4] = 1.0
    bright, dark = (grad_cam(corner_network(), x, torch.tensor([k]))[0] for k in (1, 0))
    assert float(bright[:4, :4].min()) > float(bright[6:, 6:].max())
    assert float(dark[6:, 6:].min()) > float(dark[:3, :3].max())


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_networks_of_timm(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, 4)
    x = torch.rand(2, 3, 64, 64)
    maps = grad_cam(model, x)
    assert maps.shape == (2, 64, 64)
    assert float(maps.min()) >= 0
    assert float(maps.max()) <= 1
    assert last_map(model, x)
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_network_without_maps_is_refused() -> None:
    with pytest.raises(OctcError, match="no feature map"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.rand(1, 3, 2, 2))
