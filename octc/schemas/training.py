"""Options of a training, for `octc train` and `octc.train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from octc.core.cells import digits_of
from octc.core.data_options import DataOptions
from octc.core.errors import OctcError
from octc.core.options import LEAST, check_choices, described, option, spelled
from octc.schemas.licences import USES

DEVICES = "auto, cpu, cuda or cuda:N"
SEED = 0  # the default of trainings
START = "Initial weights (safetensors, or the tensors of a torch.save file)"
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainOptions(DataOptions):
    """Options of every training; None: the value of the recipe."""

    dataset: str | None = option(None, metavar="NAME", shown="Data set (octc data list)")
    recipe: str | None = option(None, metavar="NAME|FILE", shown="Recipe (octc list recipes), or one in a JSON file")
    epochs: int | None = option(None, within=(1, None), shown="Epochs instead of the recipe's")
    seed: int | None = option(
        None, within=(0, None), shown="Seed of the split and of the training (0; retnet-student: the teacher's)"
    )
    batch: str = option("auto", metavar="auto|N", shown="Batch size; auto: halved where memory is short")
    device: str = option("auto", shown=f"Device for training: {DEVICES}")
    precision: str = option("auto", choices=PRECISIONS, shown=f"Floating-point format: {', '.join(PRECISIONS)}")
    resume: str | None = option(None, metavar="[RUN]", shown="Resume an unfinished run (the newest without RUN)")
    allow_change: bool = option(
        False, names=("--allow-change",), shown="Resume although options differ; the differences are listed"
    )
    skip_bad: bool = option(False, names=("--skip-bad",), shown="Leave out unreadable images; they are listed")
    weights: Path | None = option(None, metavar="FILE|none", shown=f"{START}, or none, instead of the recipe's")
    trust_pickle: bool = option(
        False,
        names=("--trust-pickle",),
        shown="No longer needed: only the tensors of a torch.save file are read, no code in it is run",
    )
    fetch_weights: bool = option(
        False, names=("--fetch-weights",), shown="Download the recipe's pretrained weights from timm's hub"
    )
    use: str | None = option(
        None, choices=USES, shown="Intended use; refuse if a licence of data, weights or teachers forbids it"
    )
    licences: Path | None = option(None, metavar="FILE", shown="With --use: licences that you know (JSON)")
    folds: int | None = option(
        None,
        within=(2, None),
        metavar="K",
        shown="Cross-validation by patient: K runs and a summary; repeat the command to resume",
    )
    leave_out: str | None = option(
        None, metavar="size|site", shown="Cross-validation that leaves one acquisition out per fold: by image size, or by site"
    )
    fold: int | None = option(
        None,
        within=(1, None),
        metavar="I",
        shown="Train only this fold of --folds or --leave-out (to share the work among machines)",
    )
    modality: str | None = option(
        None, metavar="oct|fundus|both", shown="Modality of the network, for recipes with two; both: two students"
    )
    protocol: str = option(
        "clean", metavar="NAME", shown="Split: clean, or KD-OCT's with its leakage: as-released, as-released-teacher"
    )


@dataclass(frozen=True)
class StudentOptions(TrainOptions):
    """Options of a student, in addition to those of every training."""

    weights: Path | None = option(
        None,
        metavar="FILE|none|teacher",
        shown=f"{START}, none, or teacher (its tensors of the same name), instead of the recipe's",
    )
    teacher: str | None = option(None, metavar="RUN[,RUN]|FILE|hub:NAME|none", shown="Teacher or teachers (newest fitting run)")
    with_teacher: bool = option(False, names=("--with-teacher",), shown="Train the teacher first, then the student")
    teacher_model: str | None = option(
        None, metavar="NAME", shown="timm network of a teacher FILE from another program (the recipe's teacher)"
    )
    any_teacher: bool = option(False, names=("--any-teacher",), shown="Accept a teacher at chance level, to try the pipeline")
    mutual: bool = option(
        False, names=("--mutual",), shown="Mutual learning of two students, one per modality (recipes of two modalities)"
    )
    qat: bool = option(True, names=("--qat/--no-qat",), shown="Quantisation-aware training afterwards")
    distil: str | None = option(None, choices=("kl", "dist", "dkd"), shown="Distillation loss: kl, dist or dkd")
    standardise: bool | None = option(
        None,
        names=("--standardise/--no-standardise",),
        shown="Standardise the logits of teacher and student before the distillation loss",
    )
    calibrate: bool | None = option(
        None,
        names=("--calibrate/--no-calibrate",),
        shown="Temperature scaling of the teacher's logits, fitted on val",
    )
    cached_views: int | None = option(
        None,
        within=(0, None),
        metavar="N",
        shown="Cache the teacher's logits of N augmented views per image; 0: run the teacher at every step",
    )
    teacher_precision: str | None = option(
        None, choices=("fp32", "bf16"), shown="Floating-point format of the teacher; bf16 is refused if its predictions differ"
    )
    cached_views_on: str | None = option(
        None, metavar="ADDRESS|local", shown="Ray cluster that computes --cached-views; local: this machine"
    )


@dataclass(frozen=True)
class EyeStudentOptions(StudentOptions):
    """Options of `octc train retnet-student`: quantisation-aware training is off by default, no weights from the teacher."""

    weights: Path | None = option(None, metavar="FILE|none", shown=f"{START}, or none, instead of the recipe's")
    qat: bool = option(False, names=("--qat/--no-qat",), shown="Quantisation-aware training afterwards")


def check_options(options: TrainOptions) -> None:
    """Refuse invalid values (OctcError E104), with the name of the option."""
    check_choices(options)
    for one in described(options):
        value, least = getattr(options, one.name), one.metadata[LEAST]
        if least is not None and value is not None and value < least:
            hint = f"a whole number from {least:g}"
            raise OctcError("OCT-E104", f"{spelled(one)} {value}", hint=hint, place=spelled(one))
    kind, _, number = options.device.partition(":")
    if options.device not in ("auto", "cpu", "cuda") and (kind != "cuda" or digits_of(number) is None):
        raise OctcError("OCT-E104", f"--device {options.device}", hint=DEVICES, place="--device")
    batch_of(options)


def batch_of(options: TrainOptions) -> int | None:
    """The batch size; None for "auto" (OctcError E104: neither a whole number nor "auto")."""
    text = "auto" if options.batch is None else str(options.batch)
    if text == "auto":
        return None
    count = digits_of(text)
    if not count:
        raise OctcError("OCT-E104", f"--batch {text}", hint="auto, or a whole number from 1", place="--batch")
    return count
