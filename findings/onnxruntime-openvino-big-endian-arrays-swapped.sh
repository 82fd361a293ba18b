#!/usr/bin/env bash
# onnxruntime 1.32.0 and OpenVINO 2026.4.1: a big-endian array is taken with its bytes swapped, without a word.
#
# Guess, written down before the run: a numpy array of dtype >f4 or >u2 (what readers of big-endian TIFF and DICOM hand
# out) is converted by the engines, or refused.
#
# Seen on 2026-11-29: session.run of onnxruntime computes with 256, 512, 768 for >u2 1, 2, 3 and with denormal noise for
# >f4; so do ov.Tensor(array) and opset constant(array) of OpenVINO. Only calling an OpenVINO model with the bare array
# converts. By contrast onnx.numpy_helper.from_array and tritonclient refuse such an array, and safetensors converts it.
# Make the array native first: numpy.ascontiguousarray(array, dtype=numpy.float32).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 protobuf==7.36.2 ml_dtypes==0.6.0 typing_extensions==4.16.0 flatbuffers==25.12.19 packaging==26.3
cd "$dir"
HOME="$dir" ORT_DISABLE_TELEMETRY=1 venv/bin/python - <<'EOF'
import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
from onnx import TensorProto, helper

native = np.array([1, 2, 3], np.float32)


def identity(kind):
    info = [helper.make_tensor_value_info(n, kind, [3]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


for kind, code in ((TensorProto.UINT16, "u2"), (TensorProto.FLOAT, "f4")):
    model, array = identity(kind), native.astype(">" + code)
    swapped = array.view("<" + code)  # the same bytes, read in the other order
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    onnx.save(model, "identity.onnx")
    compiled = ov.Core().compile_model("identity.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    seen = {
        "onnxruntime": session.run(None, {"x": array})[0],
        "ov.Tensor": ov.Tensor(array).data,
        "ov constant": ov.opset13.constant(array).get_data(),
        "ov call": np.array(compiled(array)[0]),
    }
    print(">" + code, {name: values.tolist() for name, values in seen.items()})
    assert np.array_equal(session.run(None, {"x": native.astype("<" + code)})[0], native)
    assert np.array_equal(seen.pop("ov call"), native), "the behaviour changed"
    for values in seen.values():
        assert values.tobytes() == swapped.tobytes(), "the behaviour changed"
    try:
        onnx.numpy_helper.from_array(array)
    except ValueError as error:
        print("onnx:", error)
EOF
