"""Fake quantisation: int8 weights per output channel, int8 activations per tensor, both symmetric, straight-through gradient.

Weights use codes of 7 bits, -63..63: x86 without VNNI adds pairs of uint8 * int8 products in 16 bits, which saturate with 8-bit
weights (255 * 127 * 2 > 32767) and then give other results than elsewhere. With 7 bits one file is right on every processor.
Where an engine's kernels always add in 32 bits, weights may use 8 bits (`QuantConv2d.widest`).

Rounding is half to even, the gradient is 1 inside the range and 0 outside (torch's own kernels). Biases stay float.
`learn_steps` turns the scales into parameters (LSQ, Esser et al. 2020, arXiv 1902.08153).
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn
from torch.nn import functional

WIDEST = 63  # code of a weight, 7 bits
WIDEST_OF_8_BITS = 127
BINS = 2048
STEP = 5
LARGE = 1 << 16  # values; smaller maps are taken whole
LEAST_SCALE = 1e-8
Code = TypeVar("Code", int, torch.Tensor)  # a bound of the codes


class OnGrid(nn.Module):
    """A module that only rounds its input to a grid: sign and lowest value of the tensor stay the same."""


class ActivationQuantiser(OnGrid):
    """Per-tensor quantiser: codes -128..127, one scale; symmetric (zero-point 0) unless the lowest value is known.

    Attributes:
        kind: "input" feeds a convolution; "residual" is a convolution's output on its way into an addition; "inner" is any
            other tensor (placements that quantise everything).
        mode: "off" passes through, "range" and "histogram" observe (and pass through), "on" quantises.
        scale: float32 scalar; 0 until calibrated. learned: it is a parameter.
        least: the lowest value that the tensor can have (0 behind a rectifier) or that matters, where the codes are spread from
            there to 127 * scale, as one engine's files have them; None: the grid is symmetric, and each engine spells it its
            own way.
    """

    scale: torch.Tensor

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.mode = "off"
        self.learned = False
        self.least: float | None = None
        self.register_buffer("scale", torch.zeros(()))
        self.amax = 0.0
        self.histogram = torch.zeros(BINS, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "on":
            learning = self.learned and torch.is_grad_enabled()
            scale, zero = spread(self.scale.abs().clamp_min(LEAST_SCALE) if learning else self.step(), self.least)
            if learning:
                return learned_step(x, scale, -128 - zero, 127 - zero)
            return torch.fake_quantize_per_tensor_affine(x, scale, zero, -128, 127)
        if self.mode == "range":
            low, high = torch.aminmax(x.detach())
            self.amax = float(torch.stack((-low, high, low.new_tensor(self.amax))).max())  # NaN stays NaN
        elif self.mode == "histogram" and self.amax > 0:
            counts = torch.histc(sampled(x.detach()).abs().float(), BINS, 0.0, self.amax)
            self.histogram += counts.cpu().double()
        return x

    def step(self) -> torch.Tensor:
        """The scale as it acts: one that is learned may have crossed zero."""
        return self.scale.detach().abs().clamp_min(LEAST_SCALE) if self.learned else self.scale


def spread(scale: torch.Tensor, least: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero-point (int32) of codes -128..127 from the lowest value of a tensor to 127 * scale.

    Symmetric where the lowest value is not known, or not above -128 * scale. Nothing here waits for a GPU.
    """
    if least is None:
        return scale, torch.zeros((), dtype=torch.int32, device=scale.device)
    wide = (127 * scale - least) / 255
    known = -128 * scale.detach() < least
    zero = torch.where(known, torch.round(-128 - least / wide.detach()), 0.0)
    return torch.where(known, wide, scale), zero.to(torch.int32)


class GateQuantiser(OnGrid):
    """The grid of a sigmoid's result that LiteRT's kernels have: codes 0..255, scale 1 / 256. Nothing is calibrated."""

    scale: torch.Tensor
    zero: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.mode = "off"
        self.register_buffer("scale", torch.tensor(1 / 256), persistent=False)
        self.register_buffer("zero", torch.zeros((), dtype=torch.int32), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, 255) if self.mode == "on" else x


def sampled(x: torch.Tensor) -> torch.Tensor:
    """About every fifth value of a map [N, C, H, W], as a vector: always the same ones, evenly over the channels.

    The step has no common factor with the number of values, so that it does not stay in one channel or column.
    """
    flat = x.permute(0, 2, 3, 1).reshape(-1)
    step = next(k for k in range(STEP, len(flat) + STEP + 1) if math.gcd(k, len(flat)) == 1)
    return flat if len(flat) < LARGE else flat[::step]


