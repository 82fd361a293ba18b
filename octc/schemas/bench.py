"""The result of a measurement (docs/measurement.md, section 17), and the other documents of `octc bench`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType

from octc.schemas.common import Count, Document, Limits, Positive, Sha256, Table, Views

ErrorCode = Annotated[str, Meta(pattern="^OCT-E[0-9]{3}$")]
Time = Annotated[str, Meta(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$")]
Some = Annotated[list[str], Meta(min_length=1)]
Nothing = Annotated[list[str], Meta(max_length=0)]
Isa = Literal[
    "avx2", "avx512", "vnni", "avx512-bf16", "avx512-fp16", "amx", "neon", "neon-fp16", "neon-dotprod", "i8mm", "sve", "unknown"
]
CpuClass = Literal[
    "x86-baseline", "x86-avx2", "x86-avx512", "x86-vnni", "x86-amx", "arm-neon", "arm-dotprod", "arm-i8mm", "unknown"
]


class Measure(Document, forbid_unknown_fields=True, kw_only=True):
    """A number with its 95 % interval; where there is no number, the reason."""

    RULES: ClassVar[Table] = {
        "if": {"properties": {"value": {"type": "null"}}},
        "then": {"required": ["reason"], "properties": {"reason": {"type": "string", "minLength": 1}}},
    }

    value: float | None
    ci95: Limits | UnsetType | None = UNSET
    reason: str | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError("a value that is null needs a reason")


class Gpu(Document, forbid_unknown_fields=True):
    name: str
    sm: str | None
    driver: str | None
    memory_mib: int | None


class BenchMachine(Document, forbid_unknown_fields=True, kw_only=True):
    name: str
    os: str
    cpu_model: str
    cpu_class: CpuClass
    isa: Annotated[list[Isa], Meta(extra_json_schema={"uniqueItems": True})]
    cores_logical: Positive
    cores_physical: Positive
    affinity: list[Count]
    cgroup_quota: Annotated[float, Meta(gt=0)] | None
    smt: bool | None
    governor: str | UnsetType | None = UNSET
    ram_mib: Positive
    virtual: bool | None
    gpus: list[Gpu]
    power_mode: str | None
    jetson_clocks: bool | UnsetType | None = UNSET
    jetpack: str | UnsetType | None = UNSET
    load_before: Measure
    remote_host: str | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        if len(set(self.isa)) != len(self.isa):
            raise ValueError("isa: a name that stands twice")


class BenchSettings(Document, forbid_unknown_fields=True, kw_only=True):
    profile: Literal["standard", "quick"]
    threads: Positive
    threads_source: Literal["option", "quota", "affinity", "physical_cores"]
    pinned: bool | None
    duration_s: float
    min_queries: int
    max_duration_s: float
    warmup_min: Annotated[int, Meta(ge=50)]
    seed: int
    power_reader: Literal["on", "off"]
    gates: dict[str, float] | UnsetType = UNSET
    origins: dict[str, str] | UnsetType = UNSET


class BenchRuntime(Document, forbid_unknown_fields=True, kw_only=True):
    name: str
    version: str
    provider: str | UnsetType | None = UNSET
    precision_hint: str | UnsetType | None = UNSET
    streams: int | UnsetType | None = UNSET
    cuda_graph: bool | UnsetType | None = UNSET


class BenchArtifact(Document, forbid_unknown_fields=True, kw_only=True):
    id: str
    role: Literal["candidate", "reference"]
    model: str
    sha256: Sha256
    target: Literal["onnx", "openvino", "tensorrt", "litert", "torch"]
    precision_requested: Literal["fp32", "fp16", "bf16", "int8"]
    precision_found: dict[str, Count]
    reformat_layers: int | UnsetType | None = UNSET
    runtime: BenchRuntime
    input_px: Positive
    verify: Literal[
        "equivalent", "non_inferior", "inconclusive", "inferior", "fail", "golden_only", "reference", "not_verified"
    ]
    verify_exploratory: bool | UnsetType = UNSET
    file_mib: float | UnsetType = UNSET
    load_ms: Measure | UnsetType = UNSET
    load_ms_max: Measure | UnsetType = UNSET
    first_inference_ms: Measure | UnsetType = UNSET
    cold_start_ms: Measure | UnsetType = UNSET
    page_cache: Literal["warm", "dropped", "unknown"] | UnsetType = UNSET


class Warmup(Document, forbid_unknown_fields=True):
    calls: int
    settled: bool


class Latency(Document, forbid_unknown_fields=True, kw_only=True):
    min: Measure | UnsetType = UNSET
    p50: Measure
    p90: Measure
    p95: Measure | UnsetType = UNSET
    p99: Measure
    p99_9: Measure | UnsetType = UNSET
    max: Measure
    count_above_3x_p50: int | UnsetType = UNSET


class Memory(Document, forbid_unknown_fields=True, kw_only=True):
    rss_peak_mib: Measure
    rss_delta_mib: Measure | UnsetType = UNSET
    gpu_mib: Measure
    unified: bool | UnsetType = UNSET


class Energy(Document, forbid_unknown_fields=True, kw_only=True):
    source: Literal["nvml_energy", "nvml_power", "tegra", "rapl", "external", "none"]
    scope: Literal["gpu_board", "jetson_module", "cpu_package", "cpu_package+gpu_board", "wall", "none"]
    gross_mj: Measure
    net_mj: Measure
    idle_w: Measure
    readings: int | UnsetType = UNSET


class Conditions(Document, forbid_unknown_fields=True, kw_only=True):
    temp_start_c: Measure | UnsetType = UNSET
    temp_end_c: Measure | UnsetType = UNSET
    clock_first_mhz: Measure | UnsetType = UNSET
    clock_last_mhz: Measure | UnsetType = UNSET
    throttled: bool | None
    power_capped: bool | UnsetType | None = UNSET
    steal_percent: Measure | UnsetType = UNSET
    nr_throttled: int | UnsetType | None = UNSET


class Row(Document, forbid_unknown_fields=True, tag_field="status", kw_only=True):
    """One scenario of one artifact, whatever became of it."""

    id: str
    artifact: str
    scenario: Literal["single_stream", "offline"]
    scope: Literal["device", "host", "end_to_end"]
    batch: Positive
    tta: Views | UnsetType = UNSET
    mlperf_sample_size: bool | UnsetType = UNSET
    images_per_s: Measure | UnsetType = UNSET
    parts_ms: dict[str, Measure] | UnsetType = UNSET
    samples_sha256: str | UnsetType | None = UNSET


class ValidRow(Row, tag="VALID", kw_only=True):
    """Everything was measured, and there is nothing against it."""

    reasons: Nothing
    n: Count
    duration_s: Annotated[float, Meta(ge=0)]
    warmup: Warmup
    latency_ms: Latency
    memory: Memory
    energy: Energy
    conditions: Conditions
    samples_file: str | None


class PartialRow(Row, kw_only=True):
    """What was measured, and the reasons that speak against it."""

    reasons: Some
    n: Count | UnsetType = UNSET
    duration_s: Annotated[float, Meta(ge=0)] | UnsetType = UNSET
    warmup: Warmup | UnsetType = UNSET
    latency_ms: Latency | UnsetType = UNSET
    memory: Memory | UnsetType = UNSET
    energy: Energy | UnsetType = UNSET
    conditions: Conditions | UnsetType = UNSET
    samples_file: str | UnsetType | None = UNSET


class InvalidRow(PartialRow, tag="INVALID", kw_only=True):
    """Measured under conditions that are not those of docs/measurement.md."""


class MissingRow(PartialRow, tag="NA", kw_only=True):
    """Not measured."""


class TimeRatio(Document, forbid_unknown_fields=True, kw_only=True):
    """Two rows, measured in turns."""

    candidate_row: str
    reference_row: str
    kind: Literal["as_shipped", "same_precision", "int8_vs_other"]
    ratio: Measure
    pairs: Count
    dropped_pairs: Count | UnsetType = UNSET
    interleave: Literal["blocks", "reload", "none"]
    status: Literal["VALID", "INVALID", "NA"]
    text: str


class Finding(Document, forbid_unknown_fields=True, kw_only=True):
    code: str
    level: Literal["info", "warn", "fail"]
    text: str
    rows: list[str] | UnsetType = UNSET


class BenchError(Document, forbid_unknown_fields=True, kw_only=True):
    code: ErrorCode
    message: str
    help: str
    path: str | UnsetType | None = UNSET


class BenchResult(Document, forbid_unknown_fields=True, kw_only=True):
    """bench-<host>.json."""

    schema_version: Literal["1.0"]
    command: Literal["bench"]
    run_id: Annotated[str, Meta(min_length=1)]
    octc_version: str
    started_utc: Time
    status: Literal["PASS", "FAIL", "INVALID", "INTERRUPTED"]
    exit_code: Annotated[int, Meta(ge=0, le=255)]
    machine: BenchMachine
    settings: BenchSettings
    artifacts: list[BenchArtifact]
    rows: list[ValidRow | InvalidRow | MissingRow]
    comparisons: list[TimeRatio]
    findings: list[Finding]
    warnings: list[str]
    error: BenchError | UnsetType | None = UNSET


class BenchPlan(Document):
    """A dry run."""

    profile: str
    threads: int
    threads_source: str
    plan: list[dict[str, Any]]
    seconds: float
    gated: list[str]


class ComparedResults(Document):
    """`octc bench --compare`: two results."""

    runs: Annotated[list[str], Meta(min_length=2, max_length=2)]
    not_comparable: list[str]
    lines: list[Table]
