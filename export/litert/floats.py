"""Operators that compute in float, as octc uses no INT8 kernel of LiteRT for them: functions, sums, norms, attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx

from octc.export.litert.graph import Tensor, constant, number
from octc.export.litert.moves import given, keep, turned
from octc.export.litert.state import LAST, NONE, RELU6, State, attributes, axes_of, refused

SQUARES_TO = 1e-6  # how far an exponent may be from the number that it means
SELU = (1.67326319217681884765625, 1.05070102214813232421875)  # alpha and gamma of ONNX


def floats(it: State, name: str) -> tuple[Tensor, tuple[int, ...]]:
    """A value as it is there, in float, and which axis of ONNX's each of its axes is."""
    if name in it.codes:
        it.value(name)
        return it.values[name], LAST if len(it.shapes[name]) == 4 else tuple(range(len(it.shapes[name])))
    return given(it, name)


class _Work:
    """Emits operators that keep a shape, one after the other, under names of one node."""

    def __init__(self, it: State, name: str) -> None:
        self._it, self._name, self._count = it, name, 0

    def __call__(self, kind: str, *inputs: Tensor | float, shape: Sequence[int] | None = None, **options: Any) -> Tensor:
        self._count += 1
        tensors = tuple(number(one) if isinstance(one, (int, float)) else one for one in inputs)
        if kind in ("ADD", "SUB", "MUL", "DIV"):
            options.setdefault("fusedActivationFunction", NONE)
        return self._it.emit(
            kind, tensors, tensors[0].shape if shape is None else shape, f"{self._name}/{self._count}", **options
        )

    def mean(self, kind: str, source: Tensor, axes: Sequence[int]) -> Tensor:
        """Over axes, which stay as lengths of 1."""
        shape = [1 if k in axes else side for k, side in enumerate(source.shape)]
        return self(kind, source, axes_of(axes), shape=shape, keepDims=True)


def unary(kind: str, it: State, node: onnx.NodeProto, **options: Any) -> None:
    """One operator of LiteRT for one of ONNX, value by value."""
    source, order = floats(it, node.input[0])
    keep(it, node.output[0], it.emit(kind, (source,), source.shape, node.output[0], **options), order)


def written(make: Callable[[_Work, Tensor, dict[str, Any]], Tensor], it: State, node: onnx.NodeProto) -> None:
    """Value by value, by several operators."""
    source, order = floats(it, node.input[0])
    keep(it, node.output[0], make(_Work(it, node.output[0]), source, attributes(node)), order)


def _hard_sigmoid(do: _Work, x: Tensor, known: dict[str, Any]) -> Tensor:
    slope, shift = known.get("alpha", 0.2), known.get("beta", 0.5)
    scaled = do("ADD", do("MUL", x, 6 * slope), 6 * shift, fusedActivationFunction=RELU6)
    return do("MUL", scaled, 1 / 6)


def _softplus(do: _Work, x: Tensor, _known: dict[str, Any]) -> Tensor:
    """max(x, 0) + log(1 + exp(-|x|)), which no large x leaves."""
    tail = do("LOG", do("ADD", do("EXP", do("NEG", do("ABS", x))), 1.0))
    return do("ADD", do("RELU", x), tail)


def _mish(do: _Work, x: Tensor, known: dict[str, Any]) -> Tensor:
    return do("MUL", x, do("TANH", _softplus(do, x, known)))


def _exponential(do: _Work, x: Tensor, alpha: float, inner: float = 1.0) -> Tensor:
    """max(x, 0) + alpha * (exp(min(x, 0) / inner) - 1)."""
    below = do("EXP", do("MUL", do("MINIMUM", x, 0.0), 1 / inner))
    return do("ADD", do("RELU", x), do("MUL", do("SUB", below, 1.0), alpha))


def _elu(do: _Work, x: Tensor, known: dict[str, Any]) -> Tensor:
    alpha = known.get("alpha", 1.0)
    return do("ELU", x) if alpha == 1.0 else _exponential(do, x, alpha)


def _celu(do: _Work, x: Tensor, known: dict[str, Any]) -> Tensor:
    alpha = known.get("alpha", 1.0)
    return _exponential(do, x, alpha, alpha)


def _selu(do: _Work, x: Tensor, known: dict[str, Any]) -> Tensor:
    alpha, gamma = known.get("alpha", SELU[0]), known.get("gamma", SELU[1])
    return do("MUL", _exponential(do, x, alpha), gamma)


def _softsign(do: _Work, x: Tensor, _known: dict[str, Any]) -> Tensor:
    return do("DIV", x, do("ADD", do("ABS", x), 1.0))


