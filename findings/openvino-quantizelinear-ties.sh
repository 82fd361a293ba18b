#!/usr/bin/env bash
# OpenVINO 2026.4.1: ONNX QuantizeLinear rounds ties the other way when the zero point is odd.
#
# Guess, written down before the run: QuantizeLinear rounds half to even before it adds the zero point, as ONNX defines
# it, so that 0.5, 1.5, 2.5, ... with scale 1 give 0, 2, 2, 4, ... whatever the zero point is.
#
# Seen on 2026-11-29 on the CPU device in FP32: with zero points 0 and 128 so it is; with 1 and 127 every tie goes to
# the odd neighbour (1, 1, 3, 3, ...). OpenVINO makes a FakeQuantize of the node, which rounds x - input_low, that is x
# + zero point, and half to even of that is another number. The onnx reference evaluator and onnxruntime 1.32.0 follow
# ONNX. Ties are frequent where an input is itself on a grid (8-bit grey values with a power-of-two scale): a difference
# of one step there is no damage of the file. Symmetric int8 and uint8 with zero point 128 are not touched.
#
# Source: microsoft/onnxruntime issue 25045 (the same difference, seen through the OpenVINO provider).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps numpy==2.4.6 openvino==2026.4.1 onnx==1.23.2 protobuf==7.36.2 ml_dtypes==0.6.0 typing_extensions==4.16.0
cd "$dir"
HOME="$dir" venv/bin/python - <<'EOF'
import numpy as np
import onnx
import openvino as ov
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

x = np.arange(8, dtype=np.float32) + np.float32(0.5)
for zero in (0, 1, 127, 128):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [8]) for n in "xy"]
    weights = [numpy_helper.from_array(np.float32(1), "scale"), numpy_helper.from_array(np.uint8(zero), "zero")]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "ties.onnx")
    reference = ReferenceEvaluator(model).run(None, {"x": x})[0]
    compiled = ov.Core().compile_model("ties.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    seen = np.array(compiled(x)[0])
    print("zero point", zero, "onnx", reference.astype(int), "openvino", seen.astype(int))
    assert reference.tolist() == [0, 2, 2, 4, 4, 6, 6, 8]
    expected = [1, 1, 3, 3, 5, 5, 7, 7] if zero % 2 else [0, 2, 2, 4, 4, 6, 6, 8]
    assert seen.tolist() == expected, "the behaviour changed"
EOF