def learned_step(x: torch.Tensor, scale: torch.Tensor, low: Code, high: Code) -> torch.Tensor:
    """x on its grid, differentiable in x and in the scale (a scalar, or one that broadcasts over x).

    The scale's gradient is that of LSQ, equations 3 and 4: round(v) - v inside the range and the bound outside (v = x / s),
    times 1 / sqrt(values that share the scale * high).
    """
    damp = 1.0 / (x.numel() / scale.numel() * high) ** 0.5
    step: torch.Tensor = (scale - scale * damp).detach() + scale * damp
    v = torch.clamp(x / step, low, high)
    return ((torch.round(v) - v).detach() + v) * step


def learn_steps(module: nn.Module) -> None:
    """Turn the scales of activations into parameters, under the same names; give each weight a learned scale, `step`."""
    for part in module.modules():
        if isinstance(part, ActivationQuantiser) and not part.learned:
            scale = part.scale
            del part.scale
            part.scale = nn.Parameter(scale.detach().clone())
            part.learned = True
        elif isinstance(part, QuantConv2d) and part.step is None:
            part.step = nn.Parameter(part.weight_scale().clone())


def half_up(scale: torch.Tensor) -> torch.Tensor:
    """Positive scales rounded up to the next FP16 number (at least 6e-8), as float32, so that no code leaves its range."""
    near = scale.detach().float().clamp_min(2.0**-24).to(torch.float16)
    above = (near.view(torch.int16) + 1).view(torch.float16)  # the bits of positive numbers are in order
    return torch.where(near.float() < scale, above, near).float()


class QuantConv2d(nn.Module):
    """A convolution whose weight is fake-quantised: s_c = max(max|w_c| / widest, 1e-8), from the live weight at every step."""

    step: nn.Parameter | None
    plain: torch.Tensor | None

    def __init__(self, conv: nn.Conv2d, widest: int = WIDEST) -> None:
        super().__init__()
        self.conv = conv
        self.widest = widest
        self.same = isinstance(conv, Conv2dSame)
        self.enabled = False
        self.half_scales = False  # scales that FP16 holds exactly
        self.register_parameter("step", None)  # learned scales, where there are any
        self.register_buffer("plain", None, persistent=False)  # the float weight, where `conv.weight` was moved to other codes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolve(x, self.quantised_weight() if self.enabled else self.float_weight())

    def float_weight(self) -> torch.Tensor:
        """The weight of the layer in float."""
        return self.conv.weight if self.plain is None else self.plain

    def convolve(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The convolution with another weight, padded as the network pads."""
        conv = self.conv
        if self.same or conv.padding_mode != "zeros":
            return functional.conv2d(self.padded(x), weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)
        return functional.conv2d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    def padded(self, x: torch.Tensor) -> torch.Tensor:
        """The input with its borders, as the convolution reads it; those of timm's tf_* networks depend on the input's size."""
        conv = self.conv
        if self.same:
            padded: torch.Tensor = pad_same(x, list(conv.kernel_size), list(conv.stride), list(conv.dilation))
            return padded
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        return functional.pad(x, conv._reversed_padding_repeated_twice, mode=mode)

    def weight_scale(self) -> torch.Tensor:
        """float32 [out channels]."""
        found = (
            self.conv.weight.detach().abs().amax(dim=(1, 2, 3)) / self.widest if self.step is None else self.step.detach().abs()
        )
        scale = found.clamp_min(LEAST_SCALE)
        return half_up(scale) if self.half_scales else scale

    def quantised_weight(self) -> torch.Tensor:
        """The weight on its int8 grid, as float, differentiable."""
        if self.step is not None and torch.is_grad_enabled():
            return learned_step(
                self.conv.weight, self.step.abs().clamp_min(LEAST_SCALE).view(-1, 1, 1, 1), -self.widest, self.widest
            )
        scale = self.weight_scale()
        zero = torch.zeros(len(scale), dtype=torch.int32, device=scale.device)
        return torch.fake_quantize_per_channel_affine(self.conv.weight, scale, zero, 0, -self.widest, self.widest)

    def weight_codes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """int8 codes like the weight (-widest..widest), and the scales."""
        scale = self.weight_scale()
        codes = torch.round(self.conv.weight.detach() / scale.view(-1, 1, 1, 1)).clamp(-self.widest, self.widest)
        return codes.to(torch.int8), scale
