"""Layer by layer: how far the weights of an INT8 graph are from those of the float graph of the same run.

Both are read from the delivered ONNX files. A layer whose scale was spoiled stands out by orders of magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.optional import need

Weights = npt.NDArray[np.float64]
FAR = 5.0  # times the median error of all layers: marked


@dataclass(frozen=True)
class Layer:
    """A convolution: its name, ||w_int8 - w_float|| / ||w_float||, and the median of w_int8 / w_float (1: no scale is off)."""

    name: str
    error: float
    gain: float


def weight_errors(floats: Path, int8: Path) -> list[Layer]:
    """Convolutions and the last matrix product that are INT8, in the order of the graph.

    Raises:
        OctcError: E901 onnx is not installed. ValueError: the two graphs do not have the same layers.
    """
    onnx = need("onnx")
    first, second = (_weights(onnx, onnx.load(str(path)).graph) for path in (floats, int8))
    if len(first) != len(second) or any(a.shape != b.shape for (_, a, _), (_, b, _) in zip(first, second, strict=False)):
        raise ValueError(f"{len(first)} and {len(second)} layers, or other shapes")
    found = []
    for (_, w, _), (name, q, quantised) in zip(first, second, strict=True):
        if quantised:
            large = np.abs(w) > np.quantile(np.abs(w), 0.75)
            gain = float(np.median(q[large] / w[large])) if large.any() else 1.0
            size = max(float(np.linalg.norm(w)), 1e-30)
            found.append(Layer(name, float(np.linalg.norm(q - w)) / size, gain))
    return found


def far_layers(layers: list[Layer]) -> list[Layer]:
    """Those whose error is far above that of the others, the worst first."""
    limit = FAR * float(np.median([layer.error for layer in layers])) if layers else 0.0
    return sorted((layer for layer in layers if layer.error > limit), key=lambda layer: -layer.error)


def _weights(onnx: Any, graph: Any) -> list[tuple[str, Weights, bool]]:
    """(name, float weights [out, ...], whether they are stored as INT8) of each convolution, in the graph's order."""
    constants = {t.name: t for t in graph.initializer}
    made = {out: node for node in graph.node for out in node.output}

    def values(name: str) -> Weights:
        return np.asarray(onnx.numpy_helper.to_array(constants[name]), np.float64)

    found = []
    for node in graph.node:
        if node.op_type == "QLinearConv":
            name, scale, zero = node.input[3:6]
            found.append((node.name or node.output[0], _scaled(values(name), values(scale), values(zero), 0), True))
        elif node.op_type == "Conv":
            name, source = node.input[1], made.get(node.input[1])
            if name in constants:
                found.append((node.name or node.output[0], values(name), False))
            elif source is not None and source.op_type == "DequantizeLinear" and source.input[0] in constants:
                zero_name = source.input[2] if len(source.input) > 2 else ""
                zero_point = values(zero_name) if zero_name else np.zeros(())
                axis = next((a.i for a in source.attribute if a.name == "axis"), 0)
                w = _scaled(values(source.input[0]), values(source.input[1]), zero_point, axis)
                found.append((node.name or node.output[0], w, True))
    return found


def _scaled(stored: Weights, scale: Weights, zero: Weights, axis: int) -> Weights:
    """(stored - zero) * scale, both per tensor or along `axis`."""
    shape = [1] * stored.ndim
    if scale.ndim:
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.ndim else zero
    return (stored - zero) * scale
