#!/usr/bin/env bash
# onnxconverter-common 1.16.0: the conversion to float16 turns weights above 10,000 into 10,000 and small ones into
# 1e-7.
#
# Guess, written down before the run: a weight of 20000 stays 20000, since float16 reaches to 65504, and 1e-8 becomes 0.
#
# Seen on 2026-11-29: 20000 and 60000 become 10000, -20000 becomes -10000, 1e-8 becomes 1e-7, -1e-8 becomes -1e-7 (0
# stays 0). Only Python warnings tell it, no error. The limits are the function's own (max_finite_val,
# min_positive_val). A folded scale of a batch normalisation, or a mean in raw 16-bit grey values, is easily above. Pass
# max_finite_val=65504, and compare outputs after the conversion.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxconverter-common==1.16.0
cd "$dir"
HOME="$dir" venv/bin/python - <<'EOF'
import warnings
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxconverter_common.float16 import convert_float_to_float16

weights = np.array([20000, 60000, -20000, 1e-8, -1e-8, 0], np.float32)


def converted(**options):
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [6]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", info[:1], info[1:],
                              [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return numpy_helper.to_array(convert_float_to_float16(model, **options).graph.initializer[0])


default, wide = converted(), converted(max_finite_val=65504.0)
print("weights", weights.tolist(), "default", default.tolist(), "max_finite_val=65504", wide.tolist())
assert np.isfinite(weights.astype(np.float16)).all()
assert wide[:3].tolist() == weights[:3].astype(np.float16).tolist()
assert default[:3].tolist() == [10000, 10000, -10000], "the behaviour changed"
assert default[3] == np.float16(1e-7) and default[4] == np.float16(-1e-7) and default[5] == 0, "the behaviour changed"
EOF
