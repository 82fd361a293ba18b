"""A .tflite file looked into without LiteRT: operators, inputs, whether all data lies inside. Nothing is executed or copied.

Format: FlatBuffers (https://flatbuffers.dev/internals) with the schema of TFLite
(https://github.com/google-ai-edge/LiteRT/blob/main/tflite/schema/schema.fbs), whose field numbers stand here. Every offset is
held against the end of the file, and what is read is bounded.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass

MARK = b"TFL3"
MOST = 1_000_000  # tables that are walked
MODEL_CODES, MODEL_GRAPHS, MODEL_BUFFERS, MODEL_EXTERNAL_GROUPS, MODEL_EXTERNAL = 1, 2, 4, 8, 9
CODE_OLD, CODE_CUSTOM, CODE_BUILTIN = 0, 1, 3
GRAPH_TENSORS, GRAPH_INPUTS, GRAPH_OUTPUTS, GRAPH_OPERATORS = 0, 1, 2, 3
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_NAME, TENSOR_SIGNATURE, TENSOR_EXTERNAL = 0, 1, 3, 7, 10
BUFFER_OFFSET, BUFFER_SIZE = 1, 2
OPERATOR_CODE = 0
TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 9: "int8", 10: "float64", 18: "bfloat16"}  # TensorType
# BuiltinOperator: what an inference graph of a classifier is made of, as octc writes it. None of them holds a state, draws
# random numbers or calls another graph.
OPERATORS = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 6: "DEQUANTIZE", 8: "FLOOR",
    9: "FULLY_CONNECTED", 14: "LOGISTIC", 17: "MAX_POOL_2D", 18: "MUL", 19: "RELU", 21: "RELU6", 22: "RESHAPE",
    23: "RESIZE_BILINEAR", 25: "SOFTMAX", 28: "TANH", 34: "PAD", 36: "GATHER", 39: "TRANSPOSE", 40: "MEAN", 41: "SUB",
    42: "DIV", 45: "STRIDED_SLICE", 47: "EXP", 50: "LOG_SOFTMAX", 53: "CAST", 54: "PRELU", 55: "MAXIMUM", 57: "MINIMUM",
    58: "LESS", 59: "NEG", 60: "PADV2", 61: "GREATER", 62: "GREATER_EQUAL", 63: "LESS_EQUAL", 66: "SIN", 69: "TILE",
    71: "EQUAL", 73: "LOG", 74: "SUM", 75: "SQRT", 76: "RSQRT", 78: "POW", 82: "REDUCE_MAX", 84: "LOGICAL_OR",
    86: "LOGICAL_AND", 87: "LOGICAL_NOT", 89: "REDUCE_MIN", 92: "SQUARE", 97: "RESIZE_NEAREST_NEIGHBOR", 98: "LEAKY_RELU",
    99: "SQUARED_DIFFERENCE", 100: "MIRROR_PAD", 101: "ABS", 108: "COS", 111: "ELU", 114: "QUANTIZE", 116: "ROUND",
    117: "HARD_SWISH", 123: "SELECT_V2", 126: "BATCH_MATMUL", 150: "GELU",
}  # fmt: skip


@dataclass(frozen=True)
class LiteRtFile:
    """operators: name (or what it is called where it is not allowed) -> how often. graphs: subgraphs.

    inputs: (name, type, shape) of the first graph, "?" where a side is free. outside: what lies outside the FlatBuffer.
    """

    operators: dict[str, int]
    refused: tuple[str, ...]
    graphs: int
    inputs: tuple[tuple[str, str, tuple[str, ...]], ...]
    outside: tuple[str, ...]


def scan_litert(data: bytes | memoryview) -> LiteRtFile:
    """What a file holds.

    Raises:
        ValueError: it is not well-formed.
    """
    view = memoryview(data)
    if bytes(view[4:8]) != MARK:
        raise ValueError("it does not begin as a .tflite file does")
    try:
        return _scan(_Buffer(view))
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"an offset leaves the file ({error})") from error


class _Buffer:
    """Bounded reads of a FlatBuffer."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.walked = 0

    def number(self, form: str, at: int) -> int:
        if at < 0:
            raise ValueError("an offset before the file")
        return int(struct.unpack_from(form, self.view, at)[0])

    def follow(self, at: int) -> int:
        return at + self.number("<I", at)

    def field(self, table: int, number: int) -> int:
        """The place of a field, 0 where the table has none."""
        vtable = table - self.number("<i", table)
        slot = 4 + 2 * number
        if slot + 2 > self.number("<H", vtable):
            return 0
        offset = self.number("<H", vtable + slot)
        return table + offset if offset else 0

    def value(self, table: int, number: int, form: str) -> int:
        place = self.field(table, number)
        return self.number(form, place) if place else 0

    def vector(self, table: int, number: int) -> tuple[int, int]:
        """The first place and the length."""
        place = self.field(table, number)
        if not place:
            return 0, 0
        start = self.follow(place)
        length = self.number("<I", start)
        if start + 4 + length > len(self.view):
            raise ValueError("a vector leaves the file")
        return start + 4, length

    def tables(self, table: int, number: int) -> list[int]:
        start, length = self.vector(table, number)
        self.walked += length
        if self.walked > MOST:
            raise ValueError(f"more than {MOST} parts")
        return [self.follow(start + 4 * i) for i in range(length)]

    def numbers(self, table: int, number: int) -> list[int]:
        start, length = self.vector(table, number)
        return list(struct.unpack_from(f"<{length}i", self.view, start)) if length else []

    def text(self, table: int, number: int) -> str:
        start, length = self.vector(table, number)
        return bytes(self.view[start : start + length]).decode(errors="replace")


