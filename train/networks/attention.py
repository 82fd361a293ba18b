"""Where a network looks: Grad-CAM of any convolutional network. (SFNet's own read-out is `SfNet.read_out`.)"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from octc.core.errors import OctcError


def last_map(model: nn.Module, x: torch.Tensor) -> str:
    """Name of the last module whose output is a map [N, C, h, w] of more than one place (E307 when there is none)."""
    seen: list[str] = []

    def note(name: str, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            seen.append(name)

    hooks = [
        m.register_forward_hook(lambda _m, _i, out, name=name: note(name, out)) for name, m in model.named_modules() if name
    ]
    try:
        with torch.no_grad():
            model(x[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise OctcError(
            "OCT-E307", "the network has no feature map to look at", hint="a convolutional network, or larger images"
        )
    return seen[-1]


def grad_cam(model: nn.Module, x: torch.Tensor, classes: torch.Tensor | None = None, layer: str | None = None) -> torch.Tensor:
    """Grad-CAM (Selvaraju et al. 2017) of normalised input [N, 3, H, W], in eval mode: maps [N, H, W] in 0..1.

    Args:
        classes: int64 [N], whose evidence is shown; the predicted ones without it.
        layer: name of the module whose map is weighted; the last map without it.
    """
    model.eval()
    kept: dict[str, torch.Tensor] = {}

    def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        kept["map"] = output

    hook = model.get_submodule(layer or last_map(model, x)).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(x.detach().requires_grad_(True))
    finally:
        hook.remove()
    chosen = logits.argmax(1) if classes is None else classes
    (slope,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), kept["map"])
    found = functional.relu((slope.mean((2, 3), keepdim=True) * kept["map"]).sum(1, keepdim=True)).detach()
    found = functional.interpolate(found, x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return found / found.amax((1, 2), keepdim=True).clamp_min(1e-12)
