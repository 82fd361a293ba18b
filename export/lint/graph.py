"""A graph with its wires, as the linter sees it: who makes a tensor, who reads it, constants, shapes and element types."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

Q, DQ = "QuantizeLinear", "DequantizeLinear"
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# TensorRT folds these where all inputs are constants; others crash its parser when they make a scale (each was tried)
ARITHMETIC = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Max": np.maximum, "Min": np.minimum}
SAME = ("Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten")
SIGNS = {"Neg": np.negative, "Abs": np.abs, "Exp": np.exp, "Sqrt": np.sqrt}
FOLDED = (
    *ARITHMETIC,
    *SAME,
    *SIGNS,
    "Cast",
    "Gather",
    "Concat",
    "Clip",
    "ConstantOfShape",
    "Expand",
    "Slice",
    "Where",
    "Constant",
)
PLAIN = ("value_float", "value_floats", "value_int", "value_ints")  # attributes of a Constant
# these move through Q and DQ without a change of any value
MOVERS = (
    "MaxPool",
    "GlobalMaxPool",
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Split",
    "DepthToSpace",
    "Identity",
    "Concat",
    "Pad",
)
SINGLE = tuple(name for name in MOVERS if name != "Concat")
FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


@dataclass
class Graph:
    """One graph of a model (the main one, or one inside a node)."""

    proto: Any
    opset: int
    outer: Graph | None = None
    made: dict[str, Any] = field(default_factory=dict)
    read: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    constants: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outer is not None:
            self.constants.update(self.outer.constants)
            self.made.update(self.outer.made)
        self.constants.update({t.name: t for t in self.proto.initializer})
        for node in self.proto.node:
            for name in node.output:
                self.made[name] = node
            for name in node.input:
                if name:
                    self.read[name].append(node)
            if node.op_type == "Constant" and node.output:
                self.constants.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
                plain = [helper.get_attribute_value(a) for a in node.attribute if a.name in PLAIN]
                self.constants.update((node.output[0], _tensor(value)) for value in plain)

    @property
    def nodes(self) -> Any:
        return self.proto.node

    def array(self, name: str) -> Any:
        """A constant's values, also behind operators that are folded; None where it is computed at run time."""
        if name not in self.arrays:
            self.arrays[name] = self._array(name, 8)
        return self.arrays[name]

    def _array(self, name: str, depth: int) -> Any:
        if name in self.constants:
            try:
                return numpy_helper.to_array(self.constants[name])
            except (ValueError, TypeError, OSError, KeyError, IndexError):
                return None  # external or damaged data
        maker = self.made.get(name)
        if maker is None or depth == 0 or not maker.input:
            return None
        parts = [self._array(one, depth - 1) for one in maker.input]
        if maker.op_type in SAME and parts[0] is not None:
            shape = self.shapes.get(name)
            return parts[0].reshape(shape) if shape is not None and None not in shape else parts[0]
        return None if any(part is None for part in parts) else _folded(maker, parts)

    def is_constant(self, name: str, kinds: tuple[str, ...] | None = None) -> bool:
        """Whether a tensor is known before the engine runs: an initialiser, or computed from such ones alone (by `kinds`)."""
        pending, seen = [name], set()
        while pending:
            one = pending.pop()
            if one in self.constants or one in seen or not one:
                continue
            seen.add(one)
            if one not in self.made or not self.made[one].input or (kinds and self.made[one].op_type not in kinds):
                return False
            pending += self.made[one].input
        return True

    def of(self, *kinds: str) -> Iterator[Any]:
        return (node for node in self.nodes if node.op_type in kinds)

    def maker(self, name: str) -> str:
        return str(self.made[name].op_type) if name in self.made else ""

    def back(self, name: str, kinds: tuple[str, ...] = MOVERS) -> str:
        """The tensor from which `name` comes through operators of `kinds` (by their first input)."""
        for _ in range(64):
            node = self.made.get(name)
            if node is None or node.op_type not in kinds or not node.input:
                break
            name = node.input[0]
        return name

    def quantised(self, name: str) -> bool:
        """Whether an activation reaches a layer in INT8: a DQ, perhaps behind operators that move through it.

        All inputs of a concatenation must do so.
        """
        end = self.back(name, (*SINGLE, "Cast"))
        node = self.made.get(end)
        if node is not None and node.op_type == "Concat":
            return bool(node.input) and all(self.quantised(one) for one in node.input)
        return self.maker(end) == DQ

    def dq_of(self, name: str) -> Any:
        """The DQ that a weight comes from, through operators that are folded; None without."""
        node = self.made.get(self.back(name, ("Transpose", "Reshape", "Cast", "Identity", "Mul", "Squeeze", "Unsqueeze")))
        return node if node is not None and node.op_type == DQ else None

    def users(self, node: Any) -> list[Any]:
        return [user for name in node.output for user in self.read[name]]

    def rank(self, name: str) -> int | None:
        shape = self.shapes.get(name)
        return None if shape is None else len(shape)

    def zero_point(self, node: Any) -> Any:
        return self.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None


def _folded(node: Any, parts: list[Any]) -> Any:
    """A constant expression that TensorRT folds; None for any other."""
    if node.op_type in ARITHMETIC:
        with np.errstate(all="ignore"):
            return functools.reduce(ARITHMETIC[node.op_type], parts)
    if node.op_type in SIGNS:
        with np.errstate(all="ignore"):
            return SIGNS[node.op_type](parts[0])
    if node.op_type == "Cast":
        return parts[0].astype(helper.tensor_dtype_to_np_dtype(attribute(node, "to")))
    if node.op_type == "Gather":
        return np.take(parts[0], parts[1], attribute(node, "axis", 0))
    return np.concatenate(parts, attribute(node, "axis", 0)) if node.op_type == "Concat" else None


def _tensor(value: Any) -> Any:
    kind = np.int64 if np.asarray(value).dtype.kind == "i" else np.float32
    return numpy_helper.from_array(np.asarray(value, kind))


def attribute(node: Any, name: str, default: Any = None) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def graphs_of(proto: onnx.ModelProto) -> list[Graph]:
    """The main graph with shapes and types, and every graph inside a node."""
    opset = next((int(e.version) for e in proto.opset_import if e.domain in ("", "ai.onnx")), 0)
    main = Graph(proto.graph, opset)
    try:
        inferred = shape_inference.infer_shapes(proto).graph
    except Exception:  # a broken graph is still linted, without the rules that need shapes
        inferred = proto.graph
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            main.shapes[value.name] = tuple(d.dim_value or None for d in kind.shape.dim)
        main.types[value.name] = kind.elem_type
    for name, tensor in main.constants.items():
        main.shapes[name], main.types[name] = tuple(tensor.dims), tensor.data_type
    _dequantised_types(main)
    found = [main]
    for graph in found:
        for node in graph.nodes:
            for inner in (a for a in node.attribute if a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)):
                found += [Graph(g, opset, graph) for g in ([inner.g] if inner.HasField("g") else inner.graphs)]
    return found


def _dequantised_types(graph: Graph) -> None:
    """In TensorRT the result of a DQ has the type of its scale, in every opset; onnx says otherwise below 19."""
    for node in graph.of(DQ):
        scale = node.input[1] if len(node.input) > 1 else ""
        tensor = graph.constants.get(scale)
        if tensor is not None and node.output:
            graph.types[node.output[0]] = tensor.data_type
