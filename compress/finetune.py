"""Quantisation-aware fine-tuning of a trained student, with the teacher on; the better of PTQ and QAT on val is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn
from torch.nn import functional

from octc.compress.calibrate import observe, set_ranges
from octc.compress.choosing import choose_kept, losses_of, room_to_gain
from octc.compress.fake_quant import learn_steps
from octc.compress.finetune_cached import cached_ways
from octc.compress.placement import ENGINES, convolutions, counts, prepare, set_mode
from octc.compress.rounding import forget_floats, round_with_compensation
from octc.core.errors import OctcError, shorten
from octc.core.progress import saying, silent
from octc.datasets.base import Progress, Sample, sample_ids
from octc.datasets.calibration import MINIMUM, equal_shares
from octc.stats.task import MULTICLASS, Answers
from octc.train.batches.images import eval_batches
from octc.train.distill.loading import load_teacher
from octc.train.distill.losses import soft_loss
from octc.train.distill.precision import in_precision
from octc.train.loop.checkpoint import Checkpoint, load_strictly, read_checkpoint
from octc.train.loop.evaluate import logits_of
from octc.train.loop.fit import fit
from octc.train.loop.label_losses import Loss
from octc.train.loop.state import made_from
from octc.train.loop.training import Data
from octc.train.loop.ways import Ways
from octc.train.networks.models import build_model, normalise, rebuilt
from octc.train.recipes.config import ALWAYS, Augment, Quantisation, Stage, plain
from octc.train.stages import Context, facts_of, fit_options, load_data, preprocess_of, written

ROUNDING = 128  # of them at most are looked at for the rounding of weights
Near = Callable[[torch.Tensor, torch.Tensor], dict[str, float]]


def calibration_indices(labels: list[int], wanted: int, seed: int) -> npt.NDArray[np.int64]:
    """Sorted indices of a stratified draw without replacement: equal numbers per class as far as possible."""
    rng = np.random.default_rng([seed, 0xCA11])
    by_class = {k: rng.permutation([i for i, label in enumerate(labels) if label == k]) for k in sorted(set(labels))}
    taken = equal_shares({k: len(rows) for k, rows in by_class.items()}, wanted)
    return np.sort(np.array([i for k, rows in by_class.items() for i in rows[: taken[k]]], dtype=np.int64))


def check_calibration(calibration: list[Sample], other: dict[str, tuple[Sample, ...]]) -> None:
    """Refuse calibration images that are in val or test, and a calibration set that is too small (E214)."""
    if len(calibration) < MINIMUM or len({s.label for s in calibration}) < 2:
        text = f"{len(calibration)} calibration images of {len({s.label for s in calibration})} classes"
        raise OctcError("OCT-E214", text, hint=f"at least {MINIMUM} images of at least two classes from train")
    for part, items in other.items():
        sums = {s.sha256 for s in items}
        if shared := [s.path for s in calibration if s.sha256 in sums]:
            text = f"calibration images overlap the {part} split ({len(shared)} files, sha256 match): {shorten(shared)}"
            raise OctcError("OCT-E214", text, hint="octc train again: the split is made anew", why="measured on seen images")


def calibrated(  # noqa: PLR0913 - what is calibrated, how, on what, and who is told
    student: nn.Module,
    how: Quantisation,
    data: Data,
    seed: int,
    device: Any = "cpu",
    progress: Progress | None = None,
    near: Near | None = None,
    whole: tuple[type[nn.Module], ...] = (),
    say: Callable[[str], None] = silent,
) -> tuple[fx.GraphModule, dict[str, Any]]:
    """Fold, insert quantisers, calibrate with each observer and round the weights; keep what agrees best with the float
    student on val.

    near: how close logits are to reference logits, with "agreement" and "kl"; `closeness` by default.
    whole: types of modules that are not traced into. progress: of images; say: is given lines about the rounding.

    Returns: the quantised network (quantisers on) and the table of what each observer gave.
    """
    pre = data.preprocess
    total, done = looks_of(how, len(data.labels), len(data.val_images)), 0

    def tell(images: int) -> None:
        nonlocal done
        done += images
        if progress is not None:
            progress(done, total)

    chosen = calibration_indices(list(data.labels), how.calibration, seed)
    quantised = prepare(student, pre.size, whole, how.placement).requires_grad_(True)
    channels_last(quantised.to(device))

    def batches(step: int = 1) -> Iterator[torch.Tensor]:
        for chunk in eval_batches(data.images[chosen[::step]], 32):
            yield normalise(chunk.to(device), pre).contiguous(memory_format=torch.channels_last)
            tell(len(chunk))

    observe(quantised, batches)
    reference = logits_of(student.to(device), data.val_images, pre, device)

    def look() -> dict[str, float]:
        set_mode(quantised, "on")
        found = (near or closeness)(reference, logits_of(quantised, data.val_images, pre, device))
        tell(len(data.val_images))
        return found

    table: dict[str, dict[str, float]] = {}
    for observer in how.observers:
        set_ranges(quantised, observer)
        table[observer] = look()
    best = max(table, key=lambda name: _nearness(table[name]))
    set_ranges(quantised, best)
    facts = {"observer": best, "observers": table, "calibration_images": len(chosen), "counts": counts(quantised)}
    if how.rounding:
        round_with_compensation(quantised, lambda: batches(_thin(len(chosen))), saying(say, "rounding of layers"))
        found = look()
        better = _nearness(found) >= _nearness(table[best])
        facts["rounded"] = {**found, "chosen": "gptq" if better else "nearest"}
        if not better:
            forget_floats(quantised, back=convolutions(quantised))
    set_mode(quantised, "on")
    if how.learned_steps:
        learn_steps(quantised)
    return quantised, facts


def channels_last(module: nn.Module) -> None:
    """Weights of convolutions of maps with their channels last. Other parameters of four axes keep the order that a network
    asks of them (`view_as_complex`)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)


