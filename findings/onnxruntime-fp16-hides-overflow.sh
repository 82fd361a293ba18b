#!/usr/bin/env bash
# onnxruntime 1.32.0: an FP16 model that overflows does not overflow on the CPU of an x86 machine.
#
# Guess, written down before the run: in a model whose tensors are all FLOAT16, x * 1000 with x = 100 becomes inf (the
# largest float16 is 65504), so that the next node, * 0.001, gives inf too.
#
# Seen on 2026-11-29: 100.06. The CPU provider has no float16 kernels for most nodes; it puts casts around them and
# removes the casts in between, with graph optimisation switched off as well, so the intermediate lives in float32. The
# same session even returns inf for the intermediate (when that is an output) and 100.06 for what follows from it. The
# onnx reference evaluator gives inf, as a GPU that computes in FP16 may. So a CPU run of an FP16 file proves nothing
# about overflow: look at the ranges of the intermediates.
#
# Only on x86-64: other processors have float16 kernels in this provider.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cd "$dir"
HOME="$dir" ORT_DISABLE_TELEMETRY=1 venv/bin/python - <<'EOF'
import platform
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

nodes = [helper.make_node("Mul", ["x", "up"], ["y"]), helper.make_node("Mul", ["y", "down"], ["z"])]
info = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, [3]) for n in "xyz"]
weights = [numpy_helper.from_array(np.float16(1000), "up"), numpy_helper.from_array(np.float16(0.001), "down")]
graph = helper.make_graph(nodes, "g", info[:1], info[1:], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
onnx.checker.check_model(model, full_check=True)
x = np.array([1, 60, 100], np.float16)

with np.errstate(over="ignore"):
    y, z = ReferenceEvaluator(model).run(None, {"x": x})
print("reference   y", y, "z", z)
assert np.isinf(y[2]) and np.isinf(z[2])
for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    y, z = session.run(None, {"x": x})
    print("onnxruntime y", y, "z", z, level)
    if platform.machine() == "x86_64":
        assert np.isinf(y[2]) and abs(float(z[2]) - 100) < 0.2, "the behaviour changed"
EOF
