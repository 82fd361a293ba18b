"""Engines of a TensorRT artifact: build what its plans say, measure where there is a GPU, write a sidecar for each."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from octc.core.clock import utc_now
from octc.core.files import parse_json, sha256_file, write_json
from octc.machine.host import read_gpus, versions
from octc.machine.jetson import UNKNOWN, read_jetson
from octc.runtimes.tensorrt.build import Built, Say, build_engine, read_plans
from octc.runtimes.tensorrt.process import Backend
from octc.schemas.tensorrt_plan import RTX, SIDECAR_SCHEMA, BuildPlan
from octc.store.artifacts import Artifact


def build_artifact(
    folder: Path, artifact: Artifact, backend: Backend, *, allow_fallback: bool = False, say: Say = lambda _text: None
) -> dict[str, Any]:
    """Build the engines of an artifact's plans in its (temporary) folder, measure them where a GPU is, write the sidecars.

    Returns: details["engine"] of the manifest: the engine that is used, and what is known of each.
    """
    plans = read_plans(folder, backend.version, backend.module)
    wanted = plans[artifact.precision]
    fp16 = plans.get("fp16") if artifact.precision == "int8" else None
    built = [build_engine(folder, wanted, backend, fp16=fp16, allow_fallback=allow_fallback, say=say)]
    if fp16 is not None and built[0].plan.precision != "fp16":
        built.append(build_engine(folder, fp16, backend, say=say))
    measured = {one.plan.output: measure(folder, one.plan, backend) for one in built}
    chosen = _faster(built, measured)
    rows = [_sidecar(folder, one, artifact, backend, measured[one.plan.output]) for one in built]
    for one in built:
        (folder / one.plan.result).unlink(missing_ok=True)
        (folder / f"{Path(one.plan.output).stem}.build.log").unlink(missing_ok=True)
    machine = rows[0]["machine"]
    return {
        "file": chosen.plan.output,
        "sidecar": f"{chosen.plan.output}.json",
        "precision": chosen.plan.precision,
        "package": backend.module,
        "tensorrt": backend.version,
        "sm": machine["sm"],
        "driver": machine["driver"],
        "fell_back": built[0].fell_back,
        "built": [_summary(row) for row in rows],
    }


def _summary(row: dict[str, Any]) -> dict[str, Any]:
    measured = {key: value for key, value in row["measured"].items() if key != "golden"}
    return {key: row[key] for key in ("engine", "precision", "bytes")} | {
        "measured": measured,
        "convolutions": row["layers"]["convolutions"],
        "missing": list(row["layers"]["missing"]),
        "attempts": len(row["attempts"]),
    }


def measure(folder: Path, plan: BuildPlan, backend: Backend) -> dict[str, Any]:
    """Golden replay and a short benchmark of an engine that this machine can run; else why nothing was measured."""
    if backend.module == RTX:
        return {"value": None, "reason": "compiled without a GPU: nothing was executed"}
    if backend.kind != "worker":
        return {"value": None, "reason": "trtexec built it; golden images need the Python bindings"}
    checked = backend.run(folder, plan, "verify")
    if checked.outcome != "ok":
        details = (checked.result.get("error") or {}).get("details") or [None]
        return {"value": None, "reason": f"golden images: {checked.error}", "golden_ok": False, "golden": details[0]}
    timed = backend.run(folder, plan, "bench")
    for command in ("verify", "bench"):
        (folder / f"{Path(plan.output).stem}.{command}.log").unlink(missing_ok=True)
    golden = {key: checked.result[key] for key in ("images", "delta_over_s", "agreement", "logits")}
    if timed.outcome != "ok":
        return {"value": None, "reason": timed.error, "golden": golden, "golden_ok": True}
    samples = {kind: sorted(values) for kind, values in timed.result["samples_ns"].items()}
    value = {
        kind: {
            "p50_ms": v[len(v) // 2] / 1e6,
            "p90_ms": v[len(v) * 9 // 10] / 1e6,
            "p99_ms": v[len(v) * 99 // 100] / 1e6,
            "n": len(v),
        }
        for kind, v in samples.items()
    }
    return {"value": value, "golden": golden, "golden_ok": True, "cuda_graph": timed.result["cuda_graph"], "batch": 1}


def _faster(built: list[Built], measured: dict[str, dict[str, Any]]) -> Built:
    """The quickest engine whose golden images agree; what was asked for where nothing could be timed."""
    timed = [one for one in built if measured[one.plan.output].get("golden_ok") and measured[one.plan.output]["value"]]
    return min(timed, key=lambda one: measured[one.plan.output]["value"]["device"]["p50_ms"], default=built[0])


def _sidecar(folder: Path, built: Built, artifact: Artifact, backend: Backend, measured: dict[str, Any]) -> dict[str, Any]:
    """<engine>.json beside the plain engine file, which trtexec, Triton and DeepStream load as it is."""
    plan, pre = built.plan, artifact.preprocess
    gpus = read_gpus()
    row = {
        "schema": SIDECAR_SCHEMA,
        "engine": plan.output,
        "bytes": (folder / plan.output).stat().st_size,
        "sha256": sha256_file(folder / plan.output),
        "precision": plan.precision,
        "variant": plan.variant,
        "typing": plan.typing,
        "onnx": plan.onnx,
        "onnx_sha256": plan.onnx_sha256,
        "network_flags": list(plan.network_flags),
        "builder_flags": list(plan.builder_flags),
        "profiles": list(plan.profiles),
        "workspace_mb": plan.workspace_mb,
        "opt_level": plan.opt_level,
        "built": utc_now(),
        "backend": backend.kind,
        "versions": {
            "octc": versions(("octc",)).get("octc"),
            backend.module: backend.version,
            **{key: built.facts.get("environment", {}).get(key) for key in ("python",)},
        },
        "machine": _machine(plan, gpus),
        "input": {
            "name": next(iter(plan.profiles[0])),
            "dtype": "uint8",
            "layout": "NCHW",
            "channels": pre.channels,
            "size": pre.size,
            "preprocess": pre.to_json(),
        },
        "output": {"name": "logits", "dtype": "float32", "classes": list(artifact.classes)},
        "attempts": [asdict(one) for one in built.attempts],
        "layers": built.layers.to_json(),
        "measured": measured,
        "warnings": built.facts.get("warnings", []),
        "timing_cache": built.facts.get("timing_cache"),
    }
    write_json(folder / f"{plan.output}.json", parse_json(json.dumps(row)))
    return row


def _machine(plan: BuildPlan, gpus: Any) -> dict[str, Any]:
    if plan.module == RTX:  # it compiles for named capabilities, whatever machine this is
        first = plan.compute_capabilities[0].removeprefix("SM")
        return {"gpu": None, "sm": f"{first[:-1]}.{first[-1]}", "driver": None, **UNKNOWN}
    one = gpus[0] if gpus else None
    known = {"gpu": one.name if one else None, "sm": one.sm if one else None, "driver": one.driver if one else None}
    return {**known, **read_jetson()}
