#!/usr/bin/env bash
# onnxruntime 1.32.0: linear Resize of a uint8 image cuts the fraction off instead of rounding.
#
# Guess, written down before the run: Resize (linear, half_pixel) of uint8 rounds the interpolated value to the nearest.
#
# Seen on 2026-11-29: 0.75 becomes 0, 20.5625 becomes 20, 52.6875 becomes 52: the floor of what the same node gives for
# float32. The onnx reference evaluator and OpenVINO 2026.4.1 round. An image resized inside the graph as uint8 is half
# a grey value darker on average, on this engine only; resize it as float32, or before the model.
#
# Source: microsoft/onnxruntime issue 7368 (open), onnx/onnx issue 3390 (the rounding is not specified).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cd "$dir"
HOME="$dir" ORT_DISABLE_TELEMETRY=1 venv/bin/python - <<'EOF'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

image = np.random.default_rng(0).integers(0, 256, (1, 1, 32, 32), dtype=np.uint8)


def model_of(kind):
    node = helper.make_node("Resize", ["x", "", "", "size"], ["y"], mode="linear", coordinate_transformation_mode="half_pixel")
    size = numpy_helper.from_array(np.array([1, 1, 64, 64], np.int64), "size")
    ends = [helper.make_tensor_value_info(n, kind, [1, 1, s, s]) for n, s in (("x", 32), ("y", 64))]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [size])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, x):
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


exact = run(model_of(TensorProto.FLOAT), image.astype(np.float32))
seen = run(model_of(TensorProto.UINT8), image)
reference = ReferenceEvaluator(model_of(TensorProto.UINT8)).run(None, {"x": image})[0]
print("float32", exact[0, 0, 1, :5], "uint8", seen[0, 0, 1, :5], "reference", reference[0, 0, 1, :5])
print("mean of uint8 - float32:", float((seen - exact).mean()), "reference - float32:", float((reference - exact).mean()))
assert np.array_equal(reference, np.rint(exact).astype(np.uint8))
assert np.array_equal(seen, np.floor(exact).astype(np.uint8)), "the behaviour changed"
assert (seen != reference).mean() > 0.3, "the behaviour changed"
EOF
