"""Recipes of KD-OCT: ConvNeXtV2-Large teaches EfficientNet-B2."""

from __future__ import annotations

from octc.train.config import Augment, Recipe, Stage


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
