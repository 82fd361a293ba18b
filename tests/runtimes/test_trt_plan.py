"""Plans as data, and the same plan as a command line, for every kind of version."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from octc.runtimes.tensorrt.process import trtexec_version
from octc.schemas.tensorrt_plan import (
    CLASSIC,
    RTX,
    BuildPlan,
    PlannedFiles,
    both_typings,
    make_plan,
    plan_from_json,
    plans_text,
    trtexec_argv,
    without,
)

SUMS = {name: name[:6] * 8 for name in ("model.onnx", "model.int8fp16.onnx", "model.fp16.onnx")}
MACS = {"a/Conv": 10, "b/Conv": 30}


def plan(precision: str = "int8", typing: str = "weak", module: str = CLASSIC) -> BuildPlan:
    made = PlannedFiles(SUMS, [1, 260, 260], MACS, promised=("a/Conv", "b/Conv"), depthwise=("b/Conv",))
    return make_plan(precision, typing, made, module)


@pytest.mark.parametrize(("precision", "typing", "onnx", "network", "builder"), [
    ("int8", "weak", "model.onnx", (), ("INT8", "FP16")),
    ("int8", "strong", "model.int8fp16.onnx", ("STRONGLY_TYPED",), ()),
    ("fp16", "weak", "model.fp16.onnx", (), ("FP16",)),
    ("fp16", "strong", "model.fp16.onnx", ("STRONGLY_TYPED",), ()),
])  # fmt: skip
def test_typing_decides_file_and_flags(
    precision: str, typing: str, onnx: str, network: tuple[str], builder: tuple[str]
) -> None:
    made = plan(precision, typing)
    assert (made.onnx, made.network_flags, made.builder_flags) == (onnx, network, builder)
    assert made.onnx_sha256 == SUMS[onnx]
    assert bool(made.promised) == (precision == "int8")
    assert made.profiles == ({"image": {"min": [1, 1, 260, 260], "opt": [1, 1, 260, 260], "max": [8, 1, 260, 260]}},)


def test_a_plan_is_the_same_after_a_file() -> None:
    for made in (*both_typings("int8", PlannedFiles(SUMS, [1, 64, 64], MACS)).values(), plan(module=RTX, typing="strong")):
        assert plan_from_json(json.loads(json.dumps(made.to_json()))) == made
    assert set(json.loads(plans_text(both_typings("fp16", PlannedFiles(SUMS, [3, 64, 64], MACS))))) == {"weak", "strong"}
    with pytest.raises(ValueError, match="trt-plan/9"):
        plan_from_json({**plan().to_json(), "schema": "octc.trt-plan/9"})
    for wrong in ({"surprise": 1}, {"workspace_mb": "1"}, {"promised": "a/Conv"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            plan_from_json({**plan().to_json(), **wrong})


def test_plans_hold_names_and_no_numbers_of_flags() -> None:
    for name in ("network_flags", "builder_flags", "compute_capabilities"):
        assert all(isinstance(value, str) for value in getattr(plan(module=RTX, typing="strong"), name))
    assert plan(module=RTX, typing="strong").compute_capabilities == ("SM86",)
    assert plan(module=RTX, typing="strong").timing_cache is None


COMMON = (
    "--minShapes=image:1x1x260x260 --optShapes=image:1x1x260x260 --maxShapes=image:8x1x260x260 --memPoolSize=workspace:1024 "
    "--builderOptimizationLevel=3 --timingCacheFile={name}.timing.cache --profilingVerbosity=detailed "
    "--exportLayerInfo={name}.layers.txt --skipInference"
)
SNAPSHOTS = {
    ("int8", "weak", (10, 3, 0)): "trtexec --onnx=model.onnx --saveEngine=int8-weak.engine --int8 --fp16",
    ("fp16", "weak", (10, 3, 0)): "trtexec --onnx=model.fp16.onnx --saveEngine=fp16-weak.engine --fp16",
    ("int8", "strong", (10, 13, 3)): "trtexec --onnx=model.int8fp16.onnx --saveEngine=int8-strong.engine --stronglyTyped",
    ("fp16", "strong", (10, 16, 1)): "trtexec --onnx=model.fp16.onnx --saveEngine=fp16-strong.engine --stronglyTyped",
    ("int8", "strong", (11, 4, 0)): "trtexec --onnx=model.int8fp16.onnx --saveEngine=int8-strong.engine",
    ("fp16", "strong", (11, 4, 0)): "trtexec --onnx=model.fp16.onnx --saveEngine=fp16-strong.engine",
}


@pytest.mark.parametrize("key", SNAPSHOTS, ids=str)
def test_command_lines_of_trtexec(key: tuple[str, str, tuple[int, ...]]) -> None:
    precision, typing, version = key
    line = shlex.join(trtexec_argv(plan(precision, typing), version))
    assert line == f"{SNAPSHOTS[key]} {COMMON.format(name=f'{precision}-{typing}')}"
    if version >= (11,):
        assert not {"--int8", "--fp16", "--stronglyTyped"} & set(line.split())


@pytest.mark.parametrize(("banner", "version"), [
    ("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --help", (10, 3, 0)),
    ("&&&& RUNNING TensorRT.trtexec [TensorRT v101302] [b6] # trtexec", (10, 13, 2)),
    ("&&&& RUNNING TensorRT.trtexec [TensorRT v110400]", (11, 4, 0)),
    ("&&&& RUNNING TensorRT.trtexec [TensorRT v8601]", (8, 6, 1)),
    ("nothing", None),
])  # fmt: skip
def test_version_of_trtexec(banner: str, version: tuple[int, ...] | None) -> None:
    assert trtexec_version(banner) == version


def test_what_is_dequantised_is_no_longer_promised() -> None:
    one = without(plan(), ["b/Conv"])
    assert (one.dequantize, one.promised) == (("b/Conv",), ("a/Conv",))
    assert without(one, ["a/Conv"]).promised == ()
    assert replace(one, dequantize=()).promised == ("a/Conv",)
