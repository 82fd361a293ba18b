"""Options of jobs: one dataclass is the argument of the library and the options of the command."""

from __future__ import annotations

from dataclasses import dataclass

from octc.core.options import Key, option


@dataclass(frozen=True)
class BenchOptions:
    """How to measure. Times are texts with a unit ("30ms", "90s"); None is what the profile says.

    Attributes:
        scenario: "single" (latency) or "offline" (throughput).
        vs: "teacher" or "none": what the artifacts are compared with.
        max_p50, max_p90, max_p99, min_throughput, max_mj, require_speedup: gates, judged on the limit of the interval.
        power_csv: readings of a meter. allow_power_cap: rows at the GPU's power cap stay valid.
    """

    scenario: str = option("single", shown="single (latency, one query after the other) or offline (throughput)")
    batch: int | None = option(None, shown="Batch size (single: 1 and 8; offline: the best)")
    duration: str | None = option(
        None, shown="Least time of a row, for example 90s (60s; with --quick 10s)", key=Key(float, above=0)
    )
    min_queries: int | None = option(None, shown="Least queries of a row (1024; with --quick 459)", key=Key(int, low=1))
    max_duration: str | None = option(None, shown="Longest time of a row (600s)")
    quick: bool = option(False, shown="A short profile: not comparable, not for publication", names=("--quick",))
    threads: int | None = option(None, shown="Threads of every engine (physical cores within the quota)", key=Key(int, low=1))
    vs: str = option("teacher", shown="teacher or none: what the artifacts are compared with")
    max_p50: str | None = option(None, shown="Gate, for example 30ms")
    max_p90: str | None = option(None, shown="Gate, for example 30ms")
    max_p99: str | None = option(None, shown="Gate, for example 50ms")
    min_throughput: float | None = option(None, shown="Gate, images per second (--scenario offline)")
    max_mj: float | None = option(None, shown="Gate, millijoules per image")
    require_speedup: float | None = option(None, shown="Gate: INT8 at least so many times as fast as float")
    power: bool = option(True, shown="Read power where a sensor is", names=("--power/--no-power",))
    power_csv: str | None = option(None, shown="Readings of a meter: time, watts", metavar="FILE")
    allow_power_cap: bool = option(False, shown="Rows at the GPU's power cap stay valid", names=("--allow-power-cap",))


@dataclass(frozen=True)
class ReportOptions:
    """What a report is to hold.

    Attributes:
        html, md: the page alone, or Markdown with its figures alone; neither: both.
        checklist: "claim" or "tripod-ai". photos: show the images whose label changed (a row of the test-set log says so).
        out: the folder; None: reports/report-<time>.
    """

    html: bool = option(False, shown="The page (and not the Markdown)", names=("--html",))
    md: bool = option(False, shown="The Markdown with its figures (and not the page)", names=("--md",))
    checklist: str | None = option(None, shown="claim or tripod-ai, with what octc knows filled in")
    sbom: bool = option(False, shown="A bill of materials (CycloneDX) beside the report", names=("--sbom",))
    photos: bool = option(False, shown="Show the images whose label changed", names=("--photos",))
    redact_ids: bool = option(False, shown="Images by keyed checksums instead of their names", names=("--redact-ids",))
    out: str | None = option(None, shown="Where to (reports/report-<time>)", names=("-o", "--out"), metavar="DIR")
