"""Augmentation on the device, a batch at a time. Every draw depends on (seed, epoch, index of the image) alone.

So a resumed run, another batch size or another number of processes sees the same pictures, and teacher and student see the
same view. Geometry is one affine resampling (bilinear, black outside), then flips are part of it; intensity follows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from octc.train.recipes.config import Augment

DRAWS = 24


def draw(seed: int, epoch: int, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Uniform numbers in [0, 1), float32 [len(indices), DRAWS]: a counter-based generator keyed by image."""
    rows = [np.random.Generator(np.random.Philox(key=[seed, (epoch << 40) + int(i)])).random(DRAWS) for i in indices]
    return np.stack(rows).astype(np.float32)


def augment(images: torch.Tensor, uniform: torch.Tensor, how: Augment) -> torch.Tensor:
    """uint8 [N, C, H, W] and uniforms [N, DRAWS] -> float32 [N, C, H, W] in 0..255, not yet normalised."""
    u = uniform.to(images.device)
    out = images.to(torch.float32, copy=True)  # all that follows may write into it
    if how.rotate or how.shear or how.scale or how.translate or how.hflip or how.vflip:
        grid = functional.affine_grid(_matrices(u, how), list(out.shape), align_corners=False)
        shift = ((u[:, 18] < how.border).float() * 255.0).view(-1, 1, 1, 1)
        out = functional.grid_sample(out.sub_(shift), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        out.add_(shift)
    if how.brightness or how.contrast or how.gamma:
        _intensity(out, u, how)
    if len(rows := _rows(uniform[:, 11] < how.blur)):
        out[rows] = _soft(out[rows])
    if how.noise:
        out.mul_(_speckle(out, u).mul_(_column(u, 12) * how.noise).add_(1))
    if len(rows := _rows(uniform[:, 14] < how.erase)):
        out[rows] = out[rows].masked_fill(_boxes(out[rows], u[rows], how), 0)
    return out.clamp_(0, 255)


def _rows(chosen: torch.Tensor) -> torch.Tensor:
    """Numbers of the images that a step is made for."""
    return chosen.nonzero().flatten()


def _column(u: torch.Tensor, k: int) -> torch.Tensor:
    return u[:, k].view(-1, 1, 1, 1)


def _matrices(u: torch.Tensor, how: Augment) -> torch.Tensor:
    """Inverse affine matrices [N, 2, 3] for `affine_grid`."""
    s = u * 2 - 1
    angle, shear = s[:, 0] * how.rotate * torch.pi / 180, s[:, 1] * how.shear * torch.pi / 180
    zoom_x, zoom_y = 1 / (1 + s[:, 2] * how.scale), 1 / (1 + s[:, 3] * how.scale)
    flip_x = torch.where(u[:, 4] < how.hflip, -1.0, 1.0)
    flip_y = torch.where(u[:, 5] < how.vflip, -1.0, 1.0)
    cos, sin, tan = torch.cos(angle), torch.sin(angle), torch.tan(shear)
    top = torch.stack([cos * zoom_x * flip_x, (-sin + cos * tan) * zoom_x * flip_x, s[:, 6] * how.translate * 2], dim=1)
    bottom = torch.stack([sin * zoom_y * flip_y, (cos + sin * tan) * zoom_y * flip_y, s[:, 7] * how.translate * 2], dim=1)
    return torch.stack([top, bottom], dim=1)


def _intensity(out: torch.Tensor, u: torch.Tensor, how: Augment) -> None:
    """Brightness, contrast and gamma, in place."""
    gain = 1 + (_column(u, 8) * 2 - 1) * how.brightness
    spread = 1 + (_column(u, 9) * 2 - 1) * how.contrast
    # by rows first: the sum of one large picture would be split among the threads, that of several would not
    mean = out.mean(dim=3, keepdim=True).mean(dim=(1, 2), keepdim=True)
    out.sub_(mean).mul_(spread).add_(mean).mul_(gain).clamp_(0, 255)
    if how.gamma:
        powers = torch.exp((_column(u, 10) * 2 - 1) * how.gamma)
        # one picture at a time: threads cut a batch anywhere, and a power at the cut has other last bits
        for one, power in zip(out, powers, strict=True):
            one.div_(255).clamp_min_(1e-4).pow_(power).mul_(255)


def _soft(out: torch.Tensor) -> torch.Tensor:
    """Binomial 3 x 3 blur, the edge repeated: a convolution of one image alone has other last bits than one of a batch."""
    wide = functional.pad(out, (1, 1, 1, 1), mode="replicate")
    rows = wide[..., :-2, :] + 2 * wide[..., 1:-1, :] + wide[..., 2:, :]
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 16


def _speckle(out: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Unit-variance noise whose generator is seeded by each image's own draw."""
    fields = []
    for value in u[:, 13].cpu().numpy():
        generator = torch.Generator().manual_seed(int(value * (1 << 24)))
        fields.append(torch.randn(out.shape[1:], generator=generator))
    return torch.stack(fields).to(out.device)


def _boxes(out: torch.Tensor, u: torch.Tensor, how: Augment) -> torch.Tensor:
    """Boolean [N, 1, H, W]: the box of each of these images."""
    height, width = out.shape[2:]
    area = (0.02 + _column(u, 15) * max(how.erase_area - 0.02, 0.0)) * height * width
    ratio = torch.exp((_column(u, 16) * 2 - 1) * 1.2)  # 0.3 to 3.3
    tall, wide = torch.sqrt(area * ratio).clamp_max(height), torch.sqrt(area / ratio).clamp_max(width)
    y0, x0 = _column(u, 17) * (height - tall), _column(u, 19) * (width - wide)
    y = torch.arange(height, device=out.device).view(1, 1, -1, 1)
    x = torch.arange(width, device=out.device).view(1, 1, 1, -1)
    return (y >= y0) & (y < y0 + tall) & (x >= x0) & (x < x0 + wide)
