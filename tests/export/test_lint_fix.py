"""Repairs: the same numbers afterwards, or closer to what the file says; always told."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from octc.export.lint.check import lint, to_repair
from octc.export.lint.fix import fix
from tests.export.qdq_graphs import SIDE, Knobs, model

X = np.random.default_rng(3).normal(0, 2, (1, 16, SIDE, SIDE)).astype(np.float32)


def run(proto: onnx.ModelProto) -> np.ndarray:
    """onnxruntime with graph optimisation off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": X})[0])


@pytest.mark.parametrize("knobs", [
    Knobs(code=np.uint8, zero=128), Knobs(code=np.uint8, zero=128, weight_code=np.uint8, weight_zero=128),
    Knobs(code=np.uint8, zero=128, inner="MaxPool"), Knobs(bias="int32"), Knobs(bias="int8"), Knobs(pairs="weight"),
    Knobs(pairs="weight", axis=None), Knobs(pairs="weight", bias="int32", group=16),
], ids=str)  # fmt: skip
def test_exact_repairs(knobs: Knobs) -> None:
    bad = model([knobs, Knobs(act="Relu")], opset=19)
    fixed, done = fix(bad)
    assert done
    assert np.array_equal(run(bad), run(fixed))
    left = {f.rule for f in to_repair(lint(fixed))}
    assert left <= {"W26"}  # a layer in float stays one, now without pretending
    onnx.checker.check_model(fixed, full_check=True)


@pytest.mark.parametrize(
    "knobs", [Knobs(), Knobs(zero=3), Knobs(code=np.uint8), Knobs(zero_given=False), Knobs(axis=1)], ids=str
)
def test_what_cannot_be_mended_safely_is_left_alone(knobs: Knobs) -> None:
    bad = model([knobs])
    fixed, done = fix(bad)
    assert done == []
    assert fixed.SerializeToString() == bad.SerializeToString()


@pytest.mark.parametrize("pairs", ["both", "none"])
def test_batch_norm_is_folded(pairs: str) -> None:
    proto = model([Knobs(pairs=pairs)], opset=19)
    rng = np.random.default_rng(0)
    parts = {
        "gamma": rng.uniform(0.5, 2, 16),
        "beta": rng.normal(size=16),
        "mean": rng.normal(size=16),
        "var": rng.uniform(1, 2, 16),
    }
    proto.graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), k) for k, v in parts.items())
    last = proto.graph.output[0].name
    proto.graph.node.append(helper.make_node("BatchNormalization", [last, *parts], ["normed"], name="bn"))
    proto.graph.output[0].name = "normed"
    fixed, done = fix(proto)
    assert len(done) == 1
    assert "BatchNormalization" not in {n.op_type for n in fixed.graph.node}
    assert np.abs(run(proto) - run(fixed)).max() < 1e-4 * np.abs(run(proto)).max()


def test_a_shortcut_takes_the_quantiser_that_is_there() -> None:
    proto = model([Knobs(bias="none")], opset=19)
    conv = next(n for n in proto.graph.node if n.op_type == "Conv")
    proto.graph.node.append(helper.make_node("Add", [conv.output[0], "image"], ["sum"], name="add"))
    proto.graph.output[0].name = "sum"
    assert "W31" in {f.rule for f in lint(proto)}
    fixed, done = fix(proto)
    assert len(done) == 1
    assert to_repair(lint(fixed)) == []
    assert next(n for n in fixed.graph.node if n.name == "add").input[1] == conv.input[0]
