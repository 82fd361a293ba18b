"""What a candidate's network loses before it is trained, as data: the network measured is the one that is trained."""

from __future__ import annotations

import torch

from octc.compress.simplify.untrained import structure_steps
from octc.export.search.candidates import changes
from octc.export.search.random_network import SEED
from octc.schemas.common import builtins, convert
from octc.schemas.search import Candidate
from octc.schemas.simplified import KEY, steps_json
from octc.train.networks.models import build_model
from octc.train.networks.weights import RANDOM, start_weights
from octc.train.recipes.config import Stage


def with_structure(candidate: Candidate, stage: Stage, classes: int, fetch: bool) -> Candidate:
    """The candidate with what its network loses in `model_kwargs.simplified`; as it is where it loses nothing.

    Its start weights are loaded: they have to be here, and they say which channels go (`octc.compress.simplify.untrained`). A
    training begins with the whole network and takes the same out of it (`octc.train.networks.starting`).

    Raises:
        OctcError: E310 the start weights are not here; E307 timm does not know the network; E413 what is to go cannot; E901
            torch-pruning is not installed.
    """
    if stage.weights == RANDOM and not changes(candidate):
        return candidate
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = build_model(stage.model, classes, **stage.model_kwargs)
        start_weights(model, stage, None, fetch)
    if not changes(candidate):
        return candidate
    steps = structure_steps(
        model, stage.size, no_se=not candidate.squeeze_excite, share=candidate.prune, learned=stage.weights != RANDOM
    )
    return convert({**builtins(candidate), "model_kwargs": {**candidate.model_kwargs, KEY: steps_json(steps)}}, Candidate)
