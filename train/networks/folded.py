"""A frozen network with its batch norms folded into the convolutions in front of them: the same function, fewer passes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from octc.train.loop.averaging import batch_norms

CLOSE = 1e-3  # largest difference of logits, as a share of the largest one


@torch.no_grad()
def folded(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """A copy of a network in eval mode with every norm folded that has a convolution's output, and nothing else, as its input.

    x: some input [N, 3, H, W]. Which norm follows which convolution is seen while it passes. A copy whose logits differ (a
    convolution's output that is used elsewhere as well) is not used: then the network itself comes back.
    """
    model.eval()
    if not batch_norms(model):
        return model
    fast = copy.deepcopy(model)
    pairs = _pairs(fast, x)
    for conv, norm in pairs.items():
        one: Any = fast.get_submodule(conv)
        other: Any = fast.get_submodule(norm)
        _set(fast, conv, fuse_conv_bn_eval(one, other))
        _set(fast, norm, _rest_of(other))
    fast.requires_grad_(False)
    wanted, found = model(x), fast(x)
    close = float((wanted - found).abs().max()) <= CLOSE * float(wanted.abs().max()) + 1e-6
    return fast if pairs and close else model


def _pairs(model: nn.Module, x: torch.Tensor) -> dict[str, str]:
    """Names: {convolution: the norm that takes its output}."""
    made: dict[int, tuple[str, torch.Tensor]] = {}  # the tensor is kept, so that its id is not given to another one
    pairs: dict[str, str] = {}

    def after(name: str) -> Any:
        return lambda _module, _inputs, output: made.__setitem__(id(output), (name, output))

    def before(name: str) -> Any:
        def look(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if id(inputs[0]) in made:
                pairs[made[id(inputs[0])][0]] = name

        return look

    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after(name)))
        elif isinstance(module, _BatchNorm) and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(before(name)))
    model(x)
    for hook in hooks:
        hook.remove()
    return pairs


def _rest_of(norm: nn.Module) -> nn.Module:
    """What a norm does besides normalising: timm's have an activation (and a dropout that does nothing here)."""
    act = getattr(norm, "act", None)
    return act if isinstance(act, nn.Module) else nn.Identity()


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