def looks_of(how: Quantisation, train: int, val: int) -> int:
    """Number of image passes in `calibrated`, for its progress."""
    count = min(how.calibration, train)
    return 2 * count + how.rounding * -(-count // _thin(count)) + (len(how.observers) + how.rounding) * val


def _thin(count: int) -> int:
    """The stride with which calibration images are used for rounding."""
    return -(-count // ROUNDING)


def closeness(reference: torch.Tensor, logits: torch.Tensor) -> dict[str, float]:
    """Agreement (share of equal top-1) and mean KL(reference || logits) in nats, of logits [N, K]."""
    agreement = float((reference.argmax(1) == logits.argmax(1)).double().mean())
    log_p, log_q = functional.log_softmax(reference.double(), 1), functional.log_softmax(logits.double(), 1)
    return {"agreement": agreement, "kl": float((log_p.exp() * (log_p - log_q)).sum(1).mean())}


@dataclass(frozen=True)
class Lesson:
    """What a tuning trains. model: given to the training loop. prefix: of the quantised network's names in its state.

    made_of: the weights that the tuning begins from, in words; a state of other weights does not go on.
    """

    model: nn.Module
    stage: Stage
    loss: Loss | Ways
    made_of: str
    prefix: str = ""


@dataclass(frozen=True)
class Subject:
    """The student to tune: checkpoint, float network, data. strata: class of each image, for the stratified draw."""

    checkpoint: Checkpoint
    student: nn.Module
    data: Data
    strata: list[int]


@dataclass(frozen=True)
class Tuning:
    """The task-specific parts of quantisation-aware tuning.

    Attributes:
        data: training images and those that choose, of a context.
        near: how close logits are to reference logits. value: the metric that leads, of logits on the images that choose.
        metric: its name in the checkpoint's metrics. lesson: what is fitted, given the quantised network.
        kept: names of the float checkpoint's metrics that stay true.
        losses: cross-entropy of each image [N] of logits on the images that choose; with it the loss and the gate of a network
            decide, and whether it is tuned at all; None: it is tuned, and the metric and the nearness decide.
    """

    data: Callable[[Context], Data]
    near: Near
    metric: str
    value: Callable[[Context, torch.Tensor, Data], float]
    lesson: Callable[[Context, Subject, fx.GraphModule], Lesson]
    kept: tuple[str, ...] = ()
    losses: Callable[[torch.Tensor, Data], npt.NDArray[np.float64]] | None = None


def quantise(ctx: Context, tuning: Tuning) -> Checkpoint:
    """The qat stage of a student run: reads train/, writes qat/; the better of PTQ and QAT on the validation set is kept.

    Where the task has losses (`Tuning.losses`), tuning begins only if calibration left something to gain, and what is kept is
    the network with the smaller loss of those that the gate accepts against the float student; metrics "gain", and of each
    network "val_loss", "accepted" and "word", hold the numbers.
    """
    how, device, train = ctx.recipe.quantisation, ctx.accelerator.device, ctx.split.parts["train"]
    checkpoint, state = read_checkpoint(ctx.run.path / "train")
    student = rebuilt(checkpoint, state, str(ctx.run.path / "train"))
    student.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    subject = Subject(checkpoint, student, tuning.data(ctx), [s.label for s in train])
    chosen = [train[int(i)] for i in calibration_indices(subject.strata, how.calibration, ctx.seed)]
    check_calibration(chosen, {part: ctx.split.parts[part] for part in ("val", "test")})
    by_class = replace(subject.data, labels=subject.strata)
    quantised, facts = calibrated(student, how, by_class, ctx.seed, device, near=tuning.near)
    facts["calibration"] = [s.sha256 for s in chosen]
    weights = {"ptq": {name: tensor.clone() for name, tensor in quantised.state_dict().items()}}
    data = subject.data
    reference = logits_of(student, data.val_images, data.preprocess, device)

    def judge() -> tuple[dict[str, Any], torch.Tensor]:
        set_mode(quantised, "on")
        logits = logits_of(quantised, data.val_images, data.preprocess, device)
        found = {**tuning.near(reference, logits), tuning.metric: tuning.value(ctx, logits, data)}
        return {**found, **_decided(ctx, tuning, (reference, logits), data)}, logits

    ptq, logits = judge()
    judged = {"ptq": ptq}
    gain = _gain(ctx, tuning, (reference, logits), data)
    if how.epochs and (gain is None or gain["tune"] or how.start == ALWAYS):
        weights["qat"] = _tune(ctx, tuning.lesson(ctx, subject, quantised), data)
        load_strictly(quantised, weights["qat"], str(ctx.run.path / "qat"))
        judged["qat"], _ = judge()

    def rank(name: str) -> tuple[float, float, float]:
        return judged[name][tuning.metric], *_nearness(judged[name])

    nearest = max(sorted(judged, reverse=True), key=rank)  # equal ones: the tuned one
    best = nearest if gain is None else choose_kept(judged)
    metrics = {
        **judged,
        **({} if gain is None else {"gain": gain}),
        "chosen": best,
        **judged[best],
        "val_n": len(data.val_labels),
    }
    parent = {
        "model": checkpoint.model,
        "sha256": checkpoint.sha256,
        "weights": checkpoint.weights,
        "teacher": checkpoint.parent,
    }
    new = replace(
        checkpoint,
        quantisation={**asdict(how), **facts},
        parent=parent,
        recipe=asdict(ctx.recipe),
        metrics={**metrics, **{name: checkpoint.metrics.get(name) for name in tuning.kept}},
    )
    return written(ctx, ctx.run.path / "qat", weights[best], new)


def _decided(ctx: Context, tuning: Tuning, sides: tuple[torch.Tensor, torch.Tensor], data: Data) -> dict[str, Any]:
    """The loss on val of a network, and what the gate says of it against the float student (logits of both)."""
    if tuning.losses is None:
        return {}
    samples = ctx.split.parts["val"]
    loss = float(tuning.losses(sides[1], data).mean())
    try:
        result = MULTICLASS.gate(
            Answers(sample_ids(samples), samples, sides[0].numpy(), sides[1].numpy(), ctx.split.classes), None, ()
        )
    except OctcError as error:
        if error.code != "OCT-E708":
            raise
        return {"val_loss": loss, "accepted": True, "word": "not judged: the float student is at chance"}
    return {"val_loss": loss, "accepted": result.accepted, "word": result.word}


def _gain(ctx: Context, tuning: Tuning, sides: tuple[torch.Tensor, torch.Tensor], data: Data) -> dict[str, Any] | None:
    """What calibration left to gain (`room_to_gain`, of the logits of both); None where the task has no losses."""
    if tuning.losses is None:
        return None
    before, after = (tuning.losses(logits, data) for logits in sides)
    return room_to_gain(before, after, [s.patient for s in ctx.split.parts["val"]])


def _tune(ctx: Context, lesson: Lesson, data: Data) -> dict[str, torch.Tensor]:
    """The tuned weights. A tuning that was begun goes on, unless it began from another student."""
    folder = ctx.run.path / "qat"
    same = ctx.resume and made_from(folder) in (None, lesson.made_of)
    options = fit_options(ctx, folder, facts_of(ctx, lesson.stage, "qat", lesson.made_of))
    options = replace(options, seed=ctx.seed + 1, resume=same, exact=True)
    fitted = fit(lesson.model, lesson.stage, data, lesson.loss, options)
    prefix = lesson.prefix
    return {name.removeprefix(prefix): tensor for name, tensor in fitted.state.items() if name.startswith(prefix)}


def _lesson(ctx: Context, subject: Subject, quantised: fx.GraphModule) -> Lesson:
    """The float student and the first teacher anchor the quantised network; gentle views, a small rate."""
    stage, how, student = ctx.recipe.student, ctx.recipe.quantisation, subject.student
    gentle = replace(plain(stage), epochs=how.epochs, lr=how.lr, batch=how.batch, warmup=0.5, decay=0.0, ema=0.0, select="loss")
    gentle = replace(gentle, augment=_gentle(stage.augment), patience=how.epochs + 1)
    folder, data = next(iter(ctx.teachers), None), subject.data
    loss: Loss | Ways
    if folder is not None and ctx.recipe.distillation.views:
        loss = cached_ways(ctx, gentle, data, folder, lambda answers: anchored_loss(student, answers, how, quantised))
    else:
        teacher = None
        if folder is not None:
            teacher, _ = load_teacher(folder, ctx.split, data.preprocess, ctx.accelerator.device)
            teacher = in_precision(teacher, ctx.recipe.distillation.teacher_precision)
        loss = anchored_loss(student, teacher, how, quantised)
    return Lesson(quantised, gentle, loss, subject.checkpoint.sha256)


def _accuracy(_ctx: Context, logits: torch.Tensor, data: Data) -> float:
    return float((logits.argmax(1) == torch.tensor(list(data.val_labels))).double().mean())


def quantise_student(ctx: Context) -> Checkpoint:
    """`quantise` of a student whose classes exclude each other. The first of its teachers teaches."""
    return quantise(ctx, Tuning(_plain_data, closeness, "val_accuracy", _accuracy, _lesson, losses=_losses))


def _losses(logits: torch.Tensor, data: Data) -> npt.NDArray[np.float64]:
    return losses_of(logits, list(data.val_labels))


def _plain_data(ctx: Context) -> Data:
    return load_data(ctx, preprocess_of(ctx.recipe.student))


def anchored_loss(
    student: nn.Module, teacher: Callable[[torch.Tensor], torch.Tensor] | None, how: Quantisation, quantised: nn.Module
) -> Loss:
    """anchor * KL to the float student + (1 - anchor) * KL to the teacher, both T^2-scaled, + damping; no hard labels."""

    def loss(logits: torch.Tensor, x: torch.Tensor, _labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with torch.no_grad():
            own = student(x)
            target = own if teacher is None else teacher(x)
        anchor = soft_loss(logits, own, how.temperature)
        soft = soft_loss(logits, target, how.temperature)
        total, parts = how.anchor * anchor + (1 - how.anchor) * soft, {"anchor": anchor, "soft": soft}
        if not how.damping:
            return total, parts
        parts["damping"] = damping_loss(quantised)
        return total + how.damping * parts["damping"], parts

    return loss


def damping_loss(quantised: nn.Module) -> torch.Tensor:
    """Mean squared distance of the weights from their grid points, in steps: what keeps them from oscillating between two.

    Nagel et al. 2022, "Overcoming Oscillations in Quantization-Aware Training", equation 5, on the grid's own scale.
    """
    distances = []
    for conv in convolutions(quantised).values():
        scale = conv.weight_scale().view(-1, 1, 1, 1)
        distances.append((((conv.quantised_weight().detach() - conv.conv.weight) / scale) ** 2).mean())
    return torch.stack(distances).mean()


def _gentle(views: Augment) -> Augment:
    """Flips and small moves only: the ranges were calibrated on plain images and stay fixed."""
    return Augment(
        rotate=min(views.rotate, 5), translate=min(views.translate, 0.05), scale=min(views.scale, 0.1), hflip=views.hflip
    )


def _nearness(metrics: dict[str, float]) -> tuple[float, float]:
    return metrics["agreement"], -metrics["kl"]


def load_quantised(folder: Path) -> tuple[Checkpoint, fx.GraphModule]:
    """A qat checkpoint as a network with its quantisers on."""
    checkpoint, state = read_checkpoint(folder)
    plain = build_model(checkpoint.model, len(checkpoint.classes), **checkpoint.model_kwargs)
    kept = checkpoint.quantisation or {}
    quantised = prepare(plain, checkpoint.preprocess.size, placement=kept.get("placement", ENGINES))
    if kept.get("learned_steps"):
        learn_steps(quantised)
    load_strictly(quantised, state, str(folder))
    set_mode(quantised, "on")
    return checkpoint, quantised
