"""The result of a comparison (docs/parity.md, section 16), verify.json that keeps results, and what `octc verify` prints."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType, field

from octc.schemas.common import Code, Document, Limits, Part, Sha256, Share, Table, Views

Word = Literal["equivalent", "non_inferior", "inconclusive", "inferior", "fail", "golden_only", "not_tested"]


class Side(Document):
    """Reference or candidate: the file, its engine and its temperature."""

    name: str
    artifact_sha256: str
    role: Literal["student", "teacher"]
    model: str
    target: str
    precision: str
    runtime: str
    version: Any
    device: Any
    cpu_isa: Any
    threads: Any
    preprocess_sha256: str
    temperature: float
    source: str
    facts: Table


class EvaluationSet(Document, kw_only=True):
    """The images, and how they were read before."""

    name: Part
    n: int
    patients: int | None
    sha256_of_ids: Sha256
    uses_of_test: int | None
    readings_of_test: int | UnsetType | None = UNSET
    leakage: str
    protocol: str
    tta: Views
    note: str
    patient_ids: Literal["known", "partial", "unknown"]
    images_without_patient: Annotated[int, Meta(ge=0)]


class Bootstrap(Document):
    resamples: int
    seed: int
    generator: str
    numpy: str


class TestPlan(Document, kw_only=True):
    """What was fixed before the candidate was looked at, and the power that follows."""

    __test__ = False

    alpha: float
    margin_pp: float
    class_margin_pp: float
    claim: Literal["ni", "tost"]
    tier: Literal["99", "99.9"]
    ece_slack: float
    auc_margin_points: float | None
    locked_at: str | None
    bootstrap: Bootstrap
    d_plan: float | UnsetType = UNSET
    d_plan_source: str | UnsetType = UNSET
    icc: float | UnsetType = UNSET
    icc_source: str | UnsetType = UNSET
    deff_plan: float | UnsetType = UNSET
    n_eff: int | UnsetType = UNSET
    power: Share | UnsetType = UNSET
    needed_n_60: int | UnsetType | None = UNSET
    needed_n_80: int | UnsetType | None = UNSET
    smallest_n: int | UnsetType = UNSET


class IntegerPair(Document):
    reference: int
    candidate: int


class FloatPair(Document):
    reference: float
    candidate: float


class SharePair(Document):
    reference: Share
    candidate: Share


class LimitsPair(Document):
    reference: Limits | None
    candidate: Limits | None


class Levels(Document):
    reference: float | None
    candidate: float | None


class PairCounts(Document):
    both_right: int
    lost: int
    gained: int
    both_wrong: int
    ties: IntegerPair


class Accuracy(Document):
    """In percent and percentage points."""

    reference: float
    candidate: float
    hits: IntegerPair
    wilson: LimitsPair
    wilson_deff: LimitsPair
    difference_pp: float
    tango: Limits | None
    tango_scaled: Limits | None
    bootstrap: Limits | None
    bootstrap_reason: str | None
    deciding: Limits | None
    decided_by: str
    deff: float
    deff_obs: float | None
    deff_plan: float | None
    mean_cluster_size: float | None
    discordant_patients: int | None
    p_ni: Share
    p_tost: Share
    mcnemar_exact: Share
    mcnemar_midp: Share


class Tiers(Document):
    reached_99: bool = field(name="99")
    reached_99_9: bool = field(name="99.9")
    needed_99: int
    needed_99_9: int


class ClassSide(Document):
    tp: int
    sens: float | None
    sens_wilson: Limits | None
    sens_wilson_deff: Limits | None
    sens_interval: Limits | None
    tn: int
    others: int
    spec: float | None
    spec_reason: str | None
    spec_wilson: Limits | None
    spec_interval: Limits | None
    ppv: float | None
    f1: float | None


TESTED = (
    "patients",
    "reference",
    "candidate",
    "lost",
    "gained",
    "D_pp",
    "tango",
    "deciding",
    "deff",
    "p",
    "p_holm",
    "p_ni",
    "p_ni_holm",
    "harm",
    "guard_reason",
    "needed_n",
)


class ClassResult(Document, kw_only=True):
    """A class; one without images has a reason and no numbers, and its guard is open."""

    RULES: ClassVar[Table] = {
        "if": {"required": ["reason"]},
        "then": {"properties": {"n": {"const": 0}, "guard": {"const": False}}},
        "else": {"required": list(TESTED)},
    }

    name: str
    n: int
    guard: bool
    reason: str | UnsetType | None = UNSET
    patients: int | UnsetType | None = UNSET
    reference: ClassSide | UnsetType = UNSET
    candidate: ClassSide | UnsetType = UNSET
    lost: int | UnsetType = UNSET
    gained: int | UnsetType = UNSET
    difference_pp: float | UnsetType = field(name="D_pp", default=UNSET)
    tango: Limits | UnsetType | None = UNSET
    deciding: Limits | UnsetType | None = UNSET
    deff: float | UnsetType = UNSET
    p: Share | UnsetType = UNSET
    p_holm: Share | UnsetType = UNSET
    p_ni: Share | UnsetType = UNSET
    p_ni_holm: Share | UnsetType = UNSET
    harm: bool | UnsetType = UNSET
    guard_reason: str | UnsetType | None = UNSET
    needed_n: int | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        if self.reason is UNSET:
            lacking = [name for name in TESTED if getattr(self, {"D_pp": "difference_pp"}.get(name, name)) is UNSET]
            if lacking:
                raise ValueError(f"a class with images needs {', '.join(lacking)}")
        elif self.n or self.guard:
            raise ValueError("a class that has a reason has no images and no guard")


class Confusion(Document):
    reference: list[list[int]]
    candidate: list[list[int]]


class AucRow(Document):
    name: str
    reference: Share | None
    candidate: Share | None
    difference: float | None
    reference_interval: Limits | None
    candidate_interval: Limits | None
    difference_interval: Limits | None
    p: Share | None
    method: Literal["DeLong", "patient bootstrap", "Obuchowski"] | None
    reason: str | None


class Auc(Document):
    classes: list[AucRow]
    macro: AucRow


class ProbabilityErrors(Document):
    ece_mass: Share
    ece_width: Share
    brier: float
    nll: float


class TemperatureFit(Document):
    value: float
    set: str
    n: int
    nll_before: float | None
    nll_after: float | None
    reason: str | None
    fitted: bool


class SideCalibration(ProbabilityErrors):
    intervals: dict[str, Limits | None]
    temperature: float
    temperature_fit: TemperatureFit
    after_temperature: ProbabilityErrors


class Calibration(Document):
    reference: SideCalibration
    candidate: SideCalibration


class Flip(Document):
    """An image that the two networks answer differently."""

    id: str
    label: str
    reference: str
    candidate: str
    margin_reference: float
    margin_candidate: float


class Agreement(Document):
    count: int
    rate: Share
    wilson: Limits | None
    bootstrap: Limits | None
    flips: list[Flip]
    near_tie_limit: float | None
    near_tie_flips: int | None
    kl_mean: float
    kl_p95: float
    kl_max: float
    dlogit_max: float
    dlogit_p99: float
    dlogit_mean: float
    dlogit_centred_max: float
    logit_scale: Literal["raw"]
    s: float


class Backend(Document):
    """The same network in two engines."""

    pair_id: str
    delta_over_s: float | None
    kl_mean: float
    agreement: Share
    ok: bool


class Subgroup(Document):
    column: str
    value: str
    n: int
    patients: int | None
    accuracy: FloatPair
    wilson: LimitsPair
    lost: int
    gained: int
    difference_pp: float = field(name="D_pp")
    deciding: Limits | None
    agreement: Share
    p: Share
    p_holm: Share
    loss: bool


class Golden(Document):
    """The replay of the golden images."""

    images: int
    max_delta_over_s: float | None
    ok: bool


class VerdictPart(Document):
    name: str
    holds: bool
    word: str
    reason: str
    detail: str
    code: Code


class Verdict(Document, kw_only=True):
    word: Word
    reasons: list[str]
    exploratory: bool
    exit_code: int
    withheld: str | UnsetType | None = UNSET
    better: bool | UnsetType = UNSET
    loss_shown: bool | UnsetType = UNSET
    parts: list[VerdictPart] | UnsetType = UNSET
    exploratory_reason: str | UnsetType | None = UNSET


class Blocks(Document, kw_only=True):
    """What is said of two sets of answers to the same images, whatever gave them."""

    schema_version: Literal["1.0"]
    units: str
    plan: TestPlan
    counts: PairCounts | None
    accuracy: Accuracy | None
    tiers: Tiers | None
    classes: list[ClassResult] | None
    macro: Table | None
    confusion: Confusion | None
    auc: Auc | None
    calibration: Calibration | None
    verdict: Verdict
    warnings: list[str]


class Claim(Blocks, kw_only=True):
    """One candidate against one reference. Blocks are null where the candidate's logits are not finite."""

    command: Literal["verify"]
    against: Literal["fp32", "teacher"]
    reference: Side
    candidate: Side
    set: EvaluationSet
    agreement: Agreement | None
    backends: list[Backend]
    subgroups: list[Subgroup]
    golden: Golden | None
    not_finite: list[str] | UnsetType = UNSET