def _reciprocal(do: _Work, x: Tensor, _known: dict[str, Any]) -> Tensor:
    return do("DIV", number(1.0), x, shape=x.shape)


def gelu(it: State, node: onnx.NodeProto) -> None:
    unary("GELU", it, node, approximate=attributes(node).get("approximate", b"none") == b"tanh")


def leaky(it: State, node: onnx.NodeProto) -> None:
    unary("LEAKY_RELU", it, node, alpha=float(attributes(node).get("alpha", 0.01)))


def clip(it: State, node: onnx.NodeProto) -> None:
    source, order = floats(it, node.input[0])
    do = _Work(it, node.output[0])
    for kind, name in zip(("MAXIMUM", "MINIMUM"), node.input[1:], strict=False):
        if name:
            if name not in it.constants:
                raise refused(node, "bounds that are not constant")
            source = do(kind, source, float(it.constants[name].reshape(())))
    keep(it, node.output[0], source, order)


def raised(it: State, name: str, rank: int, order: tuple[int, ...]) -> Tensor:
    """An operand with the axes of the result, in their order: axes of 1 come first, as ONNX has it."""
    shape = it.shapes[name]
    if name in it.counted and name not in it.repeated:
        it.value(name)  # refuses
    if math.prod(shape) == 1 and name in it.constants:
        return constant(f"{name}/one", it.constants[name].reshape([1] * max(rank, 1)), str(it.constants[name].dtype))
    if len(shape) == rank:
        return it.value(name) if order == LAST else it.plain(name)
    wide = [1] * (rank - len(shape)) + list(shape)
    if name in it.constants:
        data = it.constants[name].reshape(wide)
        return constant(f"{name}/wide", np.transpose(data, order) if rank == 4 else data, str(data.dtype))
    free = it.free.get(name)
    made = it.reshape(it.plain(name), wide, None if free is None else free + rank - len(shape), f"{name}/wide")
    places = [wide[axis] for axis in order]
    return made if order != LAST else it.emit("TRANSPOSE", (made, axes_of(LAST)), places, f"{name}/wide, last", made)


def common(it: State, node: onnx.NodeProto) -> tuple[list[Tensor], tuple[int, ...]]:
    """The operands of an operator that works value by value, all in one order, and the order."""
    rank = len(it.shapes[node.output[0]])
    plain = rank != 4 or not any(
        len(it.shapes[name]) == 4 and not it.lies_plain(name) and name not in it.constants for name in node.input
    )
    order = tuple(range(rank)) if plain else LAST
    return [raised(it, name, rank, order) for name in node.input], order


def binary(kind: str, it: State, node: onnx.NodeProto) -> None:
    parts, order = common(it, node)
    shape = [it.shapes[node.output[0]][axis] for axis in order]
    do = _Work(it, node.output[0])
    made = parts[0]
    for other in parts[1:]:
        made = do(kind, made, other, shape=shape)
    if len(parts) == 1:
        made = parts[0]
    keep(it, node.output[0], made, order)


def compared(kind: str, it: State, node: onnx.NodeProto) -> None:
    parts, order = common(it, node)
    made = Tensor(node.output[0], tuple(it.shapes[node.output[0]][axis] for axis in order), "bool")
    it.add(kind, tuple(parts), made)
    keep(it, node.output[0], made, order)


def opposite(it: State, node: onnx.NodeProto) -> None:
    source, order = floats(it, node.input[0])
    made = Tensor(node.output[0], source.shape, "bool")
    it.add("LOGICAL_NOT", (source,), made)
    keep(it, node.output[0], made, order)


def where(it: State, node: onnx.NodeProto) -> None:
    parts, order = common(it, node)
    shape = [it.shapes[node.output[0]][axis] for axis in order]
    keep(it, node.output[0], it.emit("SELECT_V2", tuple(parts), shape, node.output[0]), order)


def power(it: State, node: onnx.NodeProto) -> None:
    exponent = it.constants.get(node.input[1])
    plain = None if exponent is None or exponent.size != 1 else float(exponent.reshape(()))
    kind = {2.0: "SQUARE", 0.5: "SQRT", -0.5: "RSQRT"}.get(plain) if plain is not None else None
    if kind is not None:
        unary(kind, it, node)
    elif plain == 3.0:
        written(lambda do, x, _known: do("MUL", do("SQUARE", x), x), it, node)
    else:
        binary("POW", it, node)


def prelu(it: State, node: onnx.NodeProto) -> None:
    """max(x, 0) + slope * min(x, 0)."""
    parts, order = common(it, node)
    do = _Work(it, node.output[0])
    below = do("MUL", do("MINIMUM", parts[0], 0.0), parts[1])
    keep(it, node.output[0], do("ADD", do("RELU", parts[0]), below), order)


