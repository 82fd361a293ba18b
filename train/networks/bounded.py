"""A teacher's rectifier ends at 6, its student's activation goes on: the student's channels are scaled to end there too.

A network that was trained with ReLU6 may have values of a hundred in front of it, which nobody behind it ever saw. SiLU in its
place lets them through, and one grid of 256 codes for all channels of such a map leaves two or three for the others: INT8 would
lose what FP32 keeps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from octc.train.loop.averaging import refresh_norms
from octc.train.networks.squeeze_excite import Batches

END = 6.0  # of ReLU6
BOUNDED = (nn.ReLU6, nn.Hardtanh, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh)
ROUNDS = 3  # what is scaled changes what the later norms see


@torch.no_grad()
def end_as_the_teacher(model: nn.Module, teacher: nn.Module, images: Batches) -> dict[str, int]:
    """Scale, in place, the norms in front of activations that end at 6 in the teacher and do not in `model`.

    A channel whose largest value on images lies beyond 6 ends at 6 then; the others stay as they are. What stands behind was
    trained on values up to 6 and is not changed; the statistics of the norms are estimated anew.

    Args:
        model: with the teacher's weights, the statistics of its norms those of images; in eval mode since.
        teacher: the network that they came from. images: gives training images, normalised float [N, 3, S, S] in batches; the
            first batch tells how far the channels reach.

    Returns: for each such norm (its name) how many channels were scaled, where any was.
    """
    ends = {name for name, part in teacher.named_modules() if isinstance(part, nn.ReLU6)}
    norms: dict[str, Any] = {}
    for name, act in model.named_modules():
        norm = model.get_submodule(name.rpartition(".")[0])
        if name in ends and not isinstance(act, BOUNDED) and isinstance(norm, _BatchNorm) and norm.affine:
            norms[name.rpartition(".")[0]] = norm
    scaled = {name: torch.zeros(len(norm.weight), dtype=torch.bool) for name, norm in norms.items()}
    for _ in range(ROUNDS):
        beyond = False
        for name, top in _tops(model, norms, next(iter(images()))).items():
            factor = (END / top.clamp_min(END)).to(norms[name].weight.dtype)
            norms[name].weight.mul_(factor)
            norms[name].bias.mul_(factor)
            scaled[name] |= (factor < 1).cpu()
            beyond = beyond or bool((factor < 1).any())
        if not beyond:
            break
        refresh_norms(model, images())
    return {name: int(channels.sum()) for name, channels in scaled.items() if channels.any()}


def _tops(model: nn.Module, norms: dict[str, Any], images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The largest value of each channel behind norms that carry their activation."""
    found: dict[str, torch.Tensor] = {}

    def look(name: str) -> Any:
        return lambda _norm, _inputs, output: found.__setitem__(name, output.amax([0, *range(2, output.ndim)]))

    hooks = [norm.register_forward_hook(look(name)) for name, norm in norms.items()]
    try:
        model.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found
