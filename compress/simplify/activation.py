"""Smooth activations replaced by ones that engines compute as quickly as a convolution gives its values."""

from __future__ import annotations

from timm.layers.activations import GELU, GELUTanh, Mish, QuickGELU, Swish
from torch import nn

from octc.core.errors import OctcError
from octc.schemas.simplified import ACTIVATIONS, ActivationStep

SMOOTH = (nn.SiLU, Swish, nn.GELU, GELU, GELUTanh, QuickGELU, nn.Mish, Mish)


def smooth_activations(model: nn.Module) -> dict[str, str]:
    """Names of the SiLU, GELU and Mish modules of a network, with the names of their types: one that
    stands in several places has several names."""
    return {name: type(part).__name__ for name, part in model.named_modules(remove_duplicate=False) if isinstance(part, SMOOTH)}


def activation_step(model: nn.Module, to: str) -> ActivationStep:
    """Replace every SiLU, GELU and Mish that is a module of its own by "hard-swish" or "relu".

    Hard-swish is x * clip(x + 3, 0, 6) / 6 (Howard et al. 2019, "Searching for MobileNetV3", section 5.2), within 0.17 of SiLU
    everywhere. The network itself is not changed here.

    Raises:
        OctcError: E104 another activation; E413 the network has none of them.
    """
    if to not in ACTIVATIONS:
        raise OctcError(
            "OCT-E104", f"unknown activation {to!r}", hint=f"one of: {', '.join(ACTIVATIONS)}", place="--activation"
        )
    found = smooth_activations(model)
    if not found:
        text = f"{type(model).__name__} has no SiLU, GELU or Mish module to replace by {to}"
        raise OctcError("OCT-E413", text, hint="leave --activation out", place="--activation")
    return ActivationStep(to=to, modules=sorted(found))  # type: ignore[arg-type]
