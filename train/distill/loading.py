"""A frozen teacher from its checkpoint, as a network that takes the student's input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from octc.core.errors import OctcError
from octc.datasets.split import Split
from octc.imaging.preprocess import Preprocess
from octc.train.loop.checkpoint import Checkpoint, read_checkpoint
from octc.train.networks.models import rebuilt


def load_teacher(folder: Path, split: Split, student: Preprocess, device: Any) -> tuple[nn.Module, Checkpoint]:
    """A frozen teacher in eval mode, that takes the student's normalised input.

    Raises:
        OctcError: E309 another class order, E212 another split, E107 / E307 / E501 as the checkpoint's reader.
    """
    checkpoint, state = read_checkpoint(folder)
    if checkpoint.classes != split.classes:
        text = f"class order differs: teacher {', '.join(checkpoint.classes)}; data {', '.join(split.classes)}"
        raise OctcError("OCT-E309", text, hint="train a teacher on this data set", place=str(folder))
    if checkpoint.split_digest not in ("", split.digest):  # "": of another program, trained on nobody knows what
        text = "the teacher was trained on another split: it may have seen what this student is validated on"
        raise OctcError("OCT-E212", text, hint="octc train teacher on this split, or name a teacher of it", place=str(folder))
    model = rebuilt(checkpoint, state, str(folder))
    known = checkpoint.preprocess
    if known.value_range != student.value_range:
        text = f"the teacher was trained with the value range {known.value_range}, the student has {student.value_range}"
        raise OctcError("OCT-E309", text, hint="the same --value-range as the teacher, or a teacher with this one")
    if (known.size, known.mean, known.std) != (student.size, student.mean, student.std):
        model = SameView(model, student, known)
    return model.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False), checkpoint


class SameView(nn.Module):
    """Feeds a network the picture that another one sees, in the size and the normalisation that it was trained with."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, model: nn.Module, given: Preprocess, wanted: Preprocess) -> None:
        super().__init__()
        self.model = model
        self.size = None if given.size == wanted.size else (wanted.size, wanted.size)
        scale = [g / w for g, w in zip(given.std, wanted.std, strict=True)]
        shift = [(g - w) / s for g, w, s in zip(given.mean, wanted.mean, wanted.std, strict=True)]
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1))
        self.register_buffer("shift", torch.tensor(shift).view(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.size is not None:
            x = functional.interpolate(x, self.size, mode="bilinear", antialias=True)
        logits: torch.Tensor = self.model(x * self.scale + self.shift)
        return logits
