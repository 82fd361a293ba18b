"""The document of docs/measurement.md is read, and what breaks its rules is refused by the struct and by its JSON Schema."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from octc.core.errors import OctcError
from octc.schemas.bench import BenchResult
from octc.schemas.common import convert, json_schema
from tests.bench_tools import check_schema
from tests.schema_checks import validate

# a document that satisfies the schema; layout only, the numbers mean nothing
EXAMPLE: dict[str, Any] = json.loads("""{"schema_version": "1.0",
"command": "bench", "run_id": "b-0001", "octc_version": "0.1.0",
"started_utc": "2026-11-22T09:00:00Z", "status": "PASS", "exit_code": 0, "machine": {"name": "edge1", "os": "Linux",
"cpu_model": "example", "cpu_class": "x86-vnni", "isa": ["avx2", "avx512", "vnni"], "cores_logical": 8,
"cores_physical": 4, "affinity": [0, 1, 2, 3], "cgroup_quota": null, "smt": true, "governor": "performance",
"ram_mib": 16000, "virtual": false, "gpus": [], "power_mode": null, "jetson_clocks": null, "jetpack": null,
"load_before": {"value": 0.1}, "remote_host": null}, "settings": {"profile": "standard", "threads": 4,
"threads_source": "physical_cores", "pinned": true, "duration_s": 60, "min_queries": 1024, "max_duration_s": 600,
"warmup_min": 50, "seed": 0, "power_reader": "on", "gates": {"max_p90_ms": 30}, "origins": {"threads": "default"}},
"artifacts": [{"id": "a1", "role": "candidate", "model": "student",
"sha256": "0000000000000000000000000000000000000000000000000000000000000000", "target": "openvino",
"precision_requested": "int8", "precision_found": {"int8": 1, "fp32": 1}, "reformat_layers": null,
"runtime": {"name": "openvino", "version": "0.0", "provider": null, "precision_hint": "f32", "streams": 1,
"cuda_graph": null}, "input_px": 288, "verify": "non_inferior", "file_mib": 1.0, "load_ms": {"value": 1.0},
"first_inference_ms": {"value": 1.0}, "page_cache": "warm"}], "rows": [{"id": "r1", "artifact": "a1",
"scenario": "single_stream", "scope": "device", "batch": 1, "tta": "none", "status": "VALID", "reasons": [], "n": 1024,
"duration_s": 60.0, "mlperf_sample_size": false, "warmup": {"calls": 50, "settled": true},
"latency_ms": {"p50": {"value": 1.0, "ci95": [1.0, 1.0]}, "p90": {"value": 1.0, "ci95": [1.0, 1.0]},
"p99": {"value": 1.0, "ci95": [1.0, 1.0]}, "p99_9": {"value": null, "reason": "n<4603"}, "max": {"value": 1.0},
"count_above_3x_p50": 0}, "memory": {"rss_peak_mib": {"value": 1.0}, "gpu_mib": {"value": null, "reason": "no_gpu"},
"unified": false}, "energy": {"source": "none", "scope": "none", "gross_mj": {"value": null, "reason": "no_permission"},
"net_mj": {"value": null, "reason": "no_permission"}, "idle_w": {"value": null, "reason": "no_permission"}},
"conditions": {"throttled": false, "clock_first_mhz": {"value": 1.0}, "clock_last_mhz": {"value": 1.0}},
"samples_file": "samples/r1.csv", "samples_sha256": null}, {"id": "r2", "artifact": "a1", "scenario": "single_stream",
"scope": "host", "batch": 1, "status": "NA", "reasons": ["same_as_device"]}], "comparisons": [{"candidate_row": "r1",
"reference_row": "teacher", "kind": "as_shipped", "ratio": {"value": null,
"reason": "teacher needs more memory than this machine has"}, "pairs": 0, "interleave": "none", "status": "NA",
"text": "no ratio: teacher not runnable here"}], "findings": [{"code": "int8_faster", "level": "info",
"text": "layout only", "rows": ["r1"]}], "warnings": []}""")


def test_the_example_of_the_method_follows_the_schema() -> None:
    check_schema(EXAMPLE)


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        place: Any = document
        for name in parents:
            place = place[int(name) if name.isdigit() else name]
        place[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("surprise", 1),
        _set("schema_version", "2.0"),
        _set("started_utc", "yesterday"),
        _set("machine/isa", ["avx2", "avx2"]),
        _set("machine/isa", ["mmx"]),
        _set("machine/cgroup_quota", 0),
        _set("settings/warmup_min", 49),
        _set("artifacts/0/sha256", "00"),
        _set("artifacts/0/precision_found", {"int8": -1}),
        _set("rows/0/reasons", ["drift"]),  # VALID has no reasons
        _set("rows/1/reasons", []),  # NA has one
        _set("rows/0/energy/gross_mj", {"value": None}),  # null needs a reason
        _set("rows/0/energy/gross_mj", {"value": "0"}),
        _set("rows/0/latency_ms/p90/ci95", [1.0]),
        lambda document: document["rows"][0].pop("warmup"),
        lambda document: document.pop("findings"),
        lambda document: document["rows"][0]["memory"].pop("gpu_mib"),
    ],
)
def test_a_document_that_breaks_the_schema_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    broken = copy.deepcopy(EXAMPLE)
    change(broken)
    with pytest.raises(jsonschema.ValidationError):
        validate(broken, json_schema("octc:bench-result", "octc bench result", BenchResult))
    with pytest.raises((ValueError, OctcError), match=r"."):
        convert(broken, BenchResult)
