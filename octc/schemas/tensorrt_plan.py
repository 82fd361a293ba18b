"""What is to be built with TensorRT, as pure data: names and numbers. One plan for the worker, the bindings and trtexec."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from octc.schemas.common import convert

SCHEMA, SIDECAR_SCHEMA = "octc.trt-plan/1", "octc.trt-engine/1"
CLASSIC, RTX = "tensorrt", "tensorrt_rtx"
WEAK, STRONG = "weak", "strong"
# 10.0 - 10.11 take precision as builder flags; from 10.12 on (and in TensorRT for RTX) precision lives in the ONNX file alone
FLAGS = {(WEAK, "int8"): ("INT8", "FP16"), (WEAK, "fp16"): ("FP16",)}
ONNX_FILES = {
    (WEAK, "int8"): "model.onnx",
    (STRONG, "int8"): "model.int8fp16.onnx",
    (WEAK, "fp16"): "model.fp16.onnx",
    (STRONG, "fp16"): "model.fp16.onnx",
}
VARIANTS = {"model.onnx": "int8", "model.int8fp16.onnx": "int8fp16", "model.fp16.onnx": "fp16"}
RTX_CAPABILITIES = ("SM86",)  # the nearest relative of Orin that it compiles for; it has nothing for Orin, Thor or H100
LARGEST_BATCH = 8


@dataclass(frozen=True)
class BuildPlan:
    """One build.

    Attributes:
        module: Python module of TensorRT. precision: what was asked for. variant: what the ONNX file is.
        network_flags, builder_flags, compute_capabilities: names of enum members (their numbers differ between versions).
        profiles: input name -> {"min", "opt", "max"} shapes.
        convolutions: every convolution -> multiply-accumulates for one image.
        promised: convolutions that must run in INT8. depthwise: those of them that the fallback may put into FP16.
        dequantize: convolutions that are taken off their Q/DQ before the build.
        output, layers, result, timing_cache: files to write, relative to the plan.
        golden: file, and limits of delta_over_s and agreement. bench: batch, graph, warmup_s, seconds, queries.
    """

    module: str
    precision: str
    typing: str
    variant: str
    onnx: str
    onnx_sha256: str
    network_flags: tuple[str, ...]
    builder_flags: tuple[str, ...]
    profiles: tuple[dict[str, dict[str, list[int]]], ...]
    convolutions: dict[str, int]
    promised: tuple[str, ...] = ()
    depthwise: tuple[str, ...] = ()
    dequantize: tuple[str, ...] = ()
    compute_capabilities: tuple[str, ...] = ()
    device: str = "GPU"
    workspace_mb: int = 1024
    opt_level: int = 3
    profiling_verbosity: str = "DETAILED"
    timing_cache: str | None = None
    output: str = "model.engine"
    layers: str = "layers.txt"
    result: str = "result.json"
    timeout_s: int = 1800
    golden: dict[str, Any] | None = None
    bench: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True)
class PlannedFiles:
    """What the plans of one artifact and precision share.

    Attributes:
        checksums: ONNX file name -> sha256. shape: of one image, [channels, height, width].
        convolutions, promised, depthwise, golden: as in `BuildPlan`. largest: batch of the profile.
    """

    checksums: Mapping[str, str]
    shape: Sequence[int]
    convolutions: dict[str, int]
    promised: Sequence[str] = ()
    depthwise: Sequence[str] = ()
    golden: dict[str, Any] | None = None
    input_name: str = "image"
    largest: int = LARGEST_BATCH


def plan_from_json(value: dict[str, Any]) -> BuildPlan:
    """A plan as it stands in a file (ValueError when it is none)."""
    if value.get("schema") != SCHEMA:
        raise ValueError(f"schema {value.get('schema')!r}, this octc reads {SCHEMA}")
    given = {key: one for key, one in value.items() if key != "schema"}
    if unknown := sorted(set(given) - {one.name for one in fields(BuildPlan)}):
        raise ValueError(f"unknown fields: {', '.join(unknown)}")
    return convert(given, BuildPlan)


def make_plan(precision: str, typing: str, made: PlannedFiles, module: str = CLASSIC) -> BuildPlan:
    """The plan for one precision ("int8", "fp16") and one typing."""
    onnx, one = ONNX_FILES[typing, precision], list(made.shape)
    name = f"{precision}-{'rtx' if module == RTX else typing}"
    int8 = precision == "int8"
    return BuildPlan(
        module=module,
        precision=precision,
        typing=typing,
        variant=VARIANTS[onnx],
        onnx=onnx,
        onnx_sha256=made.checksums[onnx],
        network_flags=("STRONGLY_TYPED",) if typing == STRONG else (),
        builder_flags=FLAGS.get((typing, precision), ()),
        profiles=({made.input_name: {"min": [1, *one], "opt": [1, *one], "max": [made.largest, *one]}},),
        convolutions=made.convolutions,
        promised=tuple(made.promised) if int8 else (),
        depthwise=tuple(made.depthwise) if int8 else (),
        compute_capabilities=RTX_CAPABILITIES if module == RTX else (),
        timing_cache=None if module == RTX else f"{name}.timing.cache",
        output=f"{name}.engine",
        layers=f"{name}.layers.txt",
        result=f"{name}.result.json",
        golden=made.golden,
        bench={"batch": 1, "graph": True, "warmup_s": 2.0, "seconds": 10.0, "queries": 1024},
    )


def both_typings(precision: str, made: PlannedFiles) -> dict[str, BuildPlan]:
    """The plans of an artifact that does not know its device yet: {"weak": ..., "strong": ...}."""
    return {typing: make_plan(precision, typing, made) for typing in (WEAK, STRONG)}


def plans_text(plans: dict[str, BuildPlan]) -> str:
    """What stands in build-int8.json and build-fp16.json."""
    return json.dumps({name: plan.to_json() for name, plan in plans.items()}, indent=1, sort_keys=True) + "\n"


def without(plan: BuildPlan, names: Sequence[str]) -> BuildPlan:
    """The plan with more convolutions in float."""
    left = tuple(sorted({*plan.dequantize, *names}))
    return replace(plan, dequantize=left, promised=tuple(name for name in plan.promised if name not in left))


def trtexec_argv(plan: BuildPlan, version: tuple[int, ...], program: str = "trtexec") -> list[str]:
    """The same build as a command line.

    Precision arguments: weakly typed builds have theirs; from 10.12 on --stronglyTyped stands alone (with --int8 or --fp16 it
    is refused); 11 has none. Shapes are only given because the batch axis of octc's files is dynamic.
    """
    precision = [f"--{flag.lower()}" for flag in plan.builder_flags]
    if plan.typing == STRONG and version < (11,):
        precision = ["--stronglyTyped"]
    shapes = [
        f"--{side}Shapes=" + ",".join(f"{name}:{'x'.join(map(str, shape[side]))}" for name, shape in profile.items())
        for profile in plan.profiles
        for side in ("min", "opt", "max")
    ]
    cache = [f"--timingCacheFile={plan.timing_cache}"] if plan.timing_cache else []
    return [
        program,
        f"--onnx={plan.onnx}",
        f"--saveEngine={plan.output}",
        *precision,
        *shapes,
        f"--memPoolSize=workspace:{plan.workspace_mb}",
        f"--builderOptimizationLevel={plan.opt_level}",
        *cache,
        f"--profilingVerbosity={plan.profiling_verbosity.lower()}",
        f"--exportLayerInfo={plan.layers}",
        "--skipInference",
    ]
