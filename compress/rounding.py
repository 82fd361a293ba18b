"""Rounding of weights that lets later weights make up for the error of earlier ones (GPTQ), one convolution at a time.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", arXiv 2210.17323,
algorithm 1, on the columns that a convolution sees; each layer is solved on the float network's own inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional

from octc.compress.fake_quant import QuantConv2d
from octc.compress.placement import convolutions, set_mode

DAMP = 0.1  # of the mean diagonal, added to it: keeps what few images do not show from deciding
PLACES = 400  # of an image's positions at most that a layer's second moments are taken at
NEAR = 0.4  # of a step that a weight may lie from its code's middle: it keeps its code when FP16 rounds the scale
COLUMN = 1e6  # multiplications in the time that one column takes beside the factorisations
BLOCK = 64  # columns whose error is carried on at once
TRIANGLE = 256  # rows of a triangle that is inverted in one piece


Heard = Callable[[int, int, float], None]  # units of work that are done, of how many, and the share of the whole work


def round_with_compensation(
    module: nn.Module, batches: Callable[[], Iterable[torch.Tensor]], heard: Heard | None = None
) -> None:
    """Move the weights of every quantised convolution to codes that change its outputs least.

    The scales stay as they are (each channel's largest weight keeps its code), and a weight stays near where it was, so that
    rounding to nearest finds the code and tuning can still change it. `plain` keeps the float weight.

    Args:
        module: a network that `placement.prepare` made, with scales in its weights alone (no learned steps).
        batches: normalised float images [N, 3, H, W], run once with all quantisers off.
        heard: is told of every layer: how many are done, of how many, and the share of the work that they were.
    """
    moments: dict[str, torch.Tensor] = {}
    handles = [conv.register_forward_pre_hook(_second_moments(moments, name)) for name, conv in convolutions(module).items()]
    set_mode(module, "off")
    try:
        with torch.no_grad():
            for batch in batches():
                module(batch)
    finally:
        for handle in handles:
            handle.remove()
    layers = {name: conv for name, conv in convolutions(module).items() if name in moments}
    work = [_work(moments[name]) for name in layers]
    for k, (name, conv) in enumerate(layers.items(), 1):
        plain = conv.conv.weight.detach().clone()
        conv.conv.weight.data.copy_(solved(conv, moments.pop(name)))
        conv.plain = plain
        if heard is not None:
            heard(k, len(layers), sum(work[:k]) / sum(work))


def _work(moments: torch.Tensor) -> float:
    """What a layer takes to solve, in no unit: its factorisations (cubic), and what is done for every column."""
    groups, count, _ = moments.shape
    return groups * float(count) ** 3 + COLUMN * count


def remember_floats(module: nn.Module, floats: nn.Module) -> None:
    """The float weights of a rounded network, from the network that it was made of (both as `placement.prepare` makes them)."""
    known = convolutions(floats)
    for name, conv in convolutions(module).items():
        conv.plain = known[name].conv.weight.detach().clone()


def forget_floats(module: nn.Module, back: Iterable[str] = ()) -> None:
    """Drop the float weights; the layers `back` compute with theirs from now on."""
    for name, conv in convolutions(module).items():
        if conv.plain is not None and name in back:
            conv.conv.weight.data.copy_(conv.plain)
        conv.plain = None


def _second_moments(store: dict[str, torch.Tensor], name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, QuantConv2d)
        found = columns(layer, inputs[0])
        total = found @ found.transpose(1, 2)
        if name in store:
            store[name] += total
        else:
            store[name] = total

    return hook


def columns(layer: QuantConv2d, x: torch.Tensor) -> torch.Tensor:
    """float32 [groups, inputs of an output, positions]: what the convolution multiplies its weights with, at some positions."""
    conv = layer.conv
    bordered = layer.padded(x)
    places = math.prod((bordered if layer.same else x).shape[2:]) / math.prod(conv.stride)
    skip = max(1, math.ceil(math.sqrt(places / PLACES)))
    wide = [step * skip for step in conv.stride]
    cut = functional.unfold(bordered.float(), conv.kernel_size, conv.dilation, 0, wide)  # type: ignore[arg-type]
    found: torch.Tensor = cut.unflatten(1, (conv.groups, -1)).permute(1, 2, 0, 3).flatten(2)
    return found


def factor_of_inverse(h: torch.Tensor) -> torch.Tensor:
    """Upper triangles U [groups, n, n] with inverse(h) = U' U, for positive definite h [groups, n, n].

    With h = R R' for an upper triangle R (the Cholesky factor of h from its last row to its first), U is the inverse of R: one
    factorisation and a triangle's inverse, half of the work of inverting h and factorising that.
    """
    return _inverse(torch.linalg.cholesky(h.flip(1, 2)).flip(1, 2))


def _inverse(r: torch.Tensor) -> torch.Tensor:
    """Of upper triangles [groups, n, n], by quarters."""
    count = r.shape[2]
    if count <= TRIANGLE:
        small: torch.Tensor = torch.linalg.solve_triangular(r, torch.eye(count, dtype=r.dtype).expand_as(r), upper=True)
        return small
    half, out = count // 2, torch.zeros_like(r)
    first, second = r[:, :half, :half], r[:, half:, half:]
    out[:, :half, :half], out[:, half:, half:] = _inverse(first), _inverse(second)
    beside = torch.linalg.solve_triangular(second, r[:, :half, half:], upper=True, left=False)
    out[:, :half, half:] = -torch.linalg.solve_triangular(first, beside, upper=True)
    return out


def solved(layer: QuantConv2d, moments: torch.Tensor) -> torch.Tensor:
    """The weight moved to its code, float32, for second moments [groups, inputs, inputs] of its columns."""
    weight, groups = layer.conv.weight.detach().cpu().float(), layer.conv.groups
    scale = layer.weight_scale().cpu().view(groups, -1, 1)
    given = weight.reshape(groups, len(weight) // groups, -1)
    left, largest = given.clone(), given.abs().argmax(dim=2, keepdim=True)
    count = left.shape[2]
    h = moments.cpu().double()
    damp = DAMP * h.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    h = h + damp.view(-1, 1, 1) * torch.eye(count, dtype=torch.float64)
    carry = factor_of_inverse(h).float()
    done = torch.empty_like(left)
    heights, largest = scale[..., 0], largest[..., 0]
    for start in range(0, count, BLOCK):
        end = min(start + BLOCK, count)
        block = left[..., start:end].transpose(1, 2).contiguous()  # [groups, columns, outputs]: a column lies in one piece
        errors, own = torch.empty_like(block), carry[:, start:end, start:end]
        for k in range(end - start):
            column, plain = block[:, k], given[..., start + k]
            code = torch.round(column / heights).clamp(-layer.widest, layer.widest)
            value = torch.where(largest == start + k, plain, code * heights)
            done[..., start + k] = value
            errors[:, k] = (column - value) / own[:, k, k, None]
            block[:, k + 1 :] -= errors[:, k, None] * own[:, k, k + 1 :, None]
        left[..., end:] -= errors.transpose(1, 2).contiguous() @ carry[:, start:end, end:]
    near = done + torch.minimum(torch.maximum(given - done, -NEAR * scale), NEAR * scale)
    return near.reshape(weight.shape)