def expand(it: State, node: onnx.NodeProto) -> None:
    """Plus zeros of the wider shape. Where it grows with the batch, so does what is added."""
    name = node.output[0]
    shape, rank, free = it.shapes[name], len(it.shapes[name]), it.free.get(name)
    order = tuple(range(rank)) if rank != 4 or it.lies_plain(node.input[0]) else LAST
    made = raised(it, node.input[0], rank, order)
    do = _Work(it, name)
    if made.type != "float32":
        raise refused(node, f"of {made.type}")
    if [shape[axis] for axis in order] != list(made.shape):
        zeros = [1 if axis == free else shape[axis] for axis in order]
        made = do("ADD", made, constant(f"{name}/zeros", np.zeros(zeros, np.float32)), shape=[shape[axis] for axis in order])
    if free is not None and it.free.get(node.input[0]) is None:
        if shape[free] != 1:
            raise refused(node, "a length that is a multiple of the number of images")
        made = do("ADD", made, it.zero_each(rank, order.index(free)), shape=made.shape)
    keep(it, name, made, order)


def reduced(kind: str, it: State, node: onnx.NodeProto, before: str = "", after: str = "") -> None:
    """Over axes. before, after: what is done to the values first, and to the result."""
    name, shape = node.output[0], it.shapes[node.input[0]]
    known = attributes(node)
    axes = known.get("axes")
    if len(node.input) > 1 and node.input[1]:
        axes = it.constants[node.input[1]].reshape(-1).tolist()
    if not axes:
        axes = [] if known.get("noop_with_empty_axes") else list(range(len(shape)))
    axes = [axis % len(shape) for axis in axes]
    if it.free.get(node.input[0]) in axes:
        raise refused(node, "over the images of a batch")
    stays = bool(known.get("keepdims", 1))
    source, order = floats(it, node.input[0])
    left = [axis for axis in order if axis not in axes]
    if not stays and left != sorted(left):
        source, order = it.plain(node.input[0]), tuple(range(len(shape)))
    do = _Work(it, name)
    if before:
        source = do(before, source)
    places = [order.index(axis) for axis in axes]
    sides = [1 if axis in axes else shape[axis] for axis in order if stays or axis not in axes]
    made = do(kind, source, axes_of(places), shape=sides, keepDims=stays)
    if after:
        made = do(after, made)
    keep(it, name, made, order if stays else tuple(range(len(sides))))


def softmax(kind: str, it: State, node: onnx.NodeProto) -> None:
    """Over the last axis as it lies, else turned round before and behind."""
    name, rank = node.output[0], len(it.shapes[node.input[0]])
    axis = int(attributes(node).get("axis", -1)) % rank
    source, order = floats(it, node.input[0])
    if order[-1] != axis and rank == 4:
        source, order = (it.plain(node.input[0]), (0, 1, 2, 3)) if order == LAST else (it.value(node.input[0]), LAST)
    options: dict[str, Any] = {"beta": 1.0} if kind == "SOFTMAX" else {}
    if order[-1] == axis:
        keep(it, name, it.emit(kind, (source,), source.shape, name, **options), order)
        return
    places = [k for k in range(rank) if k != order.index(axis)] + [order.index(axis)]
    aside = turned(it, node, source, places, f"{name}/aside")
    made = it.emit(kind, (aside,), aside.shape, f"{name}/of the last", **options)
    keep(it, name, turned(it, node, made, [places.index(k) for k in range(rank)], f"{name}/back"), order)


def matmul(it: State, node: onnx.NodeProto) -> None:
    """Times a constant matrix: as a fully connected layer with the bias that is added behind it."""
    name = node.output[0]
    first, second = node.input
    weight = it.constants.get(second)
    ranks = len(it.shapes[first]), len(it.shapes[second])
    if weight is not None and weight.ndim == 2 and ranks[0] >= 2 and weight.dtype == np.float32:
        source = it.plain(first)
        offsets, name = _bias_behind(it, name, weight.shape[1])
        parts = (source, constant(f"{second}/rows", weight.T), constant(f"{name}/bias", offsets))
        options: dict[str, Any] = {"keepNumDims": ranks[0] > 2, "fusedActivationFunction": NONE}
        it.set_plain(name, it.emit("FULLY_CONNECTED", parts, it.shapes[name], f"{name}/product", **options))
        return
    if min(ranks) < 2 or max(ranks) > 5:
        raise refused(node, f"of {ranks[0]} and {ranks[1]} axes")
    made = it.emit(
        "BATCH_MATMUL", (it.plain(first), it.plain(second)), it.shapes[name], f"{name}/product", adjX=False, adjY=False
    )
    it.set_plain(name, made)


