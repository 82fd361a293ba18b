"""Recipes of KD-OCT: ConvNeXtV2-Large teaches EfficientNet-B2 at 384 px.

Each comes twice. The plain one is the published set of values with its errors mended:
    focal loss in its textbook form, and label smoothing, MixUp and CutMix that act; no weight decay on biases and norms;
    SWA that keeps the ratio of the groups and is judged on val; the last micro-batches of an epoch are stepped on; teacher
    and student are selected by one criterion, macro recall; augmentation on the device, with the same ranges.
"-as-released" repeats what the released code does:
    focal loss with the weight inside the exponent, no mixing and no smoothing; SWA that raises the backbone's rate and is
    never used; remainders dropped; the teacher is selected by the mean of its batches' losses, the student by accuracy;
    Pillow pipelines in their exact order. It trained in fp16: add --precision fp16. Its splits, which leak, are
    --protocol as-released and as-released-teacher.
"""

from __future__ import annotations

from dataclasses import replace

from octc.train.recipes.config import Augment, Mix, Objective, Recipe, Stage, Swa

TEACHER = "convnextv2_large.fcmae_ft_in22k_in1k"
OPEN_TEACHER = "convnext_large.fb_in22k_ft_in1k_384"
STUDENT = "efficientnet_b2.ra_in1k"
CANVAS = 416 / 384
TEACHER_VIEWS = Augment(
    rotate=20,
    shear=15,
    scale=0.15,
    translate=0.04,
    hflip=0.5,
    vflip=0.3,
    brightness=0.3,
    contrast=0.3,
    blur=0.2,
    erase=0.25,
    erase_area=0.15,
)
STUDENT_VIEWS = Augment(rotate=15, translate=0.04, hflip=0.5, brightness=0.2, contrast=0.2, erase=0.2)


def _teacher(batch: int, accumulate: int, model: str = TEACHER) -> Stage:
    return Stage(
        model=model,
        weights="hub",
        size=384,
        epochs=150,
        lr=1e-4,
        backbone=0.2,
        freeze=5,
        batch=batch,
        accumulate=accumulate,
        decay=0.05,
        warmup=10,
        floor=1e-3,
        schedule="epoch",
        smoothing=0.1,
        clip=0.0,
        patience=25,
        select="recall",
        model_kwargs={"drop_rate": 0.3, "drop_path_rate": 0.3},
        augment=TEACHER_VIEWS,
        objective=Objective("focal", gamma=2.0, weights="balanced"),
        mix=Mix(mixup=0.4, cutmix=1.0, prob=0.8, switch=0.5),
        swa=Swa(start=100, lr=1e-5, anneal=10),
    )


def _student(batch: int) -> Stage:
    return Stage(
        model=STUDENT,
        weights="hub",
        size=384,
        epochs=100,
        lr=1e-3,
        batch=batch,
        accumulate=2,
        decay=0.01,
        warmup=5,
        floor=1e-3,
        schedule="epoch",
        clip=0.0,
        patience=20,
        select="recall",
        model_kwargs={"drop_rate": 0.3},
        augment=STUDENT_VIEWS,
    )


def _as_released(recipe: Recipe) -> Recipe:
    teacher = replace(
        recipe.teacher,
        drop_rest=True,
        decay_all=True,
        smoothing=0.0,
        select="batches",
        mix=Mix(),
        objective=Objective("focal-seed", gamma=2.0, weights="balanced"),
        swa=Swa(100, 1e-5, 10, flat=True, judged=False),
        augment=Augment(),
        views="kd-teacher-as-released",
        canvas=CANVAS,
    )
    student = replace(
        recipe.student,
        drop_rest=True,
        decay_all=True,
        select="accuracy",
        augment=Augment(),
        views="kd-student-as-released",
        canvas=CANVAS,
    )
    return replace(recipe, name=f"{recipe.name}-as-released", teacher=teacher, student=student)


def kd_oct() -> Recipe:
    """KD-OCT without a data set in its name: the values of UCSD (batches of 64 and 16 x 2).

    Command: octc train teacher --dataset ucsd --recipe kd-oct && octc train student --dataset ucsd --recipe kd-oct
    Cost: 100.98 and 1.93 GMAC an image at 384 px; a GPU is needed in practice. Start weights come from timm's hub (once
    `--fetch-weights`, or `--weights FILE`); the teacher's are CC-BY-NC-4.0, the student's Apache-2.0.
    Score: as kd-oct-ucsd.
    """
    return Recipe("kd-oct", _teacher(64, 1), _student(16))


def kd_oct_ucsd() -> Recipe:
    """KD-OCT on UCSD, four classes: teacher in batches of 64, student 16 x 2.

    Command: octc train student --dataset ucsd --recipe kd-oct-ucsd --with-teacher --fetch-weights
    Cost: up to 150 + 100 epochs of 100.98 and 1.93 (+ 100.98 of the teacher) GMAC an image, forward alone.
    Score: published, on the official test: teacher 97.72 +- 0.17, student 97.74 +- 0.27 % (five models, one test set, ddof 0).
    """
    return replace(kd_oct(), name="kd-oct-ucsd")


def kd_oct_neh() -> Recipe:
    """KD-OCT on NEH, three classes: teacher 4 x 4, student 8 x 2.

    Command: octc train student --dataset neh --recipe kd-oct-neh --with-teacher --fetch-weights
    Cost: as kd-oct-ucsd, on a seventh of the images.
    Score: published, five folds: teacher 92.57 +- 2.32, student 92.46 +- 1.36 % (ddof 0).
    """
    return Recipe("kd-oct-neh", _teacher(4, 4), _student(8))


def kd_oct_ucsd_as_released() -> Recipe:
    """KD-OCT on UCSD with every value and every error of the released code, for comparison alone.

    Command: octc train student --dataset ucsd --recipe kd-oct-ucsd-as-released --with-teacher --fetch-weights --precision fp16
    Cost and score: as kd-oct-ucsd; the Pillow pipelines are slower.
    """
    return _as_released(kd_oct_ucsd())


def kd_oct_neh_as_released() -> Recipe:
    """KD-OCT on NEH with every value and every error of the released code, for comparison alone.

    Command: octc train student --dataset neh --recipe kd-oct-neh-as-released --with-teacher --fetch-weights --precision fp16
    Cost and score: as kd-oct-neh; the Pillow pipelines are slower.
    """
    return _as_released(kd_oct_neh())


def kd_oct_open() -> Recipe:
    """KD-OCT with a teacher that may be used commercially: ConvNeXt-Large, ImageNet-22k, Apache-2.0 (ConvNeXtV2's: CC-BY-NC).

    Command: octc train student --dataset ucsd --recipe kd-oct-open --with-teacher --fetch-weights
    Cost: 196.2 M parameters and 100.98 GMAC at 384 px, as the published teacher. Score: not published; none is promised.
    """
    return Recipe("kd-oct-open", _teacher(64, 1, OPEN_TEACHER), _student(16))
