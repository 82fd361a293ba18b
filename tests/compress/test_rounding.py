"""Rounding with compensation against numpy: on the grid, at the same scales, and nearer to the float layer's outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from octc.compress.fake_quant import WIDEST, QuantConv2d
from octc.compress.placement import convolutions, prepare, set_mode
from octc.compress.rounding import DAMP, columns, round_weights, solved

LAYERS = {
    "pointwise": lambda: nn.Conv2d(96, 24, 1),
    "depthwise": lambda: nn.Conv2d(12, 12, 3, padding=1, groups=12),
    "strided": lambda: nn.Conv2d(6, 10, 3, stride=2, padding=1),
    "grouped": lambda: nn.Conv2d(8, 12, (3, 5), padding=(1, 2), dilation=(1, 1), groups=4),
    "same": lambda: Conv2dSame(6, 10, 3, stride=2),
}


def images_like(channels: int) -> torch.Tensor:
    """Inputs whose channels and neighbours go together, as a network's do (independent ones leave nothing to make up for)."""
    torch.manual_seed(1)
    smooth = nn.functional.interpolate(torch.randn(6, 3, 5, 5), size=(16, 16), mode="bilinear")
    shared = smooth.repeat(1, channels // 3 + 1, 1, 1)[:, :channels]
    return (shared + 0.1 * torch.randn(6, channels, 16, 16)).relu()


@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_of_the_layer_move_less_than_with_nearest_codes(kind: str) -> None:
    torch.manual_seed(0)
    layer = QuantConv2d(LAYERS[kind]())
    x = images_like(layer.conv.in_channels)
    with torch.no_grad():
        wanted, nearest = layer.convolve(x, layer.conv.weight), layer.convolve(x, layer.quantised_weight())
        found = columns(layer, x)
        weight = solved(layer, found @ found.transpose(1, 2))
        after = layer.convolve(x, weight)
        scale = layer.weight_scale()
        layer.conv.weight.copy_(weight)
    assert torch.equal(layer.weight_scale(), scale), "the largest weight of a channel keeps its code"
    codes = weight.flatten(1) / scale[:, None]
    assert torch.allclose(codes, codes.round(), atol=1e-4)
    assert codes.abs().max() <= WIDEST + 1e-3
    assert torch.allclose(layer.quantised_weight(), weight, atol=1e-6), "rounding to nearest changes nothing any more"
    assert float(((after - wanted) ** 2).mean()) < 0.8 * float(((nearest - wanted) ** 2).mean())


def test_columns_are_what_the_convolution_multiplies() -> None:
    for kind in ("depthwise", "strided", "grouped", "same"):
        torch.manual_seed(0)
        layer = QuantConv2d(LAYERS[kind]())
        x = images_like(layer.conv.in_channels)
        groups = layer.conv.groups
        weight = layer.conv.weight.detach().reshape(groups, layer.conv.out_channels // groups, -1)
        ours = (weight @ columns(layer, x)).unflatten(2, (len(x), -1)).permute(2, 0, 1, 3).flatten(1, 2)
        with torch.no_grad():
            theirs = layer.convolve(x, layer.conv.weight).flatten(2) - layer.conv.bias.view(1, -1, 1)
        assert torch.allclose(ours, theirs, atol=1e-5), kind


def test_is_the_published_algorithm_for_one_output() -> None:
    torch.manual_seed(0)
    layer = QuantConv2d(nn.Conv2d(70, 1, 1, bias=False))  # more columns than a block
    found = columns(layer, images_like(70))
    moments = (found @ found.transpose(1, 2)).double()
    w, scale = layer.conv.weight.detach().double().numpy().ravel(), float(layer.weight_scale())
    h = moments[0].numpy()
    h = h + DAMP * np.mean(np.diag(h)) * np.eye(70)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    expected, left = np.zeros(70), w.copy()
    for k in range(70):
        expected[k] = np.clip(np.round(left[k] / scale), -WIDEST, WIDEST) * scale
        left[k + 1 :] -= (left[k] - expected[k]) / upper[k, k] * upper[k, k + 1 :]
    expected[np.argmax(np.abs(w))] = w[np.argmax(np.abs(w))]
    same = np.isclose(solved(layer, moments.float()).numpy().ravel(), expected, atol=1e-4)
    assert same.mean() > 0.95, "float32 may tip a tie"


def test_inputs_that_are_always_zero_leave_finite_weights() -> None:
    layer = QuantConv2d(nn.Conv2d(4, 3, 1))
    assert torch.isfinite(solved(layer, torch.zeros(1, 4, 4))).all()


def test_a_network_is_rounded_layer_by_layer_and_its_quantisers_stay_as_they_were() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    module = prepare(network, 16)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x = images_like(3)
    round_weights(module, lambda: x.split(2))
    changed = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{name}.conv.weight" for name in convolutions(module)}
    set_mode(module, "on")
    assert all(not layer._forward_pre_hooks for layer in convolutions(module).values())