def _bias_behind(it: State, name: str, count: int) -> tuple[Any, str]:
    """The constant row that is added to a product, and the name of the sum: it is part of the product then."""
    reader = it.only_reader(name)
    if reader is not None and reader.op_type == "Add":
        (other,) = [one for one in reader.input if one != name] or [name]
        row = it.constants.get(other)
        if (
            row is not None
            and row.size in (1, count)
            and it.shapes[reader.output[0]] == it.shapes[name]
            and row.shape[-1:] != ()
        ):
            it.done.add(reader.output[0])
            return np.broadcast_to(row.reshape(-1), count), reader.output[0]
    return np.zeros(count), name


def layer_norm(it: State, node: onnx.NodeProto) -> None:
    known = attributes(node)
    rank = len(it.shapes[node.input[0]])
    axes = list(range(int(known.get("axis", -1)) % rank, rank))
    source = it.plain(node.input[0])
    _normed(it, node, source, axes, [it.plain(name) for name in node.input[1:] if name], float(known.get("epsilon", 1e-5)))


def instance_norm(it: State, node: onnx.NodeProto) -> None:
    rank, count = len(it.shapes[node.input[0]]), it.shapes[node.input[0]][1]
    parts = []
    for name in node.input[1:]:
        data = it.constants[name].reshape(1, count, *[1] * (rank - 2))
        parts.append(constant(f"{name}/rows", data))
    source, axes = it.plain(node.input[0]), list(range(2, rank))
    _normed(it, node, source, axes, parts, float(attributes(node).get("epsilon", 1e-5)))


def _normalised(do: _Work, source: Tensor, axes: list[int], epsilon: float) -> Tensor:
    away = do("SUB", source, do.mean("MEAN", source, axes))
    spread = do.mean("MEAN", do("SQUARE", away), axes)
    return do("MUL", away, do("RSQRT", do("ADD", spread, epsilon)))


def _normed(it: State, node: onnx.NodeProto, source: Tensor, axes: list[int], parts: list[Tensor], epsilon: float) -> None:
    if len(node.output) > 1 and any(name in it.readers for name in node.output[1:]):
        raise refused(node, "with its mean or deviation as a result")
    do = _Work(it, node.output[0])
    made = _normalised(do, source, axes, epsilon)
    for kind, part in zip(("MUL", "ADD"), parts, strict=False):
        made = do(kind, made, part)
    it.set_plain(node.output[0], made)


OPERATORS: dict[str, Callable[[Any, onnx.NodeProto], None]] = {
    **{name: partial(unary, kind) for name, kind in (
        ("Abs", "ABS"), ("Cos", "COS"), ("Exp", "EXP"), ("Floor", "FLOOR"), ("Log", "LOG"), ("Neg", "NEG"), ("Round", "ROUND"),
        ("Sin", "SIN"), ("Sqrt", "SQRT"), ("Tanh", "TANH"),
    )},
    **{name: partial(written, make) for name, make in (
        ("Celu", _celu), ("Elu", _elu), ("HardSigmoid", _hard_sigmoid), ("Mish", _mish), ("Reciprocal", _reciprocal),
        ("Selu", _selu), ("Softplus", _softplus), ("Softsign", _softsign),
    )},
    **{name: partial(binary, kind) for name, kind in (("Div", "DIV"), ("Max", "MAXIMUM"), ("Min", "MINIMUM"), ("Sum", "ADD"))},
    **{name: partial(compared, kind) for name, kind in (
        ("And", "LOGICAL_AND"), ("Equal", "EQUAL"), ("Greater", "GREATER"), ("GreaterOrEqual", "GREATER_EQUAL"),
        ("Less", "LESS"), ("LessOrEqual", "LESS_EQUAL"), ("Or", "LOGICAL_OR"),
    )},
    **{name: partial(reduced, kind) for name, kind in (
        ("ReduceMax", "REDUCE_MAX"), ("ReduceMean", "MEAN"), ("ReduceMin", "REDUCE_MIN"), ("ReduceSum", "SUM"),
    )},
    "Expand": expand, "Gelu": gelu, "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm, "LeakyRelu": leaky, "LogSoftmax": partial(softmax, "LOG_SOFTMAX"), "MatMul": matmul,
    "Not": opposite,
    "PRelu": prelu, "Pow": power, "ReduceL1": partial(reduced, "SUM", before="ABS"),
    "ReduceL2": partial(reduced, "SUM", before="SQUARE", after="SQRT"),
    "ReduceSumSquare": partial(reduced, "SUM", before="SQUARE"), "Softmax": partial(softmax, "SOFTMAX"), "Where": where,
}  # fmt: skip
