"""Networks by name (timm's, and those of train/networks), and the wrapper that lets a graph take uint8 and normalise inside."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import timm
import torch
from torch import nn

from octc.core.errors import OctcError, first_line
from octc.core.faults import fault_of
from octc.imaging.preprocess import Preprocess
from octc.schemas.simplified import KEY
from octc.train.loop.checkpoint import Checkpoint, State, load_strictly
from octc.train.networks.registry import NETWORKS
from octc.train.networks.simplified import simplify_stored


def build_model(name: str, num_classes: int, /, **kwargs: Any) -> nn.Module:
    """A network of train/networks or of timm, with random weights and `num_classes` outputs.

    kwargs: of its builder; and `simplified`, the steps by which its structure was simplified (`octc.schemas.simplified`).

    Raises:
        OctcError: E307 for an unknown name, one that points elsewhere ("hf-hub:...", "local-dir:..."), or options that the
            network does not take or that would read a file. Names and options may come from a checkpoint of someone else.
    """
    if KEY in kwargs:
        steps = kwargs.pop(KEY)
        return simplify_stored(build_model(name, num_classes, **kwargs), steps)
    if "num_classes" in kwargs:
        text = f"{name} has {num_classes} classes, those of the images"
        raise OctcError("OCT-E307", text, hint="take num_classes out of model_kwargs")
    reading = sorted(key for key in kwargs if key.startswith(("pretrained", "checkpoint", "cache_dir")))
    if reading:
        text = f"{name} may not be built with {', '.join(reading)}: weights are read by octc alone"
        raise OctcError("OCT-E307", text, hint="--weights FILE, or `weights` of the recipe")
    if name in NETWORKS:
        return _own(name, num_classes, kwargs)
    if ":" in name or "/" in name:
        raise OctcError("OCT-E307", f"{name!r} points outside timm's own networks", hint="octc list models")
    if not timm.is_model(name.partition(".")[0]):
        near = ", ".join(get_close_matches(name, timm.list_models(), n=3))
        raise OctcError("OCT-E307", f"timm knows no network {name!r}", hint=f"near: {near or 'octc list models'}")
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, **kwargs)
    except Exception as error:  # whatever a builder of timm raises when it is told what it does not know
        raise _not_built(name, kwargs, error) from error
    return model


def _not_built(name: str, kwargs: dict[str, Any], error: Exception) -> OctcError:
    if (fault := fault_of(error)) is not None:
        return fault
    reason = first_line(error) or type(error).__name__
    text = f"{name} cannot be built{f' with {kwargs}' if kwargs else ''}: {reason}"
    return OctcError("OCT-E307", text, hint="change model_kwargs of the recipe" if kwargs else "octc list models")


def check_answers(model: nn.Module, name: str, size: int, classes: int) -> nn.Module:
    """The network, if it gives logits [N, classes] of pictures of `size` pixels; asked with one of zeros, on its own device.

    Raises:
        OctcError: E307 it is made for another size, takes other pictures, or gives something else.
    """
    device = next(model.parameters(), torch.zeros(())).device
    trained, image = model.training, torch.zeros(1, 3, size, size, device=device)
    try:
        with torch.no_grad():
            found: Any = model.eval()(image)
    except Exception as error:  # whatever a network of timm raises
        if (fault := fault_of(error)) is not None:
            raise fault from error
        text = f"{name} does not run on {size} px: {first_line(error) or type(error).__name__}"
        hint = "another size, or what its builder is told of it (model_kwargs): many networks take one size alone"
        raise OctcError("OCT-E307", text, hint=hint) from error
    finally:
        model.train(trained)
    if not isinstance(found, torch.Tensor) or tuple(found.shape) != (1, classes):
        shape = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        text = f"{name} gives {shape} of one picture, and {classes} classes need [1, {classes}]"
        raise OctcError("OCT-E307", text, hint="change model_kwargs of the recipe")
    return model


def rebuilt(checkpoint: Checkpoint, state: State, place: str) -> nn.Module:
    """The network of a checkpoint with its weights (OctcError E307 where they do not fit; place: where the files lie).

    Those that a builder draws are replaced: the random numbers of the caller stay as they are.
    """
    with torch.random.fork_rng(devices=[]):
        model = build_model(checkpoint.model, len(checkpoint.classes), **checkpoint.model_kwargs)
    load_strictly(model, state, place)
    return model


def _own(name: str, num_classes: int, kwargs: dict[str, Any]) -> nn.Module:
    try:
        return NETWORKS[name](num_classes, **kwargs)
    except TypeError as error:
        raise _not_built(name, kwargs, error) from error


def parameter_count(model: nn.Module) -> int:
    """Trainable and frozen parameters, without buffers."""
    return sum(p.numel() for p in model.parameters())


def out_of_place(model: nn.Module) -> None:
    """From now on no activation of `model` writes over its input. Same numbers."""
    for module in model.modules():
        if vars(module).get("inplace"):
            vars(module)["inplace"] = False


def normalise(images: torch.Tensor, pre: Preprocess) -> torch.Tensor:
    """uint8 or float [N, C, H, W] in 0..255 -> float32 [N, 3, H, W]: x * (1/255/std) - mean/std, grey repeated."""
    scale, shift = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in pre.affine)
    return images.float() * scale - shift


class WithInput(nn.Module):
    """A network behind its preprocessing: uint8 [N, C, H, W] -> logits [N, K]. This is what is exported."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, model: nn.Module, pre: Preprocess) -> None:
        super().__init__()
        self.model = model
        scale, shift = pre.affine
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1))
        self.register_buffer("shift", torch.tensor(shift).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(image.float() * self.scale - self.shift)
        return logits
