"""Options of a training: what `octc train` offers and `octc.train` takes. One field is one knob, from the option to its use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from octc.core.cells import digits_of
from octc.core.data_options import DataOptions
from octc.core.errors import OctcError
from octc.core.options import LEAST, check_choices, described, option, spelled
from octc.schemas.licences import USES

DEVICES = "auto, cpu, cuda or cuda:N"
SEED = 0  # of a training that names none
START = "Start weights (safetensors, or of torch.save: its tensors alone)"
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainOptions(DataOptions):
    """What a training may be asked for; None takes what the recipe has."""

    dataset: str | None = option(None, metavar="NAME", shown="Data set (octc data list)")
    recipe: str | None = option(None, metavar="NAME|FILE", shown="Recipe (octc list recipes), or one in a JSON file")
    epochs: int | None = option(None, within=(1, None), shown="Epochs instead of the recipe's")
    seed: int | None = option(
        None, within=(0, None), shown="Seed of the split and of the training (0; across modalities, a student's: its teacher's)"
    )
    batch: str = option("auto", metavar="auto|N", shown="Images per step; auto halves it where memory is short")
    device: str = option("auto", shown=DEVICES)
    precision: str = option("auto", choices=PRECISIONS, shown=", ".join(PRECISIONS))
    resume: str | None = option(None, metavar="[RUN]", shown="Go on with an unfinished run (the newest without RUN)")
    allow_change: bool = option(False, names=("--allow-change",), shown="Resume although options differ; they are listed")
    skip_bad: bool = option(False, names=("--skip-bad",), shown="Leave out images that cannot be read; they are listed")
    weights: Path | None = option(None, metavar="FILE|none", shown=f"{START}, or none, instead of the recipe's")
    trust_pickle: bool = option(
        False,
        names=("--trust-pickle",),
        shown="Needed no more: of a file of torch.save the tensors alone are read, nothing in it is run",
    )
    fetch_weights: bool = option(False, names=("--fetch-weights",), shown="Download the recipe's start weights from timm's hub")
    use: str | None = option(
        None, choices=USES, shown="What it is for (commercial): refused where a licence of data, weights or teachers forbids it"
    )
    licences: Path | None = option(None, metavar="FILE", shown="What you know of licences (JSON), for --use")
    folds: int | None = option(
        None, within=(2, None), metavar="K", shown="Cross-validation by patient: K runs and their summary; repeated, it goes on"
    )
    leave_out: str | None = option(
        None, metavar="size|site", shown="Cross-validation that leaves out one acquisition in turn: by image size, or by site"
    )
    fold: int | None = option(
        None, within=(1, None), metavar="I", shown="Only this fold of --folds or --leave-out, as another machine may do"
    )
    modality: str | None = option(
        None, metavar="oct|fundus|both", shown="What the network looks at, where a recipe has two; both: two students"
    )
    protocol: str = option(
        "clean", metavar="NAME", shown="Split: clean; as-released or as-released-teacher (KD-OCT's, leaks included)"
    )


@dataclass(frozen=True)
class StudentOptions(TrainOptions):
    """Options of a student, beside those of every training."""

    weights: Path | None = option(
        None, metavar="FILE|none|teacher", shown=f"{START}, none, or teacher (its own, by name), instead of the recipe's"
    )
    teacher: str | None = option(None, metavar="RUN[,RUN]|FILE|hub:NAME|none", shown="Teacher(s); newest fitting run")
    with_teacher: bool = option(False, names=("--with-teacher",), shown="Train the teacher first, in one go")
    teacher_model: str | None = option(
        None, metavar="NAME", shown="Which network of timm a teacher FILE of another program is (the recipe's teacher)"
    )
    any_teacher: bool = option(
        False, names=("--any-teacher",), shown="A teacher that is at chance may teach too: the way is tried, not the goal"
    )
    mutual: bool = option(
        False, names=("--mutual",), shown="Two students, one a modality, learn from each other (recipes of two modalities)"
    )
    qat: bool = option(True, names=("--qat/--no-qat",), shown="Quantisation-aware tuning afterwards")
    distil: str | None = option(None, choices=("kl", "dist", "dkd"), shown="Loss against the teacher: kl, dist or dkd")
    standardise: bool | None = option(
        None, names=("--standardise/--no-standardise",), shown="Standardise the logits of teacher and student first"
    )
    calibrate: bool | None = option(
        None,
        names=("--calibrate/--no-calibrate",),
        shown="Divide the teacher's logits by the temperature that fits val",
    )
    cached_views: int | None = option(
        None, within=(0, None), metavar="N", shown="Keep the teacher's logits of N views an image; 0 asks it at every step"
    )
    teacher_precision: str | None = option(
        None, choices=("fp32", "bf16"), shown="What the teacher computes in; bf16 is refused where its answers differ"
    )
    cached_views_on: str | None = option(
        None, metavar="ADDRESS|local", shown="Ray cluster whose machines compute --cached-views; local: of this machine alone"
    )


@dataclass(frozen=True)
class EyeStudentOptions(StudentOptions):
    """Those of `octc train retnet-student`, which tunes only where it is asked to, and whose teacher lends no weights."""

    weights: Path | None = option(None, metavar="FILE|none", shown=f"{START}, or none, instead of the recipe's")
    qat: bool = option(False, names=("--qat/--no-qat",), shown="Quantisation-aware tuning afterwards")


def check_options(options: TrainOptions) -> None:
    """Refuse what no training can be asked for (OCT-E104), with the name of the option."""
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
    """Images per step; None of "auto" (OCT-E104 for what is neither)."""
    text = "auto" if options.batch is None else str(options.batch)
    if text == "auto":
        return None
    count = digits_of(text)
    if not count:
        raise OctcError("OCT-E104", f"--batch {text}", hint="auto, or a whole number from 1", place="--batch")
    return count
