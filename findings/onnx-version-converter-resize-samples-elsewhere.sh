#!/usr/bin/env bash
# onnx 1.23.2: version_converter from opset 10 to 11 and later leaves a Resize that samples other places.
#
# Guess, written down before the run: convert_version keeps what a file computes, or refuses: the Resize of opset 10 becomes one of
# opset 11 with coordinate_transformation_mode "asymmetric", which is what opset 10 defines.
#
# Seen on 2026-11-30: the node gets an empty region input and no attribute, so opset 11's default half_pixel holds. A ramp 0, 1, 2,
# 3 at twice the width is 0, 0.5, 1, 1.5, 2, ... before and 0, 0.25, 0.75, 1.25, ... after (onnxruntime 1.32.0 and the onnx
# reference evaluator): a shift by a quarter of a pixel of the source. The same from Upsample of opset 9; mode "nearest" picks the
# same pixels at twice the width. The checker accepts the file, no warning. Feature maps that are upsampled and added (a
# pyramid, a segmentation of layers) are moved against each other. Set the attribute after the conversion, and compare outputs.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps numpy==2.4.6 onnx==1.23.2 protobuf==7.36.2 ml_dtypes==0.6.0 typing_extensions==4.16.0 onnxruntime==1.32.0 flatbuffers==25.12.19 packaging==26.3
cd "$dir"
ORT_DISABLE_TELEMETRY=1 HOME="$dir" venv/bin/python - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, version_converter
from onnx.reference import ReferenceEvaluator

x = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4)


def file_of(operator, opset, mode):
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 1, w]) for n, w in (("x", 4), ("y", 8))]
    scales = numpy_helper.from_array(np.array([1, 1, 1, 2], np.float32), "scales")
    node = helper.make_node(operator, ["x", "scales"], ["y"], mode=mode)
    graph = helper.make_graph([node], "g", info[:1], info[1:], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=5)
    onnx.checker.check_model(model, full_check=True)
    return model


def answer(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0].ravel()


for case in (("Resize", 10, "linear"), ("Upsample", 9, "linear"), ("Resize", 10, "nearest")):
    model = file_of(*case)
    newer = version_converter.convert_version(model, 18)
    onnx.checker.check_model(newer, full_check=True)
    node = next(n for n in newer.graph.node if n.op_type == "Resize")
    names = [attribute.name for attribute in node.attribute]
    print(case, "before", answer(model), "after", answer(newer), "attributes", names)
    assert np.allclose(answer(newer), ReferenceEvaluator(newer).run(None, {"x": x})[0].ravel())
    assert "coordinate_transformation_mode" not in names, "the behaviour changed"
    if case[2] == "linear":
        assert answer(model).tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
        assert answer(newer).tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], "the behaviour changed"
    else:
        assert np.array_equal(answer(model), answer(newer))
PY
