#!/usr/bin/env bash
# OpenVINO 2026.4.1: a float image given to a uint8 input is cut to whole numbers, without a word.
#
# Guess, written down before the run: an array of another dtype than the input's is refused, as onnxruntime and
# tritonclient do.
#
# Seen on 2026-11-29: the array is cast as numpy casts: an image scaled to 0..1 becomes all zeros but for its ones, 300
# becomes 44, 255.9 becomes 255; int64 likewise. No error, no warning, for the model call and for infer(). The network
# then answers about a black image, with a steady probability. So check the dtype before the call where an input is
# uint8.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps numpy==2.4.6 openvino==2026.4.1
cd "$dir"
HOME="$dir" venv/bin/python - <<'EOF'
import warnings
import numpy as np
import openvino as ov
from openvino import opset13 as op

warnings.simplefilter("error")
x = op.parameter([4], np.uint8, name="x")
model = ov.Model([op.convert(x, np.float32)], [x], "network")
compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
request = compiled.create_infer_request()
cases = {
    "uint8": (np.array([0, 1, 2, 255], np.uint8), [0, 1, 2, 255]),
    "float32 0..1": (np.array([0.1, 0.5, 0.99, 1], np.float32), [0, 0, 0, 1]),
    "float32": (np.array([0.7, 254.9, 255.9, 12.5], np.float32), [0, 254, 255, 12]),
    "int64": (np.array([300, 256, 255, 7], np.int64), [44, 0, 255, 7]),
}
for name, (image, expected) in cases.items():
    called = np.array(compiled(image)[0]).tolist()
    inferred = np.array(request.infer({0: image})[0]).tolist()
    print(name, image.tolist(), "->", called)
    assert called == inferred == expected, "the behaviour changed"
EOF
