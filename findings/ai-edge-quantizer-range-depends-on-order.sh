#!/usr/bin/env bash
# ai-edge-quantizer 0.10.0: the INT8 ranges depend on the order of the calibration images, and do not cover them.
#
# Guess, written down before the run: static calibration takes the smallest and the largest value of each tensor over the
# calibration images, as the converter of TensorFlow Lite does, so that their order does not matter.
#
# Seen on 2026-11-30 (a convolution, 19 dim images in 0..0.2 and one in 0..1): with the bright image last the input's range
# ends at 0.24, with it first at 0.50. Ranges are moving averages with a smoothing factor of 0.95, so the first image keeps
# 0.95^19 = 38 % of the say and the last one has 5 %. Whatever is brighter is cut in the INT8 file: a bright RPE or a hard
# exudate that only some images show. No warning. So shuffle by a fixed seed, put a batch with the widest range first, or
# hand min and max over all images to quantize() yourself (the result of calibrate() is a plain table).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 flatbuffers==25.12.19 ai-edge-litert==2.3.0 \
    ai-edge-quantizer==0.10.0
cd "$dir"
HOME="$dir" venv/bin/python - 2>stderr <<'PY'
import contextlib
import io

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as s
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe

rng = np.random.default_rng(0)


def float_file():
    """A LiteRT file of one float convolution on [1, 16, 16, 1]."""
    model, graph, code, op = s.ModelT(), s.SubGraphT(), s.OperatorCodeT(), s.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = s.BuiltinOperator.CONV_2D
    code.version = 1
    buffers, graph.tensors = [s.BufferT()], []
    for name, shape, values in (
        ("x", [1, 16, 16, 1], None),
        ("w", [4, 3, 3, 1], rng.normal(size=(4, 3, 3, 1))),
        ("b", [4], np.zeros(4)),
        ("y", [1, 14, 14, 4], None),
    ):
        tensor = s.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, s.TensorType.FLOAT32, 0
        if values is not None:
            buffer = s.BufferT()
            buffer.data = np.frombuffer(np.asarray(values, np.float32).tobytes(), np.uint8)
            tensor.buffer = len(buffers)
            buffers.append(buffer)
        graph.tensors.append(tensor)
    options = s.Conv2DOptionsT()
    options.padding = s.Padding.VALID
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    op.opcodeIndex, op.inputs, op.outputs = 0, [0, 1, 2], [3]
    op.builtinOptionsType, op.builtinOptions = s.BuiltinOptions.Conv2DOptions, options
    graph.inputs, graph.outputs, graph.operators = [0], [3], [op]
    signature, one, other = s.SignatureDefT(), s.TensorMapT(), s.TensorMapT()
    one.name, one.tensorIndex, other.name, other.tensorIndex = "x", 0, "y", 3
    signature.signatureKey, signature.subgraphIndex, signature.inputs, signature.outputs = "serving_default", 0, [one], [other]
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, buffers, [code], [graph]
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def end_of_range(images):
    """The largest value that the INT8 input can hold."""
    with contextlib.redirect_stdout(io.StringIO()):
        work = quantizer.Quantizer("float.tflite")
        work.load_quantization_recipe(recipe.static_wi8_ai8())
        calibrated = work.calibrate({"serving_default": [{"x": image} for image in images]})
        data = bytes(work.quantize(calibrated).quantized_model)
    interpreter = Interpreter(model_content=data)
    (x,) = (one for one in interpreter.get_tensor_details() if one["name"] == "x")
    assert x["dtype"] == np.int8
    return float((127 - x["quantization_parameters"]["zero_points"][0]) * x["quantization_parameters"]["scales"][0])


with open("float.tflite", "wb") as file:
    file.write(float_file())
dim = [rng.random((1, 16, 16, 1)).astype(np.float32) * np.float32(0.2) for _ in range(19)]
bright = rng.random((1, 16, 16, 1)).astype(np.float32)
last, first, alone = end_of_range([*dim, bright]), end_of_range([bright, *dim]), end_of_range([bright])
print(f"largest value {bright.max():.3f}; range ends at: bright last {last:.3f}, first {first:.3f}, alone {alone:.3f}")
assert abs(alone - bright.max()) < 0.01
assert last < 0.3 and 0.4 < first < 0.6, "the behaviour changed"
PY
