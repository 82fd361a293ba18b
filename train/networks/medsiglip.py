"""MedSigLIP: the vision tower of google/medsiglip-448 under an MLP head (compared in KD-OCT). Needs octc[baselines].

The weights are gated: their terms must be accepted on the hub. They come from its cache, or from a local folder or file.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from octc.core.errors import OctcError, first_line
from octc.core.optional import need

HUB = "google/medsiglip-448"
LICENCE = "Health AI Developer Foundations terms (gated; no redistribution by octc)"
PREFIX = "vision_model."
TOWER = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 448,
    "patch_size": 14,
}


class MedSigLip(nn.Module):
    """[N, 3, S, S] -> logits [N, K]. kwargs: of `SiglipVisionConfig`, instead of the published size."""

    def __init__(self, classes: int, drop_rate: float = 0.3, **kwargs: Any) -> None:
        super().__init__()
        transformers: Any = need("transformers")
        config = transformers.SiglipVisionConfig(**{**TOWER, **kwargs})
        self.trunk = transformers.SiglipVisionModel(config)
        widths, layers = (config.hidden_size, 1024, 512, 256), []
        for place, (before, after) in enumerate(pairwise(widths)):
            drop = drop_rate / 2 if place == 2 else drop_rate
            layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.GELU(), nn.Dropout(drop)]
        self.head = nn.Sequential(*layers, nn.Linear(widths[-1], classes))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the tower's activations twice instead of keeping them."""
        trunk: Any = self.trunk
        prefix = "activation" if hasattr(trunk, "activation_checkpointing_enable") else "gradient"  # its older name
        if enable:
            getattr(trunk, f"{prefix}_checkpointing_enable")({"use_reentrant": False})
        else:
            getattr(trunk, f"{prefix}_checkpointing_disable")()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.trunk(pixel_values=x).pooler_output)
        return logits


def tower_of(state: dict[str, torch.Tensor], place: str) -> dict[str, torch.Tensor]:
    """The tensors of the vision tower, without a prefix."""
    whole = any(name.startswith(PREFIX) for name in state)
    tower = {name.removeprefix(PREFIX): t for name, t in state.items() if name.startswith(PREFIX) or not whole}
    if "embeddings.patch_embedding.weight" not in tower:
        text = "no SigLIP vision tower in this file"
        raise OctcError("OCT-E307", text, hint=f"the model.safetensors of {HUB}", place=place)
    return tower


def read_hub(fetch: bool) -> dict[str, torch.Tensor]:
    """The vision tower from the hub's cache; with `fetch` it is downloaded (3.5 GB; HF_TOKEN of an account with access).

    Raises:
        OctcError: E310 not in the cache, or not given to this account.
    """
    transformers: Any = need("transformers")
    token = os.environ.get("HF_TOKEN") or None
    try:
        model = transformers.SiglipVisionModel.from_pretrained(
            HUB, local_files_only=not fetch, token=token, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        text = f"the weights of {HUB} are not on disk"
        hint = f"accept the terms at https://huggingface.co/{HUB}, set HF_TOKEN, then --fetch-weights; or --weights FOLDER"
        raise OctcError("OCT-E310", text, hint=hint, why=first_line(error)) from error
    return tower_of(dict(model.state_dict()), HUB)
