"""A network before its training: built, with its start weights; where its recipe takes parts out of it, these go then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from octc.schemas.simplified import KEY, GateStep, read_steps, words_of
from octc.train.loop.averaging import refresh_norms
from octc.train.networks.models import build_model
from octc.train.networks.simplified import apply_steps, fitting
from octc.train.networks.squeeze_excite import Batches, take_out
from octc.train.networks.weights import RANDOM, start_weights
from octc.train.recipes.config import Stage


def start_network(
    stage: Stage, classes: int, file: Path | None, fetch: bool, images: Batches
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The network of a stage with its start weights, and where these came from (`start_weights`).

    Published weights are those of the whole network. Where the recipe states changes (`simplified` in `model_kwargs`: that of a
    student which `octc simplify` made, or of a candidate of `octc search`), they are loaded into the whole network, which is
    changed then: the mean gates of squeeze-excite over training images go into the weights beside them, channels are cut, and
    the statistics of the batch norms are estimated anew. A network at random has no gates that mean anything: its parts just
    go. A file of `--weights` is one of the network that is trained, with its changes.

    Args:
        images: gives training images, normalised float [N, 3, S, S] in batches; asked for with changes and weights alone.

    Raises:
        OctcError: of `start_weights`; E307 the changes are of another network.
    """
    kwargs = dict(stage.model_kwargs)
    stored = kwargs.pop(KEY, None)
    if stored is None or (file is not None and str(file) != RANDOM):
        model = build_model(stage.model, classes, **stage.model_kwargs)
        return model, start_weights(model, stage, file, fetch)
    model = build_model(stage.model, classes, **kwargs)
    source = start_weights(model, stage, file, fetch)
    learned = file is None and stage.weights != RANDOM
    with fitting(model):
        for step in read_steps(stored):
            if learned and isinstance(step, GateStep):
                take_out(model.eval(), step, images)
            else:
                apply_steps(model, [step])
    if learned:
        refresh_norms(model, images())
    return model.train(), {**source, "changed": words_of(read_steps(stored))}
