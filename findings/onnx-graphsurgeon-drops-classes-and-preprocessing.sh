#!/usr/bin/env bash
# onnx-graphsurgeon 0.6.1: what a classifier's file says of classes, preprocessing and version is gone after import and export.
#
# Guess, written down before the run: import_onnx and export_onnx without a change in between keep metadata_props (class names, mean and deviation,
# digest of the training), the version of the model and its descriptions, as onnxsim, onnxslim and onnxoptimizer do.
#
# Seen on 2026-12-01: metadata_props is empty, model_version is 0, the descriptions of the model and the input are empty; the graph's, the name
# of the producer and the opset stay, and so do the numbers. No warning. TensorRT's Polygraphy and most recipes that cut a head or mend a
# Resize for TensorRT write their files by this package. A program that reads the order of classes or the normalisation out of the file
# then falls back to its defaults, or shows class 2 in place of a name. Copy the fields by hand from the file before.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnx-graphsurgeon==0.6.1
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import warnings

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper

warnings.simplefilter("error")


def said(model):
    return {
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
        "version": model.model_version,
        "model": model.doc_string,
        "graph": model.graph.doc_string,
        "input": model.graph.input[0].doc_string,
        "producer": model.producer_name,
        "opset": model.opset_import[0].version,
    }


image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 8], "grey values divided by 255")
logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])
weights = numpy_helper.from_array(np.ones((8, 4), np.float32), "weights")
graph = helper.make_graph([helper.make_node("MatMul", ["image", "weights"], ["logits"])], "g", [image], [logits], [weights])
graph.doc_string = "B-scans of 496 rows"
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="clinic", doc_string="not for children")
model.model_version = 7
helper.set_model_props(model, {"classes": "CNV,DME,DRUSEN,NORMAL", "mean": "0.5"})
onnx.checker.check_model(model)
before, after = said(model), said(gs.export_onnx(gs.import_onnx(model)))
print("before", before)
print("after ", after)
assert before["metadata"] and before["version"] == 7
assert after["graph"] and after["producer"] == "clinic" and after["opset"] == 17
assert after["metadata"] == {} and after["version"] == 0, "the behaviour changed"
assert after["model"] == after["input"] == "", "the behaviour changed"
PY
