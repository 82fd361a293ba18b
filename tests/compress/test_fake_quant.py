from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from octc.compress.calibrate import observe, set_ranges
from octc.compress.fake_quant import ActivationQuantiser, QuantConv2d, sampled
from octc.core.errors import OctcError


class One(nn.Module):
    """A single quantiser as a network."""

    def __init__(self) -> None:
        super().__init__()
        self.quantiser = ActivationQuantiser("input")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.quantiser(x)
        return y


def test_activation_grid_rounds_half_to_even_and_clips() -> None:
    quantiser = ActivationQuantiser("input")
    quantiser.scale.fill_(0.5)
    quantiser.mode = "on"
    x = torch.tensor([0.25, 0.75, -0.25, 1.2, 100.0, -100.0], requires_grad=True)
    y = quantiser(x)
    assert y.tolist() == [0.0, 1.0, 0.0, 1.0, 63.5, -64.0]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1, 1, 0, 0]  # straight through inside the range, nothing outside


def test_weight_codes_are_symmetric_per_channel_and_match_the_fake_weight() -> None:
    torch.manual_seed(1)
    conv = QuantConv2d(nn.Conv2d(5, 7, 3))
    with torch.no_grad():
        conv.conv.weight[2] = 0
        conv.conv.weight[3] *= 1000
    codes, scale = conv.weight_codes()
    assert codes.dtype == torch.int8
    assert int(codes.min()) >= -63
    assert codes.abs().amax((1, 2, 3)).tolist() == [63, 63, 0, 63, 63, 63, 63]
    assert torch.equal(codes * scale.view(-1, 1, 1, 1), conv.quantised_weight().detach())
    assert float((conv.conv.weight.detach() - codes * scale.view(-1, 1, 1, 1)).abs().max()) <= float(scale.max()) / 2 * 1.0001


def test_weight_scale_follows_the_live_weight() -> None:
    conv = QuantConv2d(nn.Conv2d(2, 2, 1))
    before = conv.weight_scale()
    with torch.no_grad():
        conv.conv.weight *= 3
    assert torch.allclose(conv.weight_scale(), 3 * before)


@pytest.mark.parametrize("size", [7, 8, 15])
def test_same_padding_is_kept(size: int) -> None:
    from timm.layers.conv2d_same import Conv2dSame

    conv = Conv2dSame(3, 4, 5, stride=2)
    x = torch.randn(1, 3, size, size)
    assert torch.equal(QuantConv2d(conv)(x), conv(x))
    assert QuantConv2d(conv)(x).shape[-1] == (size + 1) // 2


@pytest.mark.parametrize(("observer", "low", "high"), [("max", 50.0, 50.0), ("percentile", 2.5, 6.0), ("mse", 2.5, 50.0)])
def test_observers_on_a_normal_tensor_with_an_outlier(observer: str, low: float, high: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8, 32, 32)
    x[0, 0, 0, 0] = -50
    network = One()
    observe(network, lambda: [x[:2], x[2:]])
    set_ranges(network, observer)
    top = float(network.quantiser.scale) * 127
    assert low <= top * 1.0001
    assert top <= high * 1.0001


def test_mse_observer_beats_the_maximum_in_squared_error() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8, 32, 32)
    x[0, 0, 0, 0] = -50
    errors = {}
    for observer in ("max", "mse"):
        network = One()
        observe(network, lambda: [x])
        set_ranges(network, observer)
        network.quantiser.mode = "on"
        errors[observer] = float(functional.mse_loss(network(x), x))
    assert errors["mse"] < errors["max"]


def test_calibration_is_the_same_twice() -> None:
    x = torch.randn(6, 16, 96, 96)
    scales = []
    for _ in range(2):
        network = One()
        observe(network, lambda: x.split(2))
        set_ranges(network, "percentile")
        scales.append(float(network.quantiser.scale))
    assert scales[0] == scales[1] > 0


def test_histogram_sample_takes_every_channel_alike() -> None:
    x = torch.arange(112).view(1, 112, 1, 1).expand(1, 112, 64, 64).contiguous(memory_format=torch.channels_last)
    share = torch.bincount(sampled(x), minlength=112) / (64 * 64)
    assert float(share.min()) > 0.1
    assert float(share.max()) < 1.2 * float(share.min())


def test_no_images_and_not_finite_activations_are_refused() -> None:
    with pytest.raises(OctcError) as caught:
        observe(One(), list)
    assert caught.value.code == "OCT-E214"
    for bad in (float("nan"), float("inf")):
        with pytest.raises(OctcError) as caught:
            observe(One(), lambda: [torch.tensor([[[[1.0, bad]]]])])  # noqa: B023
        assert caught.value.code == "OCT-E701"


def test_tensor_that_is_always_zero_gets_a_usable_scale() -> None:
    network = One()
    observe(network, lambda: [torch.zeros(1, 2, 4, 4)])
    set_ranges(network, "mse")
    assert float(network.quantiser.scale) == pytest.approx(1 / 127)
