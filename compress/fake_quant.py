"""Fake quantisation: int8 weights per output channel, int8 activations per tensor, both symmetric, straight-through gradient.

Rounding is half to even, the gradient is 1 inside the range and 0 outside (torch's own kernels). Biases stay float.
"""

from __future__ import annotations

import math

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn
from torch.nn import functional

BINS = 4096
STEP = 5
LARGE = 1 << 16  # values; smaller maps are taken whole


class ActivationQuantiser(nn.Module):
    """Per-tensor symmetric quantiser: codes -128..127, zero-point 0, one scale.

    Attributes:
        kind: "input" feeds a convolution; "residual" is a convolution's output on its way into an addition.
        mode: "off" passes through, "range" and "histogram" observe (and pass through), "on" quantises.
        scale: float32 scalar; 0 until calibrated.
    """

    scale: torch.Tensor
    zero: torch.Tensor

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.mode = "off"
        self.register_buffer("scale", torch.zeros(()))
        self.register_buffer("zero", torch.zeros((), dtype=torch.int32), persistent=False)
        self.amax = 0.0
        self.histogram = torch.zeros(BINS, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "on":
            return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, -128, 127)
        if self.mode == "range":
            low, high = torch.aminmax(x.detach())
            self.amax = float(torch.stack((-low, high, low.new_tensor(self.amax))).max())  # NaN stays NaN
        elif self.mode == "histogram" and self.amax > 0:
            counts = torch.histc(sampled(x.detach()).abs().float(), BINS, 0.0, self.amax)
            self.histogram += counts.cpu().double()
        return x


def sampled(x: torch.Tensor) -> torch.Tensor:
    """Every fifth value or so of a map [N, C, H, W], 1-d: the same ones each time, and all channels alike.

    The step shares no factor with the number of values, so that it does not walk along one channel or column.
    """
    flat = x.permute(0, 2, 3, 1).reshape(-1)
    step = next(k for k in range(STEP, len(flat) + STEP + 1) if math.gcd(k, len(flat)) == 1)
    return flat if len(flat) < LARGE else flat[::step]


def half_up(scale: torch.Tensor) -> torch.Tensor:
    """Positive scales, rounded up to the next FP16 number (at least 6e-8), as float32: no code leaves its range by it."""
    near = scale.detach().float().clamp_min(2.0**-24).to(torch.float16)
    above = (near.view(torch.int16) + 1).view(torch.float16)  # the bits of positive numbers are in order
    return torch.where(near.float() < scale, above, near).float()


class QuantConv2d(nn.Module):
    """A convolution whose weight is fake-quantised: s_c = max(max|w_c| / 127, 1e-8), from the live weight at every step."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.same = isinstance(conv, Conv2dSame)
        self.enabled = False
        self.half_scales = False  # scales that FP16 holds exactly

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolve(x, self.quantised_weight() if self.enabled else self.conv.weight)

    def convolve(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The convolution with another weight, padded as the network pads."""
        conv = self.conv
        if self.same:
            return functional.conv2d(self.padded(x), weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)
        return functional.conv2d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    def padded(self, x: torch.Tensor) -> torch.Tensor:
        """TensorFlow's "same" padding, which depends on the input's size (timm's tf_* networks)."""
        conv = self.conv
        padded: torch.Tensor = pad_same(x, list(conv.kernel_size), list(conv.stride), list(conv.dilation))
        return padded

    def weight_scale(self) -> torch.Tensor:
        """float32 [out channels]."""
        scale = (self.conv.weight.detach().abs().amax(dim=(1, 2, 3)) / 127).clamp_min(1e-8)
        return half_up(scale) if self.half_scales else scale

    def quantised_weight(self) -> torch.Tensor:
        """The weight on its int8 grid, as float, differentiable."""
        scale = self.weight_scale()
        zero = torch.zeros(len(scale), dtype=torch.int32, device=scale.device)
        return torch.fake_quantize_per_channel_affine(self.conv.weight, scale, zero, 0, -128, 127)

    def weight_codes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """int8 codes like the weight (-127..127), and the scales."""
        scale = self.weight_scale()
        codes = torch.round(self.conv.weight.detach() / scale.view(-1, 1, 1, 1)).clamp(-127, 127).to(torch.int8)
        return codes, scale
