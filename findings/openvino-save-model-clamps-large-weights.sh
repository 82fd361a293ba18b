#!/usr/bin/env bash
# OpenVINO 2026.4.1: save_model turns a weight of 1,000,000 into 65,504, unless most of its neighbours are as large.
#
# Guess, written down before the run: save_model stores weights in FP16 by default; a constant with a number that FP16 cannot hold
# stays in FP32, or becomes infinity, or is refused.
#
# Seen on 2026-11-30: the constant 1,000,000, 70,000, 1, 1 is read back as 65,504, 65,504, 1, 1, an answer 15 times too small, without
# a word, and NaN is read back as 65,504 too: a damaged weight becomes a number. The constant 70,000 four times comes back as
# 70,000, and so does 1e-8 four times: where most of a constant does not fit, it stays in FP32. So one wide channel among
# many is the one that is cut. A folded batch normalisation whose variance is nearly 0, or a mean of raw 16-bit greys times a
# weight, is there easily. Look at the largest weight first, or save with compress_to_fp16=False.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps numpy==2.4.6 openvino==2026.4.1
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import numpy as np
import openvino as ov
from openvino import opset13 as op


def saved(weights):
    """The weights as a network answers that was saved with default settings and read again."""
    x = op.parameter([1, 4], np.float32, name="x")
    y = op.multiply(x, op.constant(np.array([weights], np.float32)))
    ov.save_model(ov.Model([y], [x], "m"), "m.xml")
    network = ov.Core().compile_model("m.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(network(np.ones((1, 4), np.float32))[0])[0].tolist()


few, broken, all_of_them, small = [1e6, 7e4, 1.0, 1.0], [float("nan"), 1.0, 1.0, 1.0], [7e4] * 4, [1e-8] * 4
for weights in (few, broken, all_of_them, small):
    print(weights, "is read back as", saved(weights))
assert saved(few) == [65504.0, 65504.0, 1.0, 1.0], "the behaviour changed"
assert saved(broken) == [65504.0, 1.0, 1.0, 1.0], "the behaviour changed"
assert saved(all_of_them) == all_of_them, "the behaviour changed"
assert np.allclose(saved(small), small, rtol=1e-6), "the behaviour changed"
PY
