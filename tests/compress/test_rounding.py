"""Rounding with compensation against numpy: on the grid, at the same scales, and nearer to the float layer's outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from octc.compress.calibrate import observe, set_ranges
from octc.compress.fake_quant import WIDEST, QuantConv2d
from octc.compress.placement import convolutions, prepare, set_mode
from octc.compress.rounding import (
    BLOCK,
    DAMP,
    NEAR,
    TRIANGLE,
    columns,
    factor_of_inverse,
    forget_floats,
    remember_floats,
    round_with_compensation,
    solved,
)
from octc.export.onnx.encoding import ENCODINGS, encode

LAYERS = {
    "pointwise": lambda: nn.Conv2d(96, 24, 1),
    "depthwise": lambda: nn.Conv2d(12, 12, 3, padding=1, groups=12),
    "strided": lambda: nn.Conv2d(6, 10, 3, stride=2, padding=1),
    "grouped": lambda: nn.Conv2d(8, 12, (3, 5), padding=(2, 2), dilation=(2, 1), groups=4),
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
        scale, before = layer.weight_scale(), layer.conv.weight.clone()
        layer.conv.weight.copy_(weight)
        after = layer.convolve(x, layer.quantised_weight())
        layer.half_scales = True
        same = layer.weight_codes()[0]
        layer.half_scales = False
    assert torch.equal(layer.weight_scale(), scale), "the largest weight of a channel keeps its code"
    steps = weight.flatten(1) / scale[:, None]
    inside = (steps - steps.round()).abs()[weight.flatten(1).abs() < WIDEST * scale[:, None]]
    assert inside.max() <= NEAR + 1e-4, "tuning can change any code"
    assert torch.equal(same, layer.weight_codes()[0]), "with scales that FP16 holds too"
    assert (weight - before).abs().max() < 6 * scale.max(), "a weight stays near where it was"
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
        code = np.clip(np.round(left[k] / scale), -WIDEST, WIDEST)
        expected[k] = w[k] / scale if k == np.argmax(np.abs(w)) else code
        left[k + 1 :] -= (left[k] - expected[k] * scale) / upper[k, k] * upper[k, k + 1 :]
    same = np.isclose(np.round(solved(layer, moments.float()).numpy().ravel() / scale), np.round(expected))
    assert same.mean() > 0.95, "float32 may tip a tie"


@pytest.mark.parametrize(("groups", "count"), [(1, 1), (7, 9), (2, TRIANGLE + 1), (1, 4 * TRIANGLE + 3)])
def test_the_factor_of_the_inverse_is_numpys(groups: int, count: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(groups, count, 2 * count, dtype=torch.float64)
    h = x @ x.transpose(1, 2) / count + DAMP * torch.eye(count, dtype=torch.float64)
    expected = np.linalg.cholesky(np.linalg.inv(h.numpy())).swapaxes(1, 2)
    found = factor_of_inverse(h).numpy()
    assert np.array_equal(found, np.triu(found))
    assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()


def by_columns(layer: QuantConv2d, moments: torch.Tensor) -> torch.Tensor:
    """The algorithm a column at a time in the layer's own layout, whose bits are kept."""
    weight, groups = layer.conv.weight.detach().float(), layer.conv.groups
    scale = layer.weight_scale().view(groups, -1, 1)
    given = weight.reshape(groups, len(weight) // groups, -1)
    left, largest, count = given.clone(), given.abs().argmax(dim=2, keepdim=True), given.shape[2]
    h = moments.double()
    damp = DAMP * h.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    h = h + damp.view(-1, 1, 1) * torch.eye(count, dtype=torch.float64)
    carry = factor_of_inverse(h).float()
    done = torch.empty_like(left)
    for start in range(0, count, BLOCK):
        end = min(start + BLOCK, count)
        errors = torch.empty(*left.shape[:2], end - start)
        for k in range(start, end):
            column = left[..., k : k + 1]
            code = torch.round(column / scale).clamp(-layer.widest, layer.widest)
            done[..., k : k + 1] = torch.where(largest == k, given[..., k : k + 1], code * scale)
            errors[..., k - start : k - start + 1] = (column - done[..., k : k + 1]) / carry[:, None, k, k, None]
            left[..., k + 1 : end] -= errors[..., k - start : k - start + 1] * carry[:, None, k, k + 1 : end]
        left[..., end:] -= errors @ carry[:, start:end, end:]
    return (done + torch.minimum(torch.maximum(given - done, -NEAR * scale), NEAR * scale)).reshape(weight.shape)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_layout_of_the_work_changes_no_bit(kind: str) -> None:
    torch.manual_seed(0)
    layer = QuantConv2d(LAYERS[kind]())
    found = columns(layer, images_like(layer.conv.in_channels))
    moments = found @ found.transpose(1, 2)
    assert torch.equal(solved(layer, moments), by_columns(layer, moments))


def test_every_layer_is_told_with_its_share_of_the_work() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 64, 1), nn.Conv2d(64, 4, 3)).eval()
    heard: list[tuple[int, int, float]] = []
    round_with_compensation(prepare(network, 16), lambda: [images_like(3)], lambda *told: heard.append(told))
    assert [told[:2] for told in heard] == [(1, 3), (2, 3), (3, 3)]
    shares = [told[2] for told in heard]
    assert shares == sorted(shares)
    assert shares[1] < 0.1, "the last layer has the most columns"
    assert shares[2] == 1


def test_inputs_that_are_always_zero_leave_finite_weights() -> None:
    layer = QuantConv2d(nn.Conv2d(4, 3, 1))
    assert torch.isfinite(solved(layer, torch.zeros(1, 4, 4))).all()


def test_a_network_is_rounded_layer_by_layer_and_its_quantisers_stay_as_they_were() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    module = prepare(network, 16)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x = images_like(3)
    with torch.no_grad():
        wanted = network(x)
    round_with_compensation(module, lambda: x.split(2))
    changed = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{name}.conv.weight" for name in convolutions(module)}
    set_mode(module, "on")
    assert all(not layer._forward_pre_hooks for layer in convolutions(module).values())
    rounded = module(x)
    set_mode(module, "off")
    assert torch.allclose(module(x), wanted, atol=1e-5), "with its quantisers off it is the float network"
    forget_floats(module)
    assert not torch.allclose(module(x), wanted, atol=1e-5)
    remember_floats(module, prepare(network, 16))
    assert torch.allclose(module(x), wanted, atol=1e-5)
    first = next(iter(convolutions(module)))
    forget_floats(module, {first})
    assert torch.equal(convolutions(module)[first].conv.weight, before[f"{first}.conv.weight"])
    assert not torch.equal(rounded, wanted)


def test_a_layer_that_the_fallback_leaves_in_float_has_its_float_weight() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    module = prepare(network, 16)
    x = images_like(3)
    observe(module, lambda: x.split(2))
    set_ranges(module, "max")
    round_with_compensation(module, lambda: x.split(2))
    last = list(convolutions(module))[-1]
    written = encode(module, ENCODINGS["int8"], floats=frozenset({last}))
    assert torch.equal(convolutions(written)[last].conv.weight, network[2].weight)
    assert not torch.equal(convolutions(module)[last].conv.weight, network[2].weight), "the copy alone is changed"
