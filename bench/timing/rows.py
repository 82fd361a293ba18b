"""A measured row: numbers, conditions, and validity (docs/measurement.md, sections 3, 5, 11, 16)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from octc.bench.timing.conditions import Conditions, drifted, signs
from octc.bench.timing.latency import MLPERF, LatencyReport, Measure, missing, percentile, summarise
from octc.bench.timing.plan import RowPlan
from octc.bench.timing.power.energy import Energy, no_energy
from octc.bench.timing.profiles import Options, reaches_minimum
from octc.bench.timing.quantiles import student_quantile
from octc.core.csv_files import csv_bytes

BLOCKS = 10  # number of equal blocks of an offline run
CLOCK_SHARE = 0.01  # clock overhead as a share of p50 above which it is noted


@dataclass(frozen=True)
class Row:
    """A row of the result. reasons: why it is INVALID or NA; numbers are None if nothing was measured.

    Attributes:
        rate: images per second. parts: medians of decode, preprocess, infer and post, ms.
        rss_peak_mib, rss_delta_mib: peak memory of the process, and its increase since before the engine was imported, MiB.
        gpu_mib: GPU memory of the process, MiB; None if it runs on the CPU.
        samples: path "samples/..." in the artifact's folder, and its SHA-256.
        clock_note: a sentence if the clock overhead is not negligible, else empty.
    """

    plan: RowPlan
    status: str
    reasons: tuple[str, ...] = ()
    n: int = 0
    wall_s: float = 0.0
    warmup: Mapping[str, Any] | None = None
    latency: LatencyReport | None = None
    rate: Measure | None = None
    parts: Mapping[str, Measure] = field(default_factory=dict)
    rss_peak_mib: Measure | None = None
    rss_delta_mib: Measure | None = None
    conditions: Conditions | None = None
    energy: Energy | None = None
    gpu_mib: Measure | None = None
    samples: tuple[str, str] | None = None
    clock_note: str = ""

    @property
    def p50(self) -> float | None:
        """The median in ms, or None."""
        return None if self.latency is None else self.latency.percentiles["p50"].value

    def to_json(self) -> dict[str, Any]:
        """The `row` object of the schema."""
        plan = self.plan
        head: dict[str, Any] = {
            "id": plan.id,
            "artifact": plan.subject,
            "scenario": plan.scenario,
            "scope": plan.scope,
            "batch": max(1, plan.batch),
            "tta": "none",
            "status": self.status,
            "reasons": list(self.reasons),
        }
        if self.latency is None or self.conditions is None or self.warmup is None or self.rss_peak_mib is None:
            return head
        head |= {
            "n": self.n,
            "duration_s": self.wall_s,
            "mlperf_sample_size": self.n >= MLPERF,
            "warmup": dict(self.warmup),
            "latency_ms": self.latency.to_json(),
            "memory": {
                "rss_peak_mib": self.rss_peak_mib.to_json(),
                "unified": False,
                "gpu_mib": (self.gpu_mib or missing("runs on the CPU")).to_json(),
            },
            "energy": (self.energy or no_energy("not_requested")).to_json(),
            "conditions": self.conditions.to_json(),
            "samples_file": None if self.samples is None else self.samples[0],
            "samples_sha256": None if self.samples is None else self.samples[1],
        }
        if self.rss_delta_mib is not None:
            head["memory"]["rss_delta_mib"] = self.rss_delta_mib.to_json()
        if self.rate is not None:
            head["images_per_s"] = self.rate.to_json()
        if self.parts:
            head["parts_ms"] = {name: measure.to_json() for name, measure in self.parts.items()}
        return head


def not_measured(plan: RowPlan, reason: str) -> Row:
    """A row with status NA."""
    return Row(plan, "NA", (reason,))


def broken_row(plan: RowPlan, reason: str) -> Row:
    """A planned row whose measurement failed."""
    return Row(plan, "INVALID", (reason,))


def judge_row(
    plan: RowPlan,
    role: str,
    options: Options,
    answer: Mapping[str, Any],
    looks: Sequence[Any],
    *,
    precision_holds: bool,
    samples: tuple[str, str] | None,
) -> Row:
    """Make a row from the reply of its worker and the state of the machine."""
    durations = [int(d) for d in answer["durations_ns"]]
    conditions, wall = Conditions(tuple(looks)), float(answer["wall_s"])
    latency = summarise(np.asarray(durations) / 1e6)
    images = len(durations) * (plan.batch if plan.scenario == "offline" else 1)
    found = {
        "below_minimum": not reaches_minimum(options, role, images, wall),
        "warmup_unstable": not answer["warmup"]["settled"],
        **dict.fromkeys(signs(conditions, allow_cap=options.allow_cap), True),
        "drift": drifted(durations, conditions),
        "output_mismatch": bool(answer["differ"]),
        "precision_mismatch": not precision_holds,
    }
    reasons = tuple(name for name, holds in found.items() if holds)
    peak, before = answer["rss_peak_mib"], answer["rss_before_mib"]
    p50 = latency.percentiles["p50"].value or latency.least
    share = answer["clock_ns"] / 1e6 / p50
    return Row(
        plan,
        "INVALID" if reasons else "VALID",
        reasons,
        len(durations),
        wall,
        answer["warmup"],
        latency,
        rate=_rate(plan, answer),
        parts=_parts(answer),
        rss_peak_mib=missing("not_readable") if peak is None else Measure(peak),
        rss_delta_mib=None if peak is None or before is None else Measure(peak - before),
        conditions=conditions,
        samples=samples,
        clock_note=f"{plan.id}: reading the clock is {100 * share:.1f} % of p50" if share > CLOCK_SHARE else "",
    )


def _parts(answer: Mapping[str, Any]) -> dict[str, Measure]:
    """Medians of the parts of the end-to-end time, and of reading a file, which is not part of it."""
    parts = {name: percentile(np.sort(np.asarray(times) / 1e6), "0.5") for name, times in answer["parts_ns"].items()}
    read = answer.get("read_ms")
    return {**parts, "read": Measure(read)} if parts and read is not None else parts


def _rate(plan: RowPlan, answer: Mapping[str, Any]) -> Measure:
    """Images per second: over the whole loop, or (offline) the mean of ten equal blocks with its t interval."""
    starts, durations = (np.asarray(answer[name], dtype=np.int64) for name in ("starts_ns", "durations_ns"))
    batch = max(1, plan.batch)
    if plan.scenario != "offline":
        return Measure(batch * len(durations) / float(answer["wall_s"]))
    return block_rate(starts, durations, batch)


def block_rate(starts_ns: Any, durations_ns: Any, batch: int) -> Measure:
    """Mean images per second of ten equal blocks, with the 95 % t interval; an incomplete block is left out."""
    size = len(starts_ns) // BLOCKS
    if size == 0:
        return missing(f"n<{BLOCKS}")
    ends = np.asarray(starts_ns) + np.asarray(durations_ns)
    rates = []
    for first in range(0, BLOCKS * size, size):
        rates.append(batch * size / ((ends[first + size - 1] - starts_ns[first]) / 1e9))
    mean = float(np.mean(rates))
    half = student_quantile(BLOCKS - 1, 0.975) * float(np.std(rates, ddof=1)) / math.sqrt(BLOCKS)
    return Measure(mean, (mean - half, mean + half))


def precision_holds(requested: str, found: Mapping[str, int]) -> bool:
    """Whether the engine's graph runs in the requested precision.

    FP16 artifacts may be computed in FP32 (octc configures OpenVINO on a CPU so); bf16 is never accepted; INT8 requires that at
    least one layer runs in INT8.
    """
    allowed = {"fp32": {"fp32"}, "fp16": {"fp16", "fp32"}, "int8": {"int8", "fp16", "fp32"}}[requested]
    return set(found) <= allowed and (requested != "int8" or found.get("int8", 0) > 0)


def samples_csv(answer: Mapping[str, Any]) -> bytes:
    """Raw samples as CSV: index, start since the beginning of the loop, and duration, ns."""
    pairs = zip(answer["starts_ns"], answer["durations_ns"], strict=True)
    return csv_bytes(("index", "start_ns", "duration_ns"), ((index, *pair) for index, pair in enumerate(pairs)))