class Cell(Document):
    """One corruption at one level."""

    kind: str
    level: float
    n: int
    reference: Share
    candidate: Share
    difference: float
    deciding: Limits | None
    agreement: Share
    excess: float
    p: Share
    p_holm: Share


class Robustness(Document):
    clean: SharePair
    cells: list[Cell]
    breaks_at: dict[str, Levels]
    earlier: list[str]


class Layer(Document):
    name: str
    error: float
    added: float
    gain: float


class OneWay(Document, kw_only=True):
    """`octc.stats.aggregation.Aggregation`."""

    method: str
    top: int
    chosen_on: str
    position: float | UnsetType = UNSET
    weights: list[float] | UnsetType = UNSET


class Ways(Document):
    """How reference and candidate make an eye's answer of its B-scans."""

    reference: OneWay
    candidate: OneWay


class Eyes(Document):
    """The first claim on the eyes of a set of volumes; `reason` says why there is none."""

    eyes: int
    left_out: int
    aggregation: Ways
    claim: Claim | None
    reason: str | None


class BoxLabels(Document):
    """Answers to the labelled images, in the order of their ids: a class of each, or its findings.

    gaps: of each, its largest logit less the one that follows; where one class is the answer and no rule decides.
    """

    sha256_of_ids: Sha256
    predictions: list[int | list[int]]
    gaps: list[Annotated[float, Meta(ge=0)]] | UnsetType = UNSET


