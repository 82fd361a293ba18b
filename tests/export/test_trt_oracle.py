"""Every variant that octc writes, compiled by NVIDIA's own compiler: the INT8 convolutions that were promised are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from octc.core.files import sha256_file
from octc.export.lint.check import lint, to_repair
from octc.export.onnx.float import read_onnx
from octc.runtimes.tensorrt.build import build_engine
from octc.runtimes.tensorrt.process import Backend, run_worker
from octc.schemas.tensorrt_plan import without
from tests.export.oracle import need_oracle
from tests.export.trt_networks import Written, write_network

pytestmark = pytest.mark.slow

ALLOWED = ("Converting conv activation scales to fp32.", "Converting conv weight scales to fp32.")
# network, size, promised convolutions, float ones (squeeze-excite), depthwise ones
NETWORKS = {
    "efficientnet_b2": (80, 69, 46, 23),
    "tf_efficientnet_lite0": (64, 49, 0, 16),
    "resnet50": (64, 53, 0, 0),
    "mobilenetv4_conv_small_050": (64, None, None, None),
}


@pytest.fixture(scope="module", params=NETWORKS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Written]:
    need_oracle()
    size = int(NETWORKS[request.param][0] or 0)
    return request.param, write_network(request.param, size, tmp_path_factory.mktemp(request.param))


def test_every_variant_compiles_as_promised(written: tuple[str, Written]) -> None:
    name, one = written
    _, promised, floats, depthwise = NETWORKS[name]
    plan = one.plan("int8")
    if promised is not None:
        assert (one.promised, len(plan.promised), len(plan.depthwise)) == (promised, promised, depthwise)
        assert len(plan.convolutions) == promised + int(floats or 0)
    ran, report = one.compile(plan)
    assert report.missing == ()
    assert report.counts()["int8"] == len(plan.promised)
    assert set(report.counts()) <= {"int8", "fp16"}
    assert [text for text in ran.result["warnings"] if not text.endswith(ALLOWED)] == []
    assert ran.peak_rss_mib < 1000
    head = [line for line in (one.folder / plan.layers).read_text().splitlines() if "Gemm" in line or "node_linear" in line]
    assert head
    assert not any("Datatype: Int8" in line for line in head)  # the head stays in float
    wide = one.plan("int8", onnx="model.onnx", onnx_sha256=sha256_file(one.folder / "model.onnx"))
    assert one.compile(wide)[1].missing == ()  # the file with the FP32 remainder
    _, half = one.compile(one.plan("fp16"))
    assert half.counts() == {"fp16": len(plan.convolutions)}


def test_variants_are_clean_and_hold_the_same_scales(written: tuple[str, Written]) -> None:
    _, one = written
    targets = {"model.onnx": "tensorrt", "model.int8fp16.onnx": "tensorrt-strong", "model.fp16.onnx": "tensorrt-strong"}
    for name, target in targets.items():
        assert to_repair(lint(read_onnx(one.folder / name), target)) == [], name
    assert set(one.facts["variants"]) == set(targets)  # how far they agree is asked of trained networks (makers)
    scales = {name: scales_of(read_onnx(one.folder / name)) for name in ("model.onnx", "model.int8fp16.onnx")}
    assert len(scales["model.onnx"]) > 10
    assert all(np.array_equal(a, b) for a, b in zip(*scales.values(), strict=True))  # FP16 holds them exactly


def scales_of(proto: onnx.ModelProto) -> list[np.ndarray]:
    """Scales of all DQ nodes in the order of their names, as float64."""
    constants = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer}
    nodes = sorted((n for n in proto.graph.node if n.op_type == "DequantizeLinear"), key=lambda n: n.name)
    return [constants[n.input[1]] for n in nodes]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Written:
    need_oracle()
    return write_network("test_efficientnet", 64, tmp_path_factory.mktemp("small"))


def test_depthwise_convolutions_can_be_put_into_fp16(small: Written) -> None:
    plan = small.plan("int8")
    assert plan.depthwise
    ran, report = small.compile(without(plan, plan.depthwise))
    assert sorted(ran.result["dequantized"]) == sorted(plan.depthwise)
    assert {report.nodes[name] for name in plan.depthwise} == {"fp16"}
    assert report.counts()["int8"] == len(plan.promised) - len(plan.depthwise)


def test_two_builds_give_the_same_precisions(small: Written) -> None:
    """Not the same bytes: that was seen to differ."""
    first, second = (small.compile(small.plan("int8"))[1].nodes for _ in range(2))
    assert first == second


def test_x10_a_layer_that_silently_runs_in_float_is_caught(small: Written, tmp_path: Path) -> None:
    """A graph whose weight scales stand on the wrong axis: the compiler says nothing, the layer report does."""
    from octc.core.errors import OctcError

    proto = read_onnx(small.folder / "model.int8fp16.onnx")
    plan = small.plan("int8")
    conv = next(n for n in proto.graph.node if n.name == plan.promised[3])
    weight = next(n for n in proto.graph.node if n.output[0] == conv.input[1])
    shape = next(list(t.dims) for t in proto.graph.initializer if t.name == weight.input[0])
    next(a for a in weight.attribute if a.name == "axis").i = 1
    scale, zero = (np.full(shape[1], value) for value in (np.float16(0.01), np.int8(0)))
    proto.graph.initializer.extend([numpy_helper.from_array(scale, "spoilt"), numpy_helper.from_array(zero, "nought")])
    weight.input[1:] = ["spoilt", "nought"]
    onnx.save(proto, str(tmp_path / "model.int8fp16.onnx"))
    backend = Backend("worker", "1.7.1.116", "tensorrt_rtx", run_worker)
    bad = small.plan("int8", onnx_sha256=sha256_file(tmp_path / "model.int8fp16.onnx"))
    with pytest.raises(OctcError, match="1 convolutions do not run in INT8") as caught:
        build_engine(tmp_path, bad, backend)
    assert caught.value.code == "OCT-E406"
    assert conv.name in caught.value.message
    assert "W21" in {f.rule for f in lint(proto, "tensorrt-rtx")}


def test_a_computed_scale_may_crash_the_compiler_but_not_us_and_lint_finds_it(small: Written, tmp_path: Path) -> None:
    proto = read_onnx(small.folder / "model.int8fp16.onnx")
    first = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear")
    place = list(proto.graph.node).index(first)
    proto.graph.node.insert(place, onnx.helper.make_node("ReduceMax", [first.input[0]], ["computed"], keepdims=0, name="m"))
    first.input[1] = "computed"
    onnx.save(proto, str(tmp_path / "model.int8fp16.onnx"))
    ran = run_worker(tmp_path, small.plan("int8", onnx_sha256=sha256_file(tmp_path / "model.int8fp16.onnx")), "build")
    assert ran.outcome in ("crashed", "failed", "ok")  # seen on this version: signal 11, or an engine
    assert ran.outcome != "crashed" or ran.error == "the process ended with signal 11"
    assert "E04" in {f.rule for f in lint(proto, "tensorrt-rtx")}
