#!/usr/bin/env bash
# OpenVINO 2026.4.1: antialias=1 of the ONNX Resize operator is dropped without a word.
#
# Guess (the comparison was written to confirm it): a Resize that OpenVINO reads with antialias=1 gives the antialiased
# image, or the file is refused.
#
# Seen on 2026-11-29 on the CPU device in FP32: linear and cubic, 16 x 16 to 4 x 4, the result with antialias=1 equals
# the one with antialias=0, bit for bit; it is up to 0.25 (linear) and 0.35 (cubic) of a full scale of 1 away from the
# onnx reference evaluator (onnxruntime 1.32.0 agrees with that to 1e-6). No warning, neither at reading nor at
# compiling. So an antialiased resize of a scan (what Pillow and torchvision do) must not be put into the model for this
# engine: the network would be fed another image.
#
# Source: openvinotoolkit/openvino issue 35893, open (cubic, 2026.1.0).
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

x = np.random.default_rng(0).random((1, 1, 16, 16)).astype(np.float32)


def both(mode, antialias):
    node = helper.make_node(
        "Resize", ["x", "", "", "size"], ["y"], mode=mode, antialias=antialias, coordinate_transformation_mode="half_pixel"
    )
    size = numpy_helper.from_array(np.array([1, 1, 4, 4], np.int64), "size")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, s, s]) for n, s in (("x", 16), ("y", 4))]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [size])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "resize.onnx")
    compiled = ov.Core().compile_model("resize.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled(x)[0]), ReferenceEvaluator(model).run(None, {"x": x})[0]


for mode in ("linear", "cubic"):
    plain, plain_reference = both(mode, 0)
    smooth, smooth_reference = both(mode, 1)
    print(mode, "antialias 1 against 0:", float(np.abs(smooth - plain).max()),
          "against the reference: antialias 0", float(np.abs(plain - plain_reference).max()),
          "antialias 1", float(np.abs(smooth - smooth_reference).max()))
    assert np.abs(plain - plain_reference).max() < 1e-5
    assert np.array_equal(smooth, plain) and np.abs(smooth - smooth_reference).max() > 0.1, "the behaviour changed"
EOF