class BoxLayer(Document):
    name: str
    values: list[float]


class Box(Document):
    """What one machine answered: to be put beside others by `octc verify --fleet`. thresholds: where findings are several."""

    engine: Table
    golden_logits: list[list[float]]
    labels: BoxLabels | None
    layers: list[BoxLayer] | None
    layers_reason: str | None
    thresholds: list[Share] | UnsetType | None = UNSET


class Promise(Document, kw_only=True):
    """A promise of a rule, and what came of it on this set. p_kept: of coverage alone."""

    what: Literal["coverage", "sensitivity", "specificity", "risk", "referred"]
    name: str
    level: Share
    hits: int
    n: int
    patients: int
    value: Share | None
    by_patient: Share | None
    exact: Limits
    clustered: Limits
    deff: float
    p_kept: Share | None
    word: Literal["kept", "open", "broken"]


class SideDecisions(Document, kw_only=True):
    promises: list[Promise]
    set_sizes: list[int] | None
    mean_set_size: float | None
    referred: int
    accuracy: Share
    accuracy_kept: Share | None
    costs: Table | None


class DecisionChange(Document, kw_only=True):
    """What the candidate changes. carried: the reference's rules on the candidate's answers."""

    labels: int
    sets: int | None
    referrals: int
    coverage: Table | None
    carried: list[Promise]


