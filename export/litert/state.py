"""The state of a translation from ONNX to LiteRT: what stands for each value, and what is emitted.

A value of four dimensions lies channels last (N, H, W, C) or in ONNX's own order, whichever was asked for; it is turned round
where an operator needs the other, once. All other values lie in ONNX's order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from octc.core.errors import OctcError
from octc.export.litert.graph import Array, Operation, Scales, Tensor, constant, number
from octc.export.litert.shapes import known_of

HINT = "octc export --target onnx"
NONE, RELU, RELU6 = 0, 1, 3  # ActivationFunctionType of the schema
LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # axes of ONNX's order as they lie channels last, and back
INTEGERS = ("int64", "bool")  # types of ONNX's constants that are written as int32, or as they are


def refused(node: onnx.NodeProto, why: str) -> OctcError:
    """What cannot be written for LiteRT (E407)."""
    return OctcError("OCT-E407", f"LiteRT: {node.op_type} {node.output[0]}: {why}", hint=HINT, place=node.output[0])


class State:
    """values: what stands for a value of ONNX, channels last; plain: those of four dimensions in ONNX's order; codes: the
    quantised form, if there is one."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph, known = proto.graph, known_of(proto)
        self.nodes, self.constants, self.shapes = known.nodes, known.constants, known.shapes
        self.free, self.counted, self.repeated = known.free, known.counted, known.repeated
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)
        self.values: dict[str, Tensor] = {}
        self.plain_values: dict[str, Tensor] = {}
        self.codes: dict[str, Tensor] = {}
        self.weights: dict[str, tuple[Array, Array]] = {}
        self.done: set[str] = set()  # outputs of nodes that are part of another operator
        self.outputs = {value.name for value in graph.output}
        (image,) = [v for v in graph.input if v.name not in {t.name for t in graph.initializer}]
        self.source = Tensor(image.name, channels_last(self.shapes[image.name]), "uint8")
        self.values[image.name] = self.source
        self.operations: list[Operation] = []

    # values

    def value(self, name: str) -> Tensor:
        """A float tensor, channels last; what is there in codes alone is dequantised, once."""
        if name in self.values:
            return self.values[name]
        if name in self.constants:
            data = self._constant(name)
            made = constant(name, np.transpose(data, LAST) if data.ndim == 4 else data, str(data.dtype))
            made = self._each(name, made, LAST if data.ndim == 4 else tuple(range(data.ndim)))
        elif name in self.plain_values:
            made = self.emit("TRANSPOSE", (self.plain_values[name], axes_of(LAST)), channels_last(self.shapes[name]), name)
        elif name in self.codes:
            made = self.emit("DEQUANTIZE", (self.codes[name],), self.codes[name].shape, f"{name}/float")
        else:
            text = f"LiteRT: {name} is a result that octc does not translate"
            raise OctcError("OCT-E407", text, hint=HINT, place=name)
        self.values[name] = made
        return made

    def plain(self, name: str) -> Tensor:
        """A float tensor in ONNX's order."""
        if len(self.shapes[name]) != 4:
            return self.value(name)
        if name not in self.plain_values:
            if name in self.constants:
                data = self._constant(name)
                made = constant(f"{name}/plain", data, str(data.dtype))
                self.plain_values[name] = self._each(name, made, tuple(range(data.ndim)))
            else:
                source = self.value(name)
                self.plain_values[name] = self.emit("TRANSPOSE", (source, axes_of(FIRST)), self.shapes[name], f"{name}/plain")
        return self.plain_values[name]

    def _constant(self, name: str) -> Array:
        if name in self.counted and not (name in self.repeated and self.constants[name].dtype == np.float32):
            text = f"LiteRT: {name} depends on the number of images"
            raise OctcError("OCT-E407", text, hint=HINT, place=name)
        data = self.constants[name]
        return data.astype(np.int32) if data.dtype == np.int64 else data

    def _each(self, name: str, made: Tensor, order: Sequence[int]) -> Tensor:
        """A constant of every image: what is the same for all of them is there as often as they are many."""
        if name not in self.repeated:
            return made
        zero = self.zero_each(len(order), list(order).index(self.repeated[name]))
        return self.emit("ADD", (made, zero), made.shape, f"{made.name}/each", fusedActivationFunction=NONE)

    def zero_each(self, rank: int, axis: int) -> Tensor:
        """A zero an image, along one of so many axes."""
        name = f"zeros of {rank} axes along {axis}"
        known = next((op.output for op in self.operations if op.output.name == name), None)
        if known is not None:
            return known
        sides = [1] * len(self.source.shape)
        whole = {"beginMask": 1, "endMask": 1, "ellipsisMask": 0, "newAxisMask": 0, "shrinkAxisMask": 0}
        ends = (axes_of([0] * len(sides)), axes_of(sides), axes_of(sides))
        first = self.emit("STRIDED_SLICE", (self.source, *ends), sides, f"{name}/first", self.source, **whole)
        value = self.emit("CAST", (first,), sides, f"{name}/float", inDataType=3, outDataType=0)
        zero = self.emit("MUL", (value, number(0.0)), sides, f"{name}/zero", fusedActivationFunction=NONE)
        return self.reshape(zero, [1] * rank, axis, name)

    def lies_plain(self, name: str) -> bool:
        """Whether a value of four dimensions is there in ONNX's order only."""
        return name in self.plain_values and name not in self.values and name not in self.codes

    def set_plain(self, name: str, tensor: Tensor) -> None:
        """A result in ONNX's order."""
        (self.plain_values if len(self.shapes[name]) == 4 else self.values)[name] = tensor

    def shape(self, node: onnx.NodeProto) -> tuple[int, ...]:
        return channels_last(self.shapes[node.output[0]])

    def add(self, kind: str, inputs: tuple[Tensor, ...], output: Tensor, **options: Any) -> None:
        self.operations.append(Operation(kind, inputs, output, options))

    def emit(
        self, kind: str, inputs: tuple[Tensor, ...], shape: Sequence[int], name: str, like: Tensor | None = None, **options: Any
    ) -> Tensor:  # fmt: skip
        """An operator and the new tensor that it writes; like: of the type and scales of this one."""
        made = Tensor(name, tuple(shape)) if like is None else Tensor(name, tuple(shape), like.type, like.scales)
        self.add(kind, inputs, made, **options)
        return made

    def reshape(self, source: Tensor, shape: Sequence[int], free: int | None, name: str) -> Tensor:
        """The values of a tensor in another shape, whose axis `free` is as long as the number of images makes it."""
        sides = [-1 if k == free else side for k, side in enumerate(shape)]
        given = constant(f"{name}/shape", sides, "int32")
        return self.emit("RESHAPE", (source, given), shape, name, source, newShape=sides)

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads a value, if one does and it is no output of the graph."""
        found = self.readers[name]
        return found[0] if len(found) == 1 and name not in self.outputs else None

    # quantisers

    def scales(self, node: onnx.NodeProto) -> Scales:
        scale, zero = self.constants[node.input[1]], self.constants[node.input[2]]
        if scale.size != 1:
            raise refused(node, "activations with several scales")
        return Scales((float(scale.reshape(())),), int(zero.reshape(())) - (128 if zero.dtype == np.uint8 else 0))

    def quantised(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """The tensor of codes of a value that one QuantizeLinear alone reads; that node is then part of the operator."""
        node = self.only_reader(name)
        if node is None or node.op_type != "QuantizeLinear":
            return None
        made = Tensor(f"{name}/codes", shape, "int8", self.scales(node))
        self.done.add(node.output[0])
        self.dequantised(node, made)
        return made

    def dequantised(self, node: onnx.NodeProto, codes: Tensor) -> None:
        """What every DequantizeLinear behind a QuantizeLinear gives is known by its codes."""
        for reader in self.readers[node.output[0]]:
            if reader.op_type != "DequantizeLinear":
                raise refused(reader, "an operator of ONNX that reads codes")
            self.codes[reader.output[0]] = codes
            self.done.add(reader.output[0])

    def result(self, node: onnx.NodeProto, *, int8: bool, activation: bool = False) -> tuple[Tensor, int]:
        """The tensor that an operator writes, and the activation that is part of it.

        int8: the operator can write codes (all its inputs are codes). activation: it can end in a rectifier.
        """
        name, shape, fused = node.output[0], self.shape(node), NONE
        reader = self.only_reader(name) if activation else None
        if reader is not None and (kind := self.rectifier(reader)):
            fused, name = kind, reader.output[0]
            self.done.add(name)
        made = self.quantised(name, shape) if int8 else None
        if made is None:
            made = self.values[name] = Tensor(name, shape)
        return made, fused

    def rectifier(self, node: onnx.NodeProto) -> int:
        if node.op_type == "Relu":
            return RELU
        if node.op_type == "Clip":
            bounds = [self.constants.get(name) for name in node.input[1:]]
            known = [None if bound is None else float(bound.reshape(())) for bound in bounds]
            return RELU6 if known == [0.0, 6.0] else NONE
        return NONE

    def inputs(self, node: onnx.NodeProto, *, int8: bool = True) -> tuple[tuple[Tensor, ...], bool]:
        """All inputs as codes where all are and one QuantizeLinear reads what comes of them, else as floats."""
        if int8 and all(name in self.codes for name in node.input):
            return tuple(self.codes[name] for name in node.input), True
        return tuple(self.value(name) for name in node.input), False

    def ends_in_codes(self, node: onnx.NodeProto, *, activation: bool = False) -> Scales | None:
        """The scales behind a node (and the rectifier that it can take up), where its result is quantised."""
        reader = self.only_reader(node.output[0])
        if activation and reader is not None and self.rectifier(reader):
            reader = self.only_reader(reader.output[0])
        return self.scales(reader) if reader is not None and reader.op_type == "QuantizeLinear" else None


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


def axes_of(order: Sequence[int]) -> Tensor:
    """A constant of places."""
    return constant("axes " + " ".join(map(str, order)), list(order), "int32")
