"""A network before its training: built, with its start weights; where its recipe takes parts out of it, these go then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from octc.schemas.simplified import KEY, GateStep, Step, read_steps, words_of
from octc.train.loop.averaging import refresh_norms
from octc.train.loop.checkpoint import Checkpoint, read_checkpoint
from octc.train.networks.bounded import end_as_the_teacher
from octc.train.networks.lent import Lent, State, begin_as_identity, begin_constant, lend, source_of
from octc.train.networks.models import build_model
from octc.train.networks.simplified import apply_steps, fitting
from octc.train.networks.squeeze_excite import Batches, take_out
from octc.train.networks.weights import RANDOM, draw_head, start_weights
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
    steps = read_steps(stored)
    with fitting(model):
        for step in steps:
            _change(model, step, images, set(step.modules) if learned and isinstance(step, GateStep) else set())
    if learned:
        refresh_norms(model, images())
    return model.train(), {**source, "changed": words_of(steps)}


def _change(model: torch.nn.Module, step: Step, images: Batches, learned: set[str]) -> None:
    """Make one change. learned: squeeze-excite of this step whose gates mean something; the rest of it just goes."""
    if not isinstance(step, GateStep):
        apply_steps(model, [step])
        return
    if modules := [name for name in step.modules if name in learned]:
        take_out(model.eval(), GateStep(modules=modules), images)
    if modules := [name for name in step.modules if name not in learned]:
        apply_steps(model, [GateStep(modules=modules)])


def start_from_teacher(stage: Stage, classes: int, folder: Path, images: Batches) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The network of a stage with the weights of its teacher (`octc.train.networks.lent`), and where these came from.

    What the teacher lacks is as it was drawn, blocks apart that begin as identity and gates that begin as a constant. Its other
    activations and normalisation of the input are met by the batch norms, whose statistics are estimated anew over training
    images, and which end at 6 where the teacher's ReLU6 does (`octc.train.networks.bounded`). Where the
    recipe states changes (as in `start_network`), the whole network is lent to and changed then, unless the teacher is itself a
    changed network: then it lends to what is trained.

    Args:
        folder: the teacher's checkpoint. images: as in `start_network`.

    Raises:
        OctcError: E307 the two have too little in common, or the changes are of another network; of `read_checkpoint`.
    """
    known, state = read_checkpoint(folder)
    model, lent, steps = _lent(stage, classes, known, state, str(folder))
    first = next(iter(images()))
    refresh_norms(model, [first])  # maps that are neither zero nor beyond float tell what blocks and gates do
    few = first[:2]
    begun = {"identity_blocks": begin_as_identity(model, lent, few), "constant_gates": begin_constant(model, lent, few)}
    refresh_norms(model, images())
    teacher = build_model(known.model, len(known.classes), **known.model_kwargs)
    scaled = end_as_the_teacher(model, teacher, images)
    facts = {**begun, "channels_that_end": sum(scaled.values())}
    source = {**_source(known), "fit": {**lent.facts(), **{key: found for key, found in facts.items() if found}}}
    if steps:
        with fitting(model):
            for step in steps:
                _change(model, step, images, {name for name, _ in model.named_modules() if name and lent.holds(name)})
        refresh_norms(model, images())
        source["changed"] = words_of(steps)
    return model.train(), source


def check_lending(stage: Stage, classes: int, known: Checkpoint, state: State, place: str) -> dict[str, Any]:
    """What `start_from_teacher` will say of a teacher's checkpoint, or raise, as far as it is known without images."""
    with torch.random.fork_rng(devices=[]):
        _, lent, _ = _lent(stage, classes, known, state, place)
    return {**_source(known), "fit": lent.facts()}


def _source(known: Checkpoint) -> dict[str, Any]:
    return source_of({"model": known.model, "sha256": known.sha256, "weights": known.weights})


def _lent(stage: Stage, classes: int, known: Checkpoint, state: State, place: str) -> tuple[torch.nn.Module, Lent, list[Step]]:
    """The network that is lent to, what it got, and the changes that are still to be made."""
    kwargs = dict(stage.model_kwargs)
    steps = [] if KEY in known.model_kwargs or KEY not in kwargs else read_steps(kwargs.pop(KEY))
    model = build_model(stage.model, classes, **kwargs)
    if stage.head_std:
        draw_head(model, stage.head_std)
    return model, lend(model, state, place), steps