class Decisions(Document, kw_only=True):
    """Rules of both sides, judged (docs/abstention.md)."""

    unit: Literal["image", "eye"]
    reference: SideDecisions | None
    candidate: SideDecisions | None
    change: DecisionChange | None


class VerifyResult(Claim, kw_only=True):
    """The document of an artifact: its first claim, its others, and further views of the images."""

    run_id: str | None
    time_utc: str
    versions: Table
    machine: Table
    artifact: str
    robustness: Robustness | None
    layers: list[Layer]
    layers_reason: str | None
    suspects: list[str]
    claims: list[Claim]
    tta: list[Claim]
    eyes: Eyes | UnsetType | None = UNSET
    box: Box | UnsetType | None = UNSET
    rules: list[Decisions] | UnsetType = UNSET


class GoldenCandidate(Document):
    name: str
    artifact_sha256: str
    role: str
    precision: str


class GoldenResult(Document, kw_only=True):
    """The document of an artifact of which the golden images alone were replayed."""

    schema_version: Literal["1.0"]
    command: Literal["verify"]
    run_id: str | None
    time_utc: str
    versions: Table
    machine: Table
    artifact: str
    robustness: Robustness | None
    layers: list[Layer]
    layers_reason: str | None
    suspects: list[str]
    candidate: GoldenCandidate
    set: None
    set_reason: str | None
    golden: Golden | None
    verdict: Verdict
    warnings: list[str]
    box: Box | UnsetType | None = UNSET


class Absent(Document):
    name: str
    reason: str


class TestSetLog(Document):
    """Who read the test images, and when."""

    __test__ = False

    readings: Any
    uses: Any
    since: Any
    complete: Any
    rows: Any


RESULTS = (VerifyResult, GoldenResult)
OfArtifact = Annotated[
    Table, Meta(extra_json_schema={"anyOf": [{"$ref": f"#/$defs/{one.__name__}"} for one in RESULTS]})
]  # one of RESULTS: msgspec takes no union of structs that no field tells apart


class VerifyReport(Document, kw_only=True):
    """What `octc verify` prints."""

    PARTS = RESULTS

    run: str | None
    set: Part
    golden_only: bool
    artifacts: list[OfArtifact]
    absent: list[Absent]
    notes: list[str]
    summary: list[dict[str, str]]
    uses_of_test: int | None
    test_set_log: TestSetLog | UnsetType | None = UNSET


class DeviceStep(Document):
    name: str
    state: Literal["ok", "failed", "skipped", "not asked"]
    text: str
    code: str


class DeviceReport(Document):
    """What `octc verify --device` prints."""

    word: Literal["pass", "fail", "incomplete"]
    steps: list[DeviceStep]
    fastest: str | None
    fell_back: bool
    report: str | None


class FleetRow(Document):
    """One machine beside the reference.

    Attributes:
        box, file: its name and the document. engine: what the answers depend on; differs: in which of it.
        word: its own verdict. golden_labels of golden_images, labels of images: how many answers differ; None where unknown.
        labels_at_ties: of those labels, where the reference's two largest logits are no further apart than golden logits of
            the two machines can move them (twice the largest difference); None where that is not known.
        delta_over_s: largest difference of a golden logit over the mean range of the reference's.
        first_layer: where a difference of more than rounding begins; worst_layer: that which adds most; with their relative
            errors. short: why it falls short, or None.
    """

    box: str
    file: str
    engine: Table
    differs: list[str]
    word: str
    golden_labels: int
    golden_images: int
    delta_over_s: float | None
    labels: int | None
    images: int | None
    labels_at_ties: int | None
    first_layer: str | None
    first_error: float | None
    worst_layer: str | None
    worst_error: float | None
    short: str | None


class FleetReport(Document):
    """What `octc verify --fleet` prints."""

    artifact: str
    artifact_sha256: str
    reference: str
    rows: list[FleetRow]
    passed_over: list[str]
    page: str


