#!/usr/bin/env bash
# onnxruntime 1.32.0: an FP16 network with an AveragePool does not open on an Arm core with float16 arithmetic.
#
# Guess, written down before the run: a file of Conv and AveragePool in FLOAT16, opset 19, opens on every processor that the
# wheel is made for; where a float16 kernel is missing, casts stand around the node, as on x86 and on Cortex-A72.
#
# Seen on 2026-11-30: on Neoverse-N1 (emulated by qemu-user 10.0.2) NOT_IMPLEMENTED, "Failed to find kernel for
# com.ms.internal.nhwc.AveragePool(19)": with all optimisations the convolution moves to its float16 kernel in NHWC and takes the
# pooling with it, whose NHWC kernel ends at opset 18. With ORT_ENABLE_EXTENDED the same file opens. On Cortex-A72, which has
# no float16 arithmetic, and on x86 it opens with all optimisations.
#
# On x86-64 this takes the emulators of benchmarks/arm64_root.sh (Debian).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2
"$dir/venv/bin/python" - "$dir/model.onnx" <<'EOF'
import sys
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

nodes = [
    helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
    helper.make_node("AveragePool", ["y"], ["z"], kernel_shape=[2, 2], strides=[2, 2]),
    helper.make_node("Conv", ["z", "w"], ["out"], pads=[1, 1, 1, 1]),
]
info = [
    helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 16, 8, 8]),
    helper.make_tensor_value_info("out", TensorProto.FLOAT16, [1, 16, 4, 4]),
]
weight = numpy_helper.from_array(np.full((16, 16, 3, 3), 0.01, np.float16), "w")
graph = helper.make_graph(nodes, "g", info[:1], info[1:], [weight])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, sys.argv[1])
EOF
farm=${EMULATION_FOLDER:-$dir/farm}
sh "$here/benchmarks/arm64_root.sh" "$farm" "${EXTRAS:-ort,openvino,litert}"
python=$(ls -d "$farm"/arm64/usr/bin/python3.[0-9]*[0-9] | head -n 1)
cat > "$dir/open.py" <<'EOF'
import sys
import onnxruntime as ort

for name in ("ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, name)
    try:
        ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
        found = "opens"
    except Exception as error:
        found = "AveragePool(19)" if "nhwc.AveragePool(19)" in str(error) else str(error)
    print(sys.argv[2], name, found)
    refused = sys.argv[2] == "neoverse-n1" and name == "ORT_ENABLE_ALL"
    assert (found == "AveragePool(19)") if refused else (found == "opens"), "the behaviour changed"
EOF
for core in cortex-a72 neoverse-n1; do
  "$farm/bin/qemu-aarch64" -L "$farm/arm64" -cpu "$core" "$python" "$dir/open.py" "$dir/model.onnx" "$core"
done
