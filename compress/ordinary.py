"""A copy of a network of others with ordinary weights: out of its wrappers, every weight a parameter, float32, in eval mode."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

from octc.compress.trace import PLAIN, set_module
from octc.core.errors import OctcError, first_line

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
UNSHAPED = (nn.UninitializedParameter, nn.UninitializedBuffer)
HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)
AS_BATCH_NORM: dict[type, type[nn.Module]] = {  # with running statistics
    nn.InstanceNorm1d: nn.BatchNorm1d, nn.InstanceNorm2d: nn.BatchNorm2d, nn.InstanceNorm3d: nn.BatchNorm3d,
}  # fmt: skip
AS_ONNX = "torch.onnx.export, then octc import FILE.onnx (docs/your-own-model.md)"


def ordinary_copy(module: Any) -> nn.Module:
    """A copy on the CPU that can be traced, folded and written. The module is left as it was.

    nn.DataParallel and torch.compile are taken off; weights that are made of others (weight norm, spectral norm, pruning masks,
    parametrisations, convolutions that make theirs in their forward) become what they are in eval mode; a weight that several
    modules share becomes one of each module's own.

    Raises:
        OctcError: E404 no `nn.Module`, or one that is or holds TorchScript, has weights without a shape, or cannot be copied.
    """
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        text = f"{kind} is no network: octc needs the nn.Module, with its weights"
        hint = "model.load_state_dict(weights), and give the model" if isinstance(module, dict) else "give an nn.Module"
        raise OctcError("OCT-E404", text, hint=hint)
    while isinstance(module, WRAPPERS) or isinstance(getattr(module, "_orig_mod", None), nn.Module):
        module = module.module if isinstance(module, WRAPPERS) else module._orig_mod
    _check(module)
    made = {id(value): value.detach().clone() for part in module.modules() for value in _made(part)}
    try:
        found: nn.Module = copy.deepcopy(module, made)
    except Exception as error:  # whatever an attribute of a foreign module raises
        text = f"{type(module).__name__} cannot be copied: {first_line(error)}"
        raise OctcError("OCT-E404", text, hint=f"take what cannot be copied off it; or {AS_ONNX}") from error
    found = found.cpu().float().eval()
    with torch.no_grad():
        for part in list(found.modules()):
            _bake(part)
        for name, part in list(found.named_modules(remove_duplicate=False)):
            if name and (plain := _ordinary(part)) is not None:
                set_module(found, name, plain)
        untie(found)
    return found.requires_grad_(False)


def _check(module: nn.Module) -> None:
    for name, part in module.named_modules():
        at = f"{name} of {type(module).__name__}" if name else type(module).__name__
        if isinstance(part, torch.jit.ScriptModule):
            text = f"{at} is TorchScript, which cannot be traced into"
            hint = f"give the module that it was made of; or {AS_ONNX}"
            raise OctcError("OCT-E404", text, hint=hint, place=name or None)
        if any(isinstance(one, UNSHAPED) for one in part.parameters(recurse=False)):
            text = f"{at} is a {type(part).__name__} whose weights have no shape yet"
            raise OctcError("OCT-E404", text, hint="run it on one image first, and load its weights", place=name or None)


def _made(part: nn.Module) -> list[torch.Tensor]:
    """Attributes that were computed of parameters: torch copies none of these."""
    return [value for value in vars(part).values() if isinstance(value, torch.Tensor) and value.grad_fn is not None]


def _bake(part: nn.Module) -> None:
    """What is made anew at every call becomes a parameter."""
    for name in list(getattr(part, "parametrizations", {})):
        parametrize.remove_parametrizations(part, name, leave_parametrized=True)
        value = getattr(part, name).detach()
        delattr(part, name)
        part.register_parameter(name, nn.Parameter(value))
    for key, hook in list(part._forward_pre_hooks.items()):
        if isinstance(hook, HOOKS):
            hook.remove(part)
            del part._forward_pre_hooks[key]


def untie(module: nn.Module) -> None:
    """Give every module of a network a parameter of its own where several share one, with the same values, in place."""
    seen: set[int] = set()
    for part in module.modules():
        for name, value in part.named_parameters(recurse=False, remove_duplicate=False):
            if id(value) in seen:
                setattr(part, name, nn.Parameter(value.detach().clone()))
            seen.add(id(value))


def _ordinary(part: nn.Module) -> nn.Module | None:
    """The layer of torch that answers as this one does in eval mode; None where it is one, or none is known."""
    if isinstance(part, nn.Conv2d) and type(part) not in PLAIN:
        return _plain(part)
    if type(part) in AS_BATCH_NORM and getattr(part, "running_mean", None) is not None:
        norm: nn.Module = AS_BATCH_NORM[type(part)](part.num_features, part.eps, affine=part.affine)
        norm.load_state_dict(part.state_dict())
        return norm.eval()
    return None


class _Seen(TorchFunctionMode):
    """The weight and bias of each convolution that runs meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d:
            given = dict(zip(("input", "weight", "bias"), args, strict=False)) | (kwargs or {})
            self.found.append((given["weight"], given.get("bias")))
        return func(*args, **(kwargs or {}))


def _plain(layer: nn.Conv2d) -> nn.Conv2d | None:
    """The nn.Conv2d, or timm's that pads by the input's size, that answers as a convolution of another class (weight
    standardisation, LoRA, a class that only begins otherwise); None where neither does."""
    span = [step * (side - 1) for step, side in zip(layer.dilation, layer.kernel_size, strict=True)]
    noise = torch.Generator().manual_seed(0)
    images = [torch.randn(1, layer.in_channels, *(side + more for side in span), generator=noise) for more in (16, 17)]
    try:
        with _Seen() as seen:
            wanted = [layer(one) for one in images]
        (weight, bias), *_ = seen.found
        keys = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        for kind in PLAIN:
            more: dict[str, Any] = {"padding_mode": layer.padding_mode} if kind is nn.Conv2d else {}
            plain = kind(**{key: getattr(layer, key) for key in keys}, bias=bias is not None, **more)
            plain.weight = nn.Parameter(weight.detach().clone())
            plain.bias = None if bias is None else nn.Parameter(bias.detach().clone())
            found = [plain(one) for one in images]
            pairs = zip(wanted, found, strict=True)
            if all(one.shape == other.shape and torch.allclose(one, other, 1e-5, 1e-5) for one, other in pairs):
                return plain.eval()
    except Exception:  # whatever a layer of others raises: it is refused by its name where it is traced
        return None
    return None