class RemoteVerdict(Document):
    """What `octc verify --on` prints. verdicts: verify.json of the other machine, as it was written to `file`."""

    remote_host: str
    file: str | None
    verdicts: Table | None


class MultilabelVerdict(Document):
    word: str


class MultilabelResult(Document, kw_only=True):
    """The document of an artifact of a network of several labels."""

    artifact: str
    artifact_sha256: str
    task: Literal["multilabel"]
    golden: Table | None
    reference: str | None
    set: Table | None
    verdict: MultilabelVerdict
    decisions: Table | None
    uses_of_test: int | None
    readings_of_test: int | UnsetType | None = UNSET
    error: str | None
    box: Box | UnsetType | None = UNSET
    rules: list[Decisions] | UnsetType = UNSET


class MultilabelReport(Document):
    run: str | None
    set: Part
    golden_only: bool
    artifacts: Annotated[list[MultilabelResult], Meta(min_length=1)]


class StoredVerdict(Document, kw_only=True):
    word: Word
    exploratory: bool = False
    reasons: list[str] | UnsetType = UNSET
    exit_code: int | UnsetType = UNSET


class StoredSide(Document, kw_only=True):
    """What readers rely on in the numbers of one model on one class."""

    sens: float | UnsetType = UNSET


class StoredClass(Document, kw_only=True):
    """What readers rely on in a class of a stored result."""

    name: str
    n: int | UnsetType = UNSET
    guard: bool | UnsetType = UNSET
    candidate: StoredSide | UnsetType | None = UNSET


class StoredAccuracy(Document, kw_only=True):
    """What readers rely on in the accuracy of a stored result: percent and percentage points."""

    candidate: float
    difference_pp: float
    deciding: Limits | UnsetType | None = UNSET


class StoredErrors(Document, kw_only=True):
    """What readers rely on in the calibration of one model."""

    ece_mass: float | UnsetType | None = UNSET
    brier: float | UnsetType | None = UNSET
    nll: float | UnsetType | None = UNSET


class StoredCalibration(Document, kw_only=True):
    """What readers rely on in the calibration of a stored result."""

    reference: StoredErrors | UnsetType = UNSET
    candidate: StoredErrors | UnsetType = UNSET


class StoredConfusion(Document, kw_only=True):
    """What readers rely on in the confusion matrices of a stored result."""

    reference: list[list[int]] | UnsetType = UNSET
    candidate: list[list[int]] | UnsetType = UNSET


class StoredResult(Document, kw_only=True):
    """What readers of verify.json rely on in a `VerifyResult`, a `GoldenResult`, a `MultilabelResult`, or an older one."""

    verdict: StoredVerdict
    time_utc: str | UnsetType = UNSET
    against: Literal["fp32", "teacher"] | UnsetType | None = UNSET
    reference: Table | str | UnsetType | None = UNSET
    set: Table | UnsetType | None = UNSET
    plan: Table | UnsetType | None = UNSET
    accuracy: StoredAccuracy | UnsetType | None = UNSET
    calibration: StoredCalibration | UnsetType | None = UNSET
    confusion: StoredConfusion | UnsetType | None = UNSET
    classes: list[StoredClass] | UnsetType | None = UNSET
    golden: Table | UnsetType | None = UNSET
    robustness: Table | UnsetType | None = UNSET
    claims: list[Table] | UnsetType = UNSET
    tta: list[Table] | UnsetType = UNSET
    eyes: Table | UnsetType | None = UNSET
    layers: list[Layer] | UnsetType = UNSET
    suspects: list[str] | UnsetType = UNSET


class VerifyFile(Document, kw_only=True):
    """verify.json. `repeated`, `exploratory` and `last` (the key that was written last) are lacking where an older octc wrote
    it."""

    schema_version: Literal["1.0"]
    artifact_sha256: str
    test: StoredResult | None
    select: StoredResult | None
    golden: StoredResult | None
    repeated: StoredResult | None = None
    exploratory: list[StoredResult] = field(default_factory=list)
    last: Literal["test", "select", "golden"] | None = None
