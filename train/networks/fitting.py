"""Whether the tensors of a foreign checkpoint are those of a network that is named."""

from __future__ import annotations

from typing import Any

import torch

from octc.core.errors import OctcError
from octc.train.loop.checkpoint import load_strictly
from octc.train.networks.checkpoint_files import Taken
from octc.train.networks.models import build_model
from octc.train.networks.weight_matching import match


def outputs_of(taken: Taken, model: str) -> int:
    """How many classes the classifier of a network has in a file: the rows of the tensor that its classifier has elsewhere too.

    Raises:
        OctcError: E307 the classifier's tensor is not in the file.
    """
    reference = build_model(model, 7)
    other = build_model(model, 11).state_dict()
    own = reference.state_dict()
    heads = [name for name in own if own[name].shape != other[name].shape and own[name].shape[0] == 7]
    for name in heads:
        found = next((tensor for key, tensor in taken.state.items() if key == name or key.endswith(f".{name}")), None)
        if found is not None and found.ndim:
            return int(found.shape[0])
    text = f"the classifier of {model} ({', '.join(heads[:2]) or 'none'}) is not in the file"
    raise OctcError("OCT-E307", text, hint="name the network that the file is of: --model NAME, --teacher-model NAME")


def fitted_state(
    taken: Taken, model: str, place: str, classes: int | None = None, **kwargs: Any
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A file's tensors by the names of the network that it is said to be, with as many classes as the file has.

    Args:
        classes: how many it must have; None: any number. kwargs: of the network.

    Returns: all of the network's tensors, and what is not one for one (`Match.facts`).

    Raises:
        OctcError: E307 tensors that are missing, unknown or of other shapes (named), or another number of classes.
    """
    count = outputs_of(taken, model)
    if classes is not None and count != classes:
        text = f"the file has {count} classes, {classes} are needed"
        raise OctcError("OCT-E307", text, hint="a checkpoint that was trained on the same classes", place=place)
    network = build_model(model, count, **kwargs)
    found = match(network.state_dict(), (), taken.state, place)
    load_strictly(network, found.state, place)
    return {name: tensor.detach() for name, tensor in network.state_dict().items()}, found.facts()
