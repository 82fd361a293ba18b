#!/usr/bin/env bash
# ncnn 1.0.20261020 (with pnnx 20261020): the cube of a negative number is 2.4e38.
#
# Guess, written down before the run: what pnnx takes from an ONNX file without a complaint is computed as ONNX defines it (of about 200
# nodes, each against onnxruntime; most of those that it takes are).
#
# Seen on 2026-12-01 (x86-64, FP32): Pow(x, 3) of -1.5 is 2.4e38, and so are the powers 4 and -1 of every negative number; those of positive
# ones are right, and the square is (it is another operator). The vector code computes exp(p log x). A GELU that is written out,
# as exporters do it, has x^3 in it: tanh of 2.4e38 is 1, so that -1 becomes -1 in place of -0.16, and every negative value
# of a feature map passes as if there were no activation. Nothing is infinite or NaN. A Resize with "asymmetric" places
# (linear, what TensorFlow's exporters write) is computed with half_pixel as well. Write x * x * x, and compare after conversion.
#
# Only on x86-64.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if [ "$(uname -m)" != x86_64 ]; then echo "only on x86-64"; exit 0; fi
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps numpy==2.4.6 onnx==1.23.2 protobuf==6.33.6 ml_dtypes==0.5.4 \
    typing_extensions==4.16.0 ncnn==1.0.20261020 pnnx==20261020
cd "$dir"
HOME="$dir" PATH="$dir/venv/bin:$PATH" venv/bin/python - <<'PY'
import glob
import os
import subprocess

import ncnn
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

tool = next(path for path in glob.glob("venv/lib/python3*/site-packages/pnnx/**/pnnx", recursive=True) if os.path.isfile(path))
image = np.linspace(-3, 3, 64, dtype=np.float32).reshape(1, 1, 8, 8)


def both(name, nodes, constants):
    """What the onnx reference evaluator and ncnn compute, [8, 8] or larger, after a convolution that copies its input."""
    nodes = [helper.make_node("Conv", ["x", "one"], ["h"]), *nodes]
    constants = [("one", np.ones((1, 1, 1, 1), np.float32)), *constants]
    info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, image.shape), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], [numpy_helper.from_array(np.asarray(value), key) for key, value in constants])
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, f"{name}.onnx")
    wanted = ReferenceEvaluator(model).run(None, {"x": image})[0][0, 0]
    subprocess.run([tool, f"{name}.onnx", "inputshape=[1,1,8,8]", "fp16=0"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    network = ncnn.Net()
    assert network.load_param(f"{name}.ncnn.param") == 0 and network.load_model(f"{name}.ncnn.bin") == 0
    run = network.create_extractor()
    given = ncnn.Mat(image[0]).clone()
    run.input("in0", given)
    code, answer = run.extract("out0")
    assert code == 0
    return wanted, np.array(answer)[0]


for power in (2, 3, 4, -1):
    wanted, seen = both(f"power{power + 1}", [helper.make_node("Pow", ["h", "p"], ["y"])], [("p", np.float32(power))])
    print("power", power, "of", image[0, 0, 2, 0], "onnx", wanted[2, 0], "ncnn", seen[2, 0], "of", image[0, 0, 7, 7], wanted[7, 7], seen[7, 7])
    assert np.allclose(wanted[5:], seen[5:], rtol=1e-3)
    if power == 2:
        assert np.allclose(wanted, seen, rtol=1e-3)
    else:
        assert np.isfinite(seen).all() and seen[:3].min() > 1e38, "the behaviour changed"
gelu = [
    helper.make_node("Pow", ["h", "three"], ["cube"]),
    helper.make_node("Mul", ["cube", "small"], ["part"]),
    helper.make_node("Add", ["h", "part"], ["sum"]),
    helper.make_node("Mul", ["sum", "root"], ["inner"]),
    helper.make_node("Tanh", ["inner"], ["t"]),
    helper.make_node("Add", ["t", "one_more"], ["gate"]),
    helper.make_node("Mul", ["h", "gate"], ["twice"]),
    helper.make_node("Mul", ["twice", "half"], ["y"]),
]
numbers = {"three": 3, "small": 0.044715, "root": np.sqrt(2 / np.pi), "one_more": 1, "half": 0.5}
wanted, seen = both("gelu", gelu, [(key, np.float32(value)) for key, value in numbers.items()])
print("GELU written out, of", image[0, 0, 2, 5].round(3), "onnx", wanted[2, 5].round(4), "ncnn", seen[2, 5].round(4))
assert abs(seen[2, 5] - image[0, 0, 2, 5]) < 1e-3 < abs(wanted[2, 5] - image[0, 0, 2, 5]), "the behaviour changed"
places = helper.make_node("Resize", ["h", "", "s"], ["y"], mode="linear", coordinate_transformation_mode="asymmetric")
wanted, seen = both("resize", [places], [("s", np.array([1, 1, 2, 2], np.float32))])
print("resize, asymmetric: onnx", wanted[0, :4].round(3), "ncnn", seen[0, :4].round(3))
assert np.abs(wanted - seen).max() > 0.1, "the behaviour changed"
PY
