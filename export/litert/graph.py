"""A LiteRT graph as plain data: tensors with shapes in the order N, H, W, C, and operators of the TFLite schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# operator -> version in the schema for float and for INT8 tensors (tensorflow/lite/tools/versioning/op_version.cc)
VERSIONS: Mapping[str, tuple[int, int]] = {
    "ABS": (1, 1), "ADD": (1, 2), "AVERAGE_POOL_2D": (1, 2), "BATCH_MATMUL": (1, 2), "CAST": (1, 1), "CONCATENATION": (1, 2),
    "CONV_2D": (1, 3), "COS": (1, 1), "DEPTHWISE_CONV_2D": (1, 3), "DEQUANTIZE": (1, 2), "DIV": (1, 2), "ELU": (1, 1),
    "EQUAL": (1, 2), "EXP": (1, 2), "FLOOR": (1, 1), "FULLY_CONNECTED": (1, 4), "GATHER": (1, 2), "GELU": (1, 2),
    "GREATER": (1, 2), "GREATER_EQUAL": (1, 2), "HARD_SWISH": (1, 1), "LEAKY_RELU": (1, 2), "LESS": (1, 2),
    "LESS_EQUAL": (1, 2), "LOG": (1, 2), "LOGICAL_AND": (1, 1), "LOGICAL_NOT": (1, 1), "LOGICAL_OR": (1, 1),
    "LOGISTIC": (1, 2), "LOG_SOFTMAX": (1, 2), "MAXIMUM": (1, 2), "MAX_POOL_2D": (1, 2),
    "MEAN": (1, 2), "MINIMUM": (1, 2), "MIRROR_PAD": (1, 2), "MUL": (1, 2), "NEG": (1, 1), "PAD": (1, 2), "PADV2": (1, 2),
    "POW": (1, 1), "PRELU": (1, 1), "QUANTIZE": (1, 2), "REDUCE_MAX": (1, 2), "REDUCE_MIN": (1, 2), "RELU": (1, 2),
    "RELU6": (1, 2), "RESHAPE": (1, 1), "RESIZE_BILINEAR": (3, 3), "RESIZE_NEAREST_NEIGHBOR": (3, 3), "ROUND": (1, 1),
    "RSQRT": (1, 2), "SELECT_V2": (1, 1), "SIN": (1, 1), "SOFTMAX": (1, 2), "SQRT": (1, 1), "SQUARE": (1, 1),
    "SQUARED_DIFFERENCE": (1, 2), "STRIDED_SLICE": (1, 2), "SUB": (1, 2), "SUM": (1, 2), "TANH": (1, 2), "TILE": (1, 1),
    "TRANSPOSE": (1, 2),
}  # fmt: skip


@dataclass(frozen=True)
class Scales:
    """Quantisation of a tensor: value = scale * (code - zero). scale: one, or one a slice along `axis`; zero is 0 for those."""

    scale: tuple[float, ...]
    zero: int = 0
    axis: int = 0


@dataclass(eq=False)
class Tensor:
    """shape: N, H, W, C (weights O, H, W, I; depthwise ones 1, H, W, C). type: numpy's name. data: of a constant."""

    name: str
    shape: tuple[int, ...]
    type: str = "float32"
    scales: Scales | None = None
    data: Array | None = None


@dataclass(frozen=True)
class Operation:
    """options: fields of the schema's options table, by their names there."""

    kind: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> int:
        quantised = any(one.type == "int8" for one in (*self.inputs, self.output))
        if self.kind == "DEQUANTIZE" and self.inputs[0].scales is not None and len(self.inputs[0].scales.scale) > 1:
            return 5
        return VERSIONS[self.kind][quantised]


@dataclass
class Graph:
    """input, output: of the whole graph; operations in the order in which they run."""

    input: Tensor
    output: Tensor
    operations: list[Operation] = field(default_factory=list)

    def tensors(self) -> list[Tensor]:
        """Every tensor once, the input first."""
        found = [self.input, *(one for op in self.operations for one in (*op.inputs, op.output))]
        return list(dict.fromkeys(found))


def constant(name: str, values: Any, kind: str = "float32", scales: Scales | None = None) -> Tensor:
    data = np.ascontiguousarray(values, dtype=kind)
    return Tensor(name, tuple(data.shape), kind, scales, data)


def number(value: float) -> Tensor:
    """A constant of one float, which has one name wherever it is used."""
    return constant(f"number {value!r}", [value])
