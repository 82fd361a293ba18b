"""A graph as the bytes of a .tflite file, through the schema that LiteRT's own package ships. Weights lie inside."""

from __future__ import annotations

from typing import Any

import numpy as np

from octc.core.optional import need
from octc.export.litert.graph import Graph, Operation, Tensor

TYPES = {"float32": "FLOAT32", "int32": "INT32", "uint8": "UINT8", "int8": "INT8", "bool": "BOOL"}
# operator -> table of options; the others have none that must be written
OPTIONS = {
    "ADD": "AddOptions", "AVERAGE_POOL_2D": "Pool2DOptions", "BATCH_MATMUL": "BatchMatMulOptions", "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions", "CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DIV": "DivOptions", "FULLY_CONNECTED": "FullyConnectedOptions", "GATHER": "GatherOptions", "GELU": "GeluOptions",
    "LEAKY_RELU": "LeakyReluOptions", "MAX_POOL_2D": "Pool2DOptions", "MEAN": "ReducerOptions",
    "MIRROR_PAD": "MirrorPadOptions", "MUL": "MulOptions", "REDUCE_MAX": "ReducerOptions", "REDUCE_MIN": "ReducerOptions",
    "RESHAPE": "ReshapeOptions", "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions", "SOFTMAX": "SoftmaxOptions",
    "STRIDED_SLICE": "StridedSliceOptions", "SUB": "SubOptions", "SUM": "ReducerOptions",
}  # fmt: skip
VERSION, MARK = 3, b"TFL3"  # of the schema, and what a file has at bytes 4 to 8
ALIGNMENT = 16  # bytes, of a constant's data


def to_bytes(graph: Graph) -> bytes:
    """The file. Same graph, same bytes."""
    schema: Any = need("ai_edge_litert.schema_py_generated")
    import flatbuffers

    tensors = graph.tensors()
    places = {id(one): i for i, one in enumerate(tensors)}
    model = schema.ModelT()
    model.version, model.description = VERSION, "octc"
    aligned = _aligned_buffer(schema)
    model.buffers = [aligned()]  # the first one is empty: what has no data names it
    kinds = sorted({(op.kind, op.version) for op in graph.operations})
    model.operatorCodes = [_code(schema, *kind) for kind in kinds]
    part = schema.SubGraphT()
    part.name = "main"
    part.tensors = [_tensor(schema, model, one) for one in tensors]
    part.inputs, part.outputs = [places[id(graph.input)]], [places[id(graph.output)]]
    part.operators = [_operator(schema, op, kinds.index((op.kind, op.version)), places) for op in graph.operations]
    model.subgraphs = [part]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=MARK)
    return bytes(builder.Output())


def _aligned_buffer(schema: Any) -> Any:
    """The schema's BufferT, whose data begins at a multiple of 16 bytes, as the schema demands and its Python code forgets."""

    class Aligned(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> Any:  # noqa: N802 (the schema's own name)
            data = None
            if self.data is not None:
                builder.StartVector(1, len(self.data), ALIGNMENT)
                builder.head -= len(self.data)
                builder.Bytes[builder.head : builder.head + len(self.data)] = self.data.tobytes()
                data = builder.EndVector()
            schema.BufferStart(builder)
            if data is not None:
                schema.BufferAddData(builder, data)
            return schema.BufferEnd(builder)

    return Aligned


def _code(schema: Any, kind: str, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = version
    return code


def _tensor(schema: Any, model: Any, one: Tensor) -> Any:
    made = schema.TensorT()
    made.name, made.shape, made.type = one.name, list(one.shape), getattr(schema.TensorType, TYPES[one.type])
    made.buffer = 0
    if one.data is not None:
        buffer = type(model.buffers[0])()
        buffer.data = np.frombuffer(one.data.tobytes(), np.uint8)
        made.buffer = len(model.buffers)
        model.buffers.append(buffer)
    elif one.shape and len(one.shape) > 1:
        made.shapeSignature = [-1, *one.shape[1:]]
    if one.scales is not None:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = list(one.scales.scale)
        made.quantization.zeroPoint = [one.scales.zero] * len(one.scales.scale)
        made.quantization.quantizedDimension = one.scales.axis
    return made


def _operator(schema: Any, op: Operation, code: int, places: dict[int, int]) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex = code
    made.inputs, made.outputs = [places[id(one)] for one in op.inputs], [places[id(op.output)]]
    if (name := OPTIONS.get(op.kind)) is not None:
        made.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        made.builtinOptions = getattr(schema, f"{name}T")()
        for key, value in op.options.items():
            setattr(made.builtinOptions, key, value)
    return made
