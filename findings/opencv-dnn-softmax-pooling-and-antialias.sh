#!/usr/bin/env bash
# OpenCV 5.0.0 (DNN module): Softmax of opset 11, pooling with SAME_LOWER and antialias of an ONNX file are computed by other rules.
#
# Guess, written down before the run: what readNetFromONNX takes without a complaint is computed as ONNX defines it (of about 200
# nodes, each against onnxruntime; most are).
#
# Seen on 2026-12-01 (against onnxruntime 1.32.0): Softmax of opset 11 and older goes over all axes from `axis` on; OpenCV takes that one
# axis, so the numbers of a map add up to 1 in each pixel and not over the image. AveragePool and MaxPool with auto_pad
# SAME_LOWER are shifted by a pixel. Resize with antialias=1 equals that without, and with scales that do not divide the
# size the step is taken anew from the sizes (7 / 13 in place of 0.6), so that other places are sampled. No warning. Write
# sizes and pads in numbers, convert to opset 13 or newer, and compare the answers on real images.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 onnx==1.23.2 protobuf==6.33.6 onnxruntime==1.32.0 \
    opencv-python-headless==5.0.0.93
cd "$dir"
HOME="$dir" ORT_DISABLE_TELEMETRY=1 venv/bin/python - <<'PY'
import cv2
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

image = np.random.default_rng(0).normal(size=(1, 4, 15, 13)).astype(np.float32)


def off(kind, constants=(), opset=18, inputs=None, **attributes):
    """The largest difference from onnxruntime, in units of the largest output."""
    node = helper.make_node(kind, inputs or ["x"], ["y"], **attributes)
    info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, image.shape), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "g", info[:1], info[1:], [numpy_helper.from_array(value, name) for name, value in constants])
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "a.onnx")
    wanted = ort.InferenceSession("a.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": image})[0]
    network = cv2.dnn.readNetFromONNX("a.onnx")
    network.setInput(image)
    seen = network.forward()
    assert seen.shape == wanted.shape
    difference = float(np.abs(seen - wanted).max() / np.abs(wanted).max())
    print(kind, attributes, "opset", opset, "off by", round(difference, 4))
    return difference


half = [("s", np.array([1, 1, 2, 2], np.float32))]
odd = [("s", np.array([1, 1, 0.6, 0.6], np.float32))]
small = [("z", np.array([1, 4, 5, 5], np.int64))]
assert off("Softmax", opset=13, axis=1) < 1e-3
assert off("AveragePool", kernel_shape=[2, 2], auto_pad="SAME_UPPER") < 1e-3
assert off("Resize", half, inputs=["x", "", "s"], mode="linear") < 1e-3
assert off("Softmax", opset=11, axis=1) > 0.5, "the behaviour changed"
assert off("AveragePool", kernel_shape=[2, 2], auto_pad="SAME_LOWER") > 0.1, "the behaviour changed"
assert off("MaxPool", kernel_shape=[2, 2], auto_pad="SAME_LOWER") > 0.1, "the behaviour changed"
assert off("Resize", small, inputs=["x", "", "", "z"], mode="linear", antialias=1) > 0.1, "the behaviour changed"
assert off("Resize", odd, inputs=["x", "", "s"], mode="linear") > 0.1, "the behaviour changed"
PY
