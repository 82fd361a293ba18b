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
# modules of torch.ao that hold codes or quantisers, and those that are float ones all the same
QUANTISED = (
    "torch.ao.nn.quantized", "torch.ao.nn.qat", "torch.ao.nn.intrinsic.qat", "torch.ao.nn.intrinsic.quantized",
    "torch.ao.quantization.fake_quantize", "torch.ao.quantization.observer",
)  # fmt: skip
FLOATS = ("FloatFunctional",)
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
        OctcError: E404 no `nn.Module`, or one that is or holds TorchScript or modules that are quantised, has weights without
            a shape or without values, or cannot be copied.
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
        if type(part).__module__.startswith(QUANTISED) and type(part).__name__ not in FLOATS:
            text = f"{at} is a {type(part).__name__} of {type(part).__module__}: the network is quantised, or prepared for it"
            hint = "give the float network, as it was before prepare, prepare_qat, convert or quantize_dynamic"
            raise OctcError("OCT-E404", text, hint=hint, place=name or None)
        if any(one.is_meta for one in (*part.parameters(recurse=False), *part.buffers(recurse=False))):
            text = f"{at} is a {type(part).__name__} on the device meta, whose weights have shapes and no values"
            hint = "model.to_empty(device='cpu'), then model.load_state_dict(weights)"
            raise OctcError("OCT-E404", text, hint=hint, place=name or None)
        if any(isinstance(one, UNSHAPED) for one in part.parameters(recurse=False)):
            text = f"{at} is a {type(part).__name__} whose weights have no shape yet"
            raise OctcError("OCT-E404", text, hint="run it on one image first, and load its weights", place=name or None)


def _made(part: nn.Module) -> list[torch.Tensor]:
    """Attributes that were computed of parameters: torch copies none of these."""
    return [value for value in vars(part).values() if isinstance(value, torch.Tensor) and value.grad_fn is not None]


def _bake(part: nn.Module) -> None:
    """What is made anew at every call becomes a parameter."""
    if parametrize.is_parametrized(part):
        # not by remove_parametrizations: it takes the property off the class, which the network that was copied has too
        values = {name: getattr(part, name).detach() for name in part.parametrizations}  # type: ignore[union-attr]
        part.__class__ = parametrize.type_before_parametrizations(part)
        del part.parametrizations
        for name, value in values.items():
            part.register_parameter(name, nn.Parameter(value.clone()))
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
    """What each convolution that runs meanwhile is given: its input, weight and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d:
            given = dict(zip(("input", "weight", "bias"), args, strict=False)) | (kwargs or {})
            self.found.append((given["input"], given["weight"], given.get("bias")))
        return func(*args, **(kwargs or {}))


def _plain(layer: nn.Conv2d) -> nn.Module | None:
    """The nn.Conv2d, or timm's that pads by the input's size, that answers as a convolution of another class (weight
    standardisation, LoRA, borders of zeros added first, a class that only begins otherwise); None where neither does."""
    span = [step * (side - 1) for step, side in zip(layer.dilation, layer.kernel_size, strict=True)]
    noise = torch.Generator().manual_seed(0)
    images = [torch.randn(1, layer.in_channels, *(side + more for side in span), generator=noise) for more in (16, 17)]
    try:
        with _Seen() as seen:
            wanted = [layer(one) for one in images]
        (given, weight, bias), *_ = seen.found
        keys = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        for kind in PLAIN:
            more: dict[str, Any] = {"padding_mode": layer.padding_mode} if kind is nn.Conv2d else {}
            plain = kind(**{key: getattr(layer, key) for key in keys}, bias=bias is not None, **more)
            plain.weight = nn.Parameter(weight.detach().clone())
            plain.bias = None if bias is None else nn.Parameter(bias.detach().clone())
            for made in (plain, _bordered(plain, _zeros_around(images[0], given))):
                if made is not None and _alike(wanted, [made(one) for one in images]):
                    return made.eval()
    except Exception:  # whatever a layer of others raises: it is refused by its name where it is traced
        return None
    return None


def _alike(wanted: list[torch.Tensor], found: list[torch.Tensor]) -> bool:
    pairs = zip(wanted, found, strict=True)
    return all(one.shape == other.shape and torch.allclose(one, other, 1e-5, 1e-5) for one, other in pairs)


def _zeros_around(image: torch.Tensor, bordered: torch.Tensor) -> tuple[int, int, int, int] | None:
    """How much stands left, right, above and below of an image in a larger one; None: the image is not in there."""
    height, width = image.shape[2:]
    high, wide = (int(one) for one in bordered.shape[2:])
    for top in range(high - height + 1):
        for left in range(wide - width + 1):
            if torch.equal(bordered[:, :, top : top + height, left : left + width], image):
                return left, wide - width - left, top, high - height - top
    return None


def _bordered(conv: nn.Conv2d, borders: tuple[int, int, int, int] | None) -> nn.Module | None:
    """The convolution behind borders of zeros: its own where they are alike on both sides. None where there are none."""
    if borders is None or type(conv) is not nn.Conv2d or not any(borders) or isinstance(conv.padding, str):
        return None
    left, right, top, bottom = borders
    if left != right or top != bottom:
        return nn.Sequential(nn.ZeroPad2d(borders), conv)
    made = copy.deepcopy(conv)
    made.padding = (conv.padding[0] + top, conv.padding[1] + left)
    made._reversed_padding_repeated_twice = [left, left, top, top]
    return made
