#!/usr/bin/env bash
# openvino-model-api 0.4.7: of an INT8 network that ends with a softmax, some images get a second softmax, and others do not.
#
# Guess, written down before the run: a classification model that gives probabilities keeps them; whether a softmax is added is a matter of the model.
#
# Seen on 2026-12-02: it is a matter of each image. If its outputs do not sum to 1 within about 0.00002 they count as logits. A softmax that is itself
# quantised (steps of 1/256, as in LiteRT's INT8 files, which OpenVINO opens) sums to 0.996 or 1.004 for 50 of these 400 images: of two neighbours,
# 0.727 becomes 0.385 and 0.660 stays 0.660. The label stays; the order of the images by confidence does not, and with four classes none of the 50 can
# reach 0.476. The raw scores are so too. No warning, and no setting turns it off. In FP32 all 400 are right, so that the compressed network seems to
# have lost its confidence. Export such a network with logits, or with a softmax that is left in float.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 onnx==1.23.2 openvino==2026.4.1 openvino-model-api==0.4.7
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
import numpy as np
import onnx
import openvino as ov
from model_api.models import Model
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
weights = rng.normal(0, 0.03, (3, 4)).astype(np.float32)
step = [numpy_helper.from_array(np.float32(1 / 256), "step"), numpy_helper.from_array(np.uint8(0), "zero")]
tails = {
    "fp32": [helper.make_node("Identity", ["s"], ["y"])],
    "int8": [helper.make_node("QuantizeLinear", ["s", "step", "zero"], ["q"]), helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["y"])],
}
images = np.ones((400, 8, 8, 3), np.uint8) * rng.integers(0, 256, (400, 1, 1, 3), np.uint8)
core, changed = ov.Core(), {}
for name, tail in tails.items():
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["l"]),
        helper.make_node("Softmax", ["l"], ["s"], axis=1),
        *tail,
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(weights, "w"), *step])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, f"{name}.onnx")
    net = core.compile_model(f"{name}.onnx", "CPU")
    wanted = {"labels": ["CNV", "DME", "DRUSEN", "NORMAL"], "output_raw_scores": True}
    api = Model.create_model(f"{name}.onnx", model_type="Classification", configuration=wanted)
    rows = []
    for image in images:
        right = net({"x": image.astype(np.float32).transpose(2, 0, 1)[None]})[0].ravel()
        answer = api(image)
        assert answer.top_labels[0].id == right.argmax()
        assert np.isclose(answer.top_labels[0].confidence, np.max(answer.raw_scores))
        rows.append((right.sum(), right.max(), answer.top_labels[0].confidence))
    sums, right, seen = np.array(rows, np.float64).T
    other = np.abs(seen - right) > 1e-3
    changed[name] = other.mean()
    print(name, "images with another confidence:", int(other.sum()), "of", len(images))
    if name == "int8":
        assert np.array_equal(other, np.abs(sums - 1) > 1e-3), "the behaviour changed"
        assert seen[other].max() < 0.476 and right[other].max() > 0.7, "the behaviour changed"
        for i in range(8):
            print(f"  sum {sums[i]:.4f}, largest {right[i]:.4f}, told {seen[i]:.4f}")
assert changed["fp32"] == 0 and 0.05 < changed["int8"] < 0.5, "the behaviour changed"
PY
