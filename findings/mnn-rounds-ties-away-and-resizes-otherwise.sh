#!/usr/bin/env bash
# MNN 3.6.1: Round takes ties away from zero, Shrink forgets its numbers, and Resize drops antialias and the cubic coefficient.
#
# Guess, written down before the run: what the converter takes from an ONNX file without a complaint is computed as ONNX defines it
# (of about 200 nodes, each against onnxruntime; most are).
#
# Seen on 2026-12-01 (FP32, x86-64, against onnxruntime 1.32.0): Round gives 1, 2, 3 for 0.5, 1.5, 2.5,
# where ONNX gives 0, 2, 2. Fake quantisation that is written with Round, as training tools export it, is one step off at each
# tie. Resize with antialias=1 equals that without, and cubic_coeff_a -0.5 (Pillow's cubic) is computed as another curve; an
# image that is resized inside the file is another image. Softmax of opset 11 without an axis goes over one axis and not over
# all the rest (the onnx reference evaluator does the same). The converter says nothing. Compare the answers on real images after every conversion.
#
# Only on x86-64.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if [ "$(uname -m)" != x86_64 ]; then echo "only on x86-64"; exit 0; fi
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 onnx==1.23.2 protobuf==6.33.6 onnxruntime==1.32.0 MNN==3.6.1
cd "$dir"
HOME="$dir" ORT_DISABLE_TELEMETRY=1 venv/bin/python - <<'PY'
import _tools
import MNN.expr
import MNN.nn
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def off(kind, image, constants=(), opset=18, inputs=None, **attributes):
    """The largest difference from onnxruntime, in units of the largest output."""
    node = helper.make_node(kind, inputs or ["x"], ["y"], **attributes)
    info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, image.shape), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "g", info[:1], info[1:], [numpy_helper.from_array(value, name) for name, value in constants])
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "a.onnx")
    wanted = ort.InferenceSession("a.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": image})[0]
    if opset > 12:  # the reference evaluator, too, takes one axis for the Softmax of opset 11
        assert np.allclose(wanted, ReferenceEvaluator(model).run(None, {"x": image})[0], atol=1e-4)
    _tools.mnnconvert(["convert", "-f", "ONNX", "--modelFile", "a.onnx", "--MNNModel", "a.mnn", "--bizCode", "b"])
    network = MNN.nn.load_module_from_file("a.mnn", ["x"], ["y"])
    given = MNN.expr.placeholder(list(image.shape), MNN.expr.NCHW)
    given.write(image)
    seen = np.array(MNN.expr.convert(network.forward(given), MNN.expr.NCHW).read()).reshape(wanted.shape)
    print(kind, attributes, "opset", opset, "off by", round(float(np.abs(seen - wanted).max() / np.abs(wanted).max()), 4))
    return np.abs(seen - wanted).max() / np.abs(wanted).max(), seen


image = np.random.default_rng(0).normal(size=(1, 4, 16, 16)).astype(np.float32)
halves = (np.arange(16, dtype=np.float32) - 8 + np.float32(0.5)).reshape(1, 1, 4, 4)
double = [("s", np.array([1, 1, 2, 2], np.float32))]
fifth = [("z", np.array([1, 4, 4, 4], np.int64))]
assert off("Relu", image)[0] < 1e-4
assert off("Softmax", image, axis=1)[0] < 1e-3
assert off("Resize", image, double, inputs=["x", "", "s"], mode="linear")[0] < 1e-3
assert off("Round", halves)[1].ravel()[8:11].tolist() == [1, 2, 3], "the behaviour changed"
assert off("Resize", image, fifth, inputs=["x", "", "", "z"], mode="linear", antialias=1)[0] > 0.1, "the behaviour changed"
cubic = {"inputs": ["x", "", "s"], "mode": "cubic", "coordinate_transformation_mode": "half_pixel"}
assert off("Resize", image, double, cubic_coeff_a=-0.5, **cubic)[0] > 0.02, "the behaviour changed"
assert off("Shrink", image, lambd=0.5, bias=0.1)[0] > 0.1, "the behaviour changed"
assert off("Softmax", image, opset=11)[0] > 0.1, "the behaviour changed"
PY
