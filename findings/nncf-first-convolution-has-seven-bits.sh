#!/usr/bin/env bash
# nncf 3.4.0 (OpenVINO models): the weights of the first convolution get 7 bits, those of all others 8.
#
# Guess, written down before the run: quantize() with default settings gives each int8 weight tensor the full range, so
# that the largest weight of every channel is 127 or -127.
#
# Seen on 2026-11-29, on a processor with VNNI too: the first convolution ends at -63 and 63, the second and the matrix
# product at -127 and 127. It is the overflow fix for processors without VNNI, on by default for the first layer. The
# step is twice as coarse there, in the layer that sees the scan. Where only VNNI, AMX or Arm dot products serve, ask
# for AdvancedQuantizationParameters(overflow_fix=OverflowFix.DISABLE); the second half of this script shows that it
# then is 127.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 openvino==2026.4.1 nncf==3.4.0
"$dir/venv/bin/pip" uninstall --quiet --yes openvino-telemetry # nothing shall be sent from here
cd "$dir"
HOME="$dir" venv/bin/python - <<'EOF'
import logging
import numpy as np
import nncf
import openvino as ov
from nncf.quantization.advanced_parameters import OverflowFix
from openvino import opset13 as op

logging.disable(logging.CRITICAL)
random = np.random.default_rng(0)


def network():
    x = op.parameter([1, 3, 16, 16], np.float32, name="x")
    y = x
    for channels in (3, 8):
        weight = random.normal(size=(8, channels, 3, 3)).astype(np.float32)
        y = op.relu(op.convolution(y, op.constant(weight), [1, 1], [0, 0], [0, 0], [1, 1]))
    y = op.reshape(op.reduce_mean(y, op.constant([2, 3]), False), op.constant([1, 8]), False)
    y = op.matmul(y, op.constant(random.normal(size=(8, 4)).astype(np.float32)), False, False)
    return ov.Model([y], [x], "network")


data = [random.normal(size=(1, 3, 16, 16)).astype(np.float32) for _ in range(4)]


def ranges(**options):
    quantised = nncf.quantize(network(), nncf.Dataset(data), subset_size=4, **options)
    weights = [node.get_data() for node in quantised.get_ops()
               if node.get_type_name() == "Constant" and node.get_element_type() == ov.Type.i8]
    return {w.shape: int(np.abs(w.astype(int)).max()) for w in weights}


default = ranges()
full = ranges(advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=OverflowFix.DISABLE))
print("largest weight, default:", default, "without the fix:", full)
assert set(full.values()) == {127} and len(default) == 3
first = default.pop((8, 3, 3, 3))
assert first in (63, 64) and set(default.values()) == {127}, "the behaviour changed"
EOF