def _scan(buffer: _Buffer) -> LiteRtFile:
    model = buffer.follow(0)
    codes = [_operator(buffer, code) for code in buffer.tables(model, MODEL_CODES)]
    graphs = buffer.tables(model, MODEL_GRAPHS)
    found: Counter[str] = Counter()
    outside: list[str] = []
    for graph in graphs:
        for operator in buffer.tables(graph, GRAPH_OPERATORS):
            found[codes[buffer.value(operator, OPERATOR_CODE, "<I")]] += 1
        for tensor in buffer.tables(graph, GRAPH_TENSORS):
            if buffer.value(tensor, TENSOR_EXTERNAL, "<I"):
                outside.append(f"tensor {buffer.text(tensor, TENSOR_NAME)[:100]}")
    if any(buffer.vector(model, number)[1] for number in (MODEL_EXTERNAL_GROUPS, MODEL_EXTERNAL)):
        outside.append("external buffers")
    for place, one in enumerate(buffer.tables(model, MODEL_BUFFERS)):
        if buffer.value(one, BUFFER_OFFSET, "<Q") > 1 or buffer.value(one, BUFFER_SIZE, "<Q") > 1:
            outside.append(f"buffer {place}")
    refused = tuple(sorted(name for name in found if name not in OPERATORS.values()))
    inputs = _inputs(buffer, graphs[0]) if graphs else ()
    return LiteRtFile(dict(found), refused, len(graphs), inputs, tuple(outside))


def _operator(buffer: _Buffer, code: int) -> str:
    """Its name; the old field is a byte and holds 127 where the number is larger."""
    if custom := buffer.text(code, CODE_CUSTOM):
        return f"custom {custom[:100]}"
    number = max(buffer.value(code, CODE_OLD, "<b"), buffer.value(code, CODE_BUILTIN, "<i"))
    return OPERATORS.get(number, f"builtin {number}")


def _inputs(buffer: _Buffer, graph: int) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    tensors = buffer.tables(graph, GRAPH_TENSORS)
    found = []
    for place in buffer.numbers(graph, GRAPH_INPUTS):
        tensor = tensors[place] if place >= 0 else -1
        kind = buffer.value(tensor, TENSOR_TYPE, "<b")
        shape = buffer.numbers(tensor, TENSOR_SIGNATURE) or buffer.numbers(tensor, TENSOR_SHAPE)
        sides = tuple("?" if side < 0 else str(side) for side in shape)
        found.append((buffer.text(tensor, TENSOR_NAME), TYPES.get(kind, f"type {kind}"), sides))
    return tuple(found)
