#!/usr/bin/env bash
# LiteRT 2.3.0: an int8 LOGISTIC on another output grid than 1/256 is right with XNNPACK, and cannot be loaded without it.
#
# Guess (written before the run): the quantisation of the output is honoured, or refused, by the file; which kernels run it
# decides about speed alone.
#
# Seen on 2026-11-30 on x86-64: with the default resolver the operator goes to XNNPACK and all 256 codes are those of the
# exact sigmoid on the file's grid (scale 1/127, zero-point 0). With the built-in kernels, reference or optimised, the same
# file fails in allocate_tensors: "output->params.scale == 1. / 256 was not true". So whoever writes quantised gates (squeeze-
# excite, SiLU) must take scale 1/256 and zero-point -128, or the file runs only where XNNPACK takes that operator.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps ai-edge-litert==2.3.0 numpy==2.4.6 flatbuffers==25.12.19 protobuf==7.36.2 ml_dtypes==0.6.0 tqdm==4.70.1 typing_extensions==4.16.0 backports.strenum==1.2.8
cd "$dir"
HOME="$dir" venv/bin/python - 2>stderr <<'EOF'
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as s
from ai_edge_litert.interpreter import Interpreter, OpResolverType


def file_of(kind, scale, zero):
    """One operator on int8 [1, 256] of scale 0.05."""
    model, graph, code, op = s.ModelT(), s.SubGraphT(), s.OperatorCodeT(), s.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(s.BuiltinOperator, kind)
    code.version = 2 if kind == "LOGISTIC" else 1
    graph.tensors = []
    for name, step, offset in (("x", 0.05, 0), ("y", scale, zero)):
        tensor = s.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, [1, 256], s.TensorType.INT8, 0
        tensor.quantization = s.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [step], [offset]
        graph.tensors.append(tensor)
    op.opcodeIndex, op.inputs, op.outputs = 0, [0], [1]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [op]
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [s.BufferT()], [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def run(data, resolver):
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, np.arange(-128, 128, dtype=np.int8)[None])
    interpreter.invoke()
    names = [one["op_name"] for one in interpreter._get_ops_details()]
    return interpreter.get_tensor(1)[0].astype(int), "DELEGATE" in names


x = np.arange(-128, 128) * np.float64(np.float32(0.05))

for scale, zero, portable in ((1 / 256, -128, True), (1 / 127, 0, False)):
    want = np.clip(np.rint(1 / (1 + np.exp(-x)) / np.float32(scale)) + zero, -128, 127)
    found, delegated = run(file_of("LOGISTIC", scale, zero), OpResolverType.AUTO)
    print(f"scale {scale:.5f}: delegated {delegated}, codes that differ {int((found != want).sum())}")
    assert delegated and (found == want).all(), "the behaviour changed"
    for resolver in (OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN_REF):
        try:
            found, _ = run(file_of("LOGISTIC", scale, zero), resolver)
            print(f"  {resolver.name}: runs, codes that differ {int((found != want).sum())}")
            assert portable and (found == want).all(), "the behaviour changed"
        except RuntimeError as error:
            print(f"  {resolver.name}: {error}")
            assert not portable and "1. / 256" in str(error), "the behaviour changed"
EOF
