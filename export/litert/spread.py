"""A transposed convolution as a convolution of its input with zeros between the places (Dumoulin and Visin 2016, arXiv
1603.07285, section 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from octc.export.litert.graph import Array, Tensor, constant
from octc.export.litert.moves import cut
from octc.export.litert.state import NONE, State, attributes, refused

VALID = 1  # Padding of the schema


def transposed(it: State, node: onnx.NodeProto) -> None:
    known, name = attributes(node), node.output[0]
    group = int(known.get("group", 1))
    weight = it.constants.get(node.input[1])
    if weight is None or weight.ndim != 4 or any(one not in it.constants for one in node.input[2:] if one):
        raise refused(node, "of another form than a map with constant weights")
    if known.get("auto_pad", b"NOTSET") != b"NOTSET" or known.get("output_shape"):
        raise refused(node, "borders by a word or by a shape")
    strides, dilations = known.get("strides") or (1, 1), known.get("dilations") or (1, 1)
    before = (known.get("pads") or (0, 0, 0, 0))[:2]
    made, after = it.value(node.input[0]), it.shapes[name][2:]
    for axis in (1, 2):
        made = _spread(it, made, axis, strides[axis - 1], f"{name}/spread{axis}")
    for axis in (1, 2):
        reach = dilations[axis - 1] * (weight.shape[axis + 1] - 1)
        first = reach - before[axis - 1]
        made = _ends(it, made, axis, first, after[axis - 1] + reach - first - made.shape[axis], f"{name}/ends{axis}")
    filters = _turned(weight, group)
    bias = it.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(len(filters), np.float32)
    options: dict[str, Any] = {"padding": VALID, "strideH": 1, "strideW": 1, "fusedActivationFunction": NONE}
    options |= {"dilationHFactor": dilations[0], "dilationWFactor": dilations[1]}
    depthwise = 1 < group == weight.shape[0]
    if depthwise:
        options["depthMultiplier"] = len(filters) // group
    order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    parts = constant(node.input[1], np.transpose(filters, order)), constant(f"{name}/bias", bias)
    kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    it.values[name] = it.emit(kind, (made, *parts), it.shape(node), name, **options)


def _turned(weight: Array, group: int) -> Array:
    """Weights [in, out / group, H, W] as those of a convolution, [out, in / group, H, W], turned by half a circle."""
    inputs, outputs, *sides = weight.shape
    apart = weight.reshape(group, inputs // group, outputs, *sides).transpose(0, 2, 1, 3, 4)
    return apart.reshape(group * outputs, inputs // group, *sides)[:, :, ::-1, ::-1]


def _spread(it: State, source: Tensor, axis: int, step: int, name: str) -> Tensor:
    """step - 1 zeros behind each place of an axis of [N, H, W, C]."""
    if step == 1:
        return source
    n, h, w, c = source.shape
    rows, row = (h * w, c) if axis == 2 else (h, w * c)
    apart = it.reshape(source, (n, rows, 1, row), 0, f"{name}/apart")
    widths = constant(f"{name}/zeros", [[0, 0], [0, 0], [0, step - 1], [0, 0]], "int32")
    wide = it.emit("PAD", (apart, widths), (n, rows, step, row), f"{name}/wide")
    shape = (n, h, w * step, c) if axis == 2 else (n, h * step, w, c)
    return it.reshape(wide, shape, 0, name)


def _ends(it: State, source: Tensor, axis: int, first: int, last: int, name: str) -> Tensor:
    """So many zeros at the two ends of an axis; fewer than none are places that are cut off."""
    start, length = max(-first, 0), source.shape[axis] + min(first, 0) + min(last, 0)
    made = source
    if length < source.shape[axis]:
        made = cut(it, source, axis, start, start + length, 1, length, f"{name}/cut")
    if first <= 0 and last <= 0:
        return made
    sides = [(max(first, 0), max(last, 0)) if k == axis else (0, 0) for k in range(4)]
    shape = [side + sum(pair) for side, pair in zip(made.shape, sides, strict=True)]
    return it.emit("PAD", (made, constant(f"{name}/zeros", sides, "int32")), shape, name)
