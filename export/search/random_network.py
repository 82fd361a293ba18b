"""A candidate with random weights as artifacts: times and sizes do not hang on what a network has learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from octc.core.errors import OctcError
from octc.core.faults import of_machine
from octc.core.files import canonical_json, publishing, sha256_bytes
from octc.core.scratch import scratch
from octc.core.version import own_version
from octc.datasets.synthetic.bscans import CLASSES, draw_phantom
from octc.export.formats import choose_opset
from octc.export.own_network import OwnNetwork, QuantizeOptions, quantize_network, source_of
from octc.export.pipeline import write_files
from octc.export.search.candidates import digest_of, kwargs_of
from octc.export.targets import Job, Workshop
from octc.imaging.preprocess import Preprocess
from octc.machine.host import versions
from octc.schemas.search import Candidate
from octc.store.artifacts import read_artifact
from octc.store.find import Found
from octc.train.loop.optim import classifier_of
from octc.train.networks.macs import count_macs
from octc.train.networks.models import build_model, check_answers, normalise, parameter_count
from octc.train.recipes.config import Recipe, Stage
from octc.train.stages import preprocess_of

SEED, PICTURES = 0, 24
APART = 20.0  # between two biases, in ranges of the logits without them
MAKERS = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "openvino", "numpy")  # who decides the bytes of a file
HOW = QuantizeOptions(rounding=False, observers=("max",))


@dataclass(frozen=True)
class Built:
    """A candidate as it was exported. founds: target -> artifact. macs: of one image."""

    macs: int
    parameters: int
    founds: dict[str, Found]


def build(candidate: Candidate, stage: Stage, classes: int) -> nn.Module:
    """The candidate with random weights of one seed; its norms have the statistics of noise, so that no activation dies out or
    overflows, which would change times.

    Raises:
        OctcError: E307 timm does not know the network, or does not build it so.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = check_answers(build_model(stage.model, classes, **kwargs_of(candidate)), stage.model, stage.size, classes)
        norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = None  # the plain mean over batches
        images = torch.randint(0, 256, (8, 1, stage.size, stage.size), dtype=torch.uint8)
        x = normalise(images, preprocess_of(stage))
        with torch.no_grad():
            model.train()(x)
            _make_clear(model.eval(), x)
    return model


def _make_clear(model: nn.Module, x: torch.Tensor) -> None:
    """Set the classifier's biases far apart: answers that are all but tied would differ between engines by their rounding, and
    `octc bench` refuses to time an engine whose golden answers are other ones."""
    logits = model(x)
    last = model.get_submodule(classifier_of(model))
    bias = getattr(last, "bias", None)
    if isinstance(bias, torch.Tensor):
        bias += APART * float(logits.max() - logits.min()) * torch.arange(len(bias))


def export_random(candidate: Candidate, recipe: Recipe, classes: Sequence[str], targets: Sequence[str], cache: Path) -> Built:
    """The artifacts of a candidate, made once: cache/<digest>/<target>-<precision>, by what it is and by who writes files.

    Nothing is judged: the network has learnt nothing. INT8 is INT8 throughout, whatever it does to the answers.

    Raises:
        OctcError: E307 no such network, E404 it cannot be quantised, and what the makers of files raise.
    """
    model = build(candidate, recipe.student, len(classes))
    folders = folders_of(candidate, recipe, classes, targets, cache)
    lacking = [name for name, folder in folders.items() if _kept(folder) is None]
    if lacking:
        home = folders[lacking[0]].parent
        _write(_own_network(model, preprocess_of(recipe.student), classes, candidate), lacking, candidate.precision, home)
    founds = {name: Found(folder, read_artifact(folder)) for name, folder in folders.items()}
    return Built(count_macs(model, recipe.student.size), parameter_count(model), founds)


def folders_of(
    candidate: Candidate, recipe: Recipe, classes: Sequence[str], targets: Sequence[str], cache: Path
) -> dict[str, Path]:
    """Where the artifacts of a candidate lie, or will."""
    stage = recipe.student
    facts = {"candidate": digest_of(candidate), "mean": stage.mean, "std": stage.std, "classes": len(classes)}
    made_by = {"octc": own_version(), "seed": SEED, "apart": APART, **versions(MAKERS)}
    home = cache / sha256_bytes(canonical_json([facts, made_by]))[:24]
    return {name: home / f"{name}-{candidate.precision}" for name in targets}


def found_artifacts(
    candidate: Candidate, recipe: Recipe, classes: Sequence[str], targets: Sequence[str], cache: Path
) -> dict[str, Found]:
    """The artifacts of a candidate that are there already."""
    folders = folders_of(candidate, recipe, classes, targets, cache)
    return {name: found for name, folder in folders.items() if (found := _kept(folder)) is not None}


def _kept(folder: Path) -> Found | None:
    """An artifact of the cache; None where there is none, or a damaged one, which is made again."""
    try:
        return Found(folder, read_artifact(folder))
    except OctcError as error:
        if of_machine(error) is not None:
            raise
        return None


def _own_network(model: nn.Module, pre: Preprocess, classes: Sequence[str], candidate: Candidate) -> OwnNetwork:
    pictures = [draw_phantom(CLASSES[k % len(CLASSES)], k, k) for k in range(PICTURES)]
    return quantize_network(model, pictures, pre, classes=classes, name=candidate.model, options=HOW)


def _write(network: OwnNetwork, targets: Sequence[str], precision: str, home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    with scratch("export", home, hidden=True) as folder:
        shop = Workshop(source_of(network, home), folder, network.quantised)
        for target in targets:
            try:
                with publishing(home / f"{target}-{precision}", force=True) as new:
                    write_files(shop, Job(target, precision, choose_opset(target, None)), new)
            except OctcError as error:
                raise OctcError(
                    error.code, f"{target}: {error.message}", hint=error.hint, place=error.place, why=error.why
                ) from error
