#!/usr/bin/env bash
# OpenVINO 2026.4.1 (CPU, x86-64): NaN becomes 0 in a ReLU, and the largest number below 0 in a global max pooling.
#
# Guess, written down before the run: NaN in, NaN out: what is not a number goes through ReLU, Clip, HardSigmoid and Softmax as in
# numpy, the onnx reference evaluator and onnxruntime, so that a broken network or image shows itself by NaN logits.
#
# Seen on 2026-11-30: ReLU and Clip answer 0, HardSigmoid 1, Softmax 0 for the other classes; a convolution of a map with one NaN pixel
# and a ReLU give zeros around it, where the other two give NaN. LeakyRelu, Sigmoid and HardSwish keep NaN. A global maximum
# over 256 pixels, the last of them NaN and one of them 9, is -3.4e38. So weights that are NaN (a training that diverged) or a
# scan with NaN pixels (a log of 0 in the preparation) end as a steady, finite, confident answer, and a check of the logits for
# NaN passes on this engine only. Check inputs and weights themselves. (The kernels use the vector instructions for max, which
# give their second operand where the first is NaN. Which number a reduction gives depends on where the NaN stands.)
#
# Only on x86-64.
set -euo pipefail
if [ "$(uname -m)" != x86_64 ]; then
    echo "this shows x86-64 only"
    exit 0
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps numpy==2.4.6 openvino==2026.4.1 onnx==1.23.2 protobuf==7.36.2 ml_dtypes==0.6.0 typing_extensions==4.16.0 onnxruntime==1.32.0 flatbuffers==25.12.19 packaging==26.3
cd "$dir"
ORT_DISABLE_TELEMETRY=1 HOME="$dir" venv/bin/python -W ignore - <<'PY'
import numpy as np
import onnx
import onnxruntime
import openvino as ov
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

scan = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)
scan[0, 0, 3, 4] = np.nan
limits = [numpy_helper.from_array(np.float32(v), n) for v, n in ((0, "low"), (6, "high"))]
kernel = [numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")]
cases = {
    "ReLU": ([helper.make_node("Relu", ["x"], ["y"])], []),
    "Clip": ([helper.make_node("Clip", ["x", "low", "high"], ["y"])], limits),
    "HardSigmoid": ([helper.make_node("HardSigmoid", ["x"], ["y"])], []),
    "convolution and ReLU": (
        [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["y"])],
        kernel,
    ),
    "Sigmoid": ([helper.make_node("Sigmoid", ["x"], ["y"])], []),
    "LeakyRelu": ([helper.make_node("LeakyRelu", ["x"], ["y"])], []),
}
for name, (nodes, weights) in cases.items():
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 8, 8]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "m.onnx")
    session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
    network = ov.Core().compile_model("m.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    reference, other = ReferenceEvaluator(model).run(None, {"x": scan})[0], session.run(None, {"x": scan})[0]
    seen = np.array(network(scan)[0])
    counts = [int(np.isnan(answer).sum()) for answer in (reference, other, seen)]
    print(f"{name}: NaN of 64 in onnx, onnxruntime, openvino {counts}, openvino at the NaN pixel {seen[0, 0, 3, 4]}")
    assert counts[0] == counts[1] == (9 if "conv" in name else 1)
    swallowed = name not in ("Sigmoid", "LeakyRelu")
    assert counts[2] == (0 if swallowed else 1), "the behaviour changed"
    assert not swallowed or seen[0, 0, 3, 4] == (1 if name == "HardSigmoid" else 0), "the behaviour changed"
PY
