"""Random quantised networks with at most one deviation each, from a seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from tests.export.qdq_graphs import Knobs, model

CHANNELS = (8, 16, 24, 32, 48, 64)
LEGAL: tuple[dict[str, Any], ...] = (
    {"weight": "q"}, {"weight": "q_identity"}, {"axis": None}, {"axis": -4}, {"bias": "none"}, {"scale": "constant"},
    {"scale": "identity"}, {"scale": "cast"}, {"scale": "reshape"}, {"scale": "computed"}, {"kernel": (1, 1)},
    {"kernel": (5, 5)}, {"kernel": (7, 7)}, {"stride": 2}, {"dilation": 2}, {"between": "MaxPool"},
    {"between": "Identity"}, {"between": "Pad"}, {"between": "Slice"}, {"between": "Transpose"}, {"between": "Concat"},
    {"inner": "MaxPool"}, {"inner": "Identity"}, {"weight": "one", "axis": None}, {"act_scale": 1e-9},
    {"weight_scale": 20.0}, {"extra": "residual"}, {"pairs": "none"},
)  # fmt: skip
BAD: tuple[dict[str, Any], ...] = (
    {"zero": 1}, {"zero": -128}, {"weight_zero": 5}, {"code": np.uint8, "zero": 128}, {"code": np.uint8},
    {"weight_code": np.uint8}, {"weight_code": np.uint8, "weight_zero": 128}, {"code": np.int16}, {"zero_given": False},
    {"scale": "dynamic"}, {"scale": "input"}, {"scale": "vector"}, {"scale": "one"}, {"act_scale": -1.0},
    {"act_scale": 0.0}, {"act_scale": np.nan}, {"act_scale": np.inf}, {"weight_scale": 0.0}, {"weight_scale": -0.5},
    {"weight_scale": np.nan}, {"act_scale": 1e-39}, {"dq_scale": 0.2}, {"bias": "int32"}, {"bias": "int8"},
    {"weight": "transposed"}, {"weight": "scaled"}, {"weight": "reshaped"}, {"weight": "computed"}, {"weight": "relu"},
    {"weight": "cast"}, {"weight": "input"}, {"weight": "short"}, {"weight": "q_other"}, {"pairs": "activation"},
    {"pairs": "weight"}, {"axis": 1}, {"axis": 2}, {"axis": -3}, {"op": "ConvTranspose"},
    {"op": "ConvTranspose", "axis": 1}, {"op": "ConvTranspose", "axis": None}, {"between": "Relu"},
    {"between": "Sigmoid"}, {"between": "AveragePool"}, {"between": "Mul"}, {"inner": "Relu"},
    {"extra": "quantised_silu"}, {"extra": "Col2Im"}, {"extra": "DynamicQuantizeLinear"}, {"extra": "integer"},
    {"extra": "microsoft"}, {"extra": "nan"}, {"extra": "int8_output"},
)  # fmt: skip
WHOLE = (
    "half",
    "half and float scales",
    "half in opset 17",
    "float and half scales",
    "double",
    "open sides",
    "opset 25",
    "opset 10",
)


def random_model(seed: int) -> onnx.ModelProto:
    """One to three layers, perhaps a head; nothing, one legal deviation of each layer, or one bad one."""
    rng = np.random.default_rng(seed)
    count, x = int(rng.integers(1, 4)), int(rng.choice(CHANNELS))
    layers = []
    for _ in range(count):
        out = int(rng.choice(CHANNELS))
        group = int(rng.choice([1, 1, 1, x if out == x else 1]))
        act = str(rng.choice(["", "Relu", "Silu", "HardSwish"]))
        scale = float(np.float32(rng.uniform(0.001, 0.2)))
        layers.append(Knobs(cin=x, cout=out, group=group, act=act, act_scale=scale))
        x = out
    kind = rng.random()
    if kind < 0.4:
        layers = [with_(k, LEGAL[int(rng.integers(len(LEGAL)))]) for k in layers]
    elif kind < 0.9:
        place = int(rng.integers(count))
        layers[place] = with_(layers[place], BAD[int(rng.integers(len(BAD)))])
    if rng.random() < 0.3 and all(len(k.kernel) == 2 for k in layers):
        axis = [0, None, 1][int(rng.integers(3))]
        layers.append(Knobs(op="Gemm", cin=x, cout=int(rng.choice([4, 16, 32])), axis=axis))
    opset = int(rng.choice([13, 17, 18, 19, 20]))
    if any(k.code == np.int16 for k in layers):
        opset = 21
    if kind >= 0.9:
        return whole(layers, WHOLE[int(rng.integers(len(WHOLE)))], opset)
    return model(layers, opset=opset, batch=[1, "batch"][int(rng.integers(2))])


def with_(knobs: Knobs, change: dict[str, Any]) -> Knobs:
    """A layer with a deviation; what changes the size of the map or the weight's form needs an ordinary convolution."""
    plain = {"op", "axis", "between", "stride", "kernel", "weight"} & set(change)
    return replace(knobs, **({"group": 1} if plain else {}), **change)


def whole(layers: list[Knobs], kind: str, opset: int) -> onnx.ModelProto:
    """A deviation of the whole graph."""
    if kind == "double":
        return model(layers, opset=opset, dtype=np.float64)
    if kind == "open sides":
        return model(layers, opset=opset, side="side")
    if kind == "opset 25":
        return model(layers, opset=25)
    if kind == "opset 10":
        return model([replace(k, axis=None) for k in layers], opset=10)
    if kind == "float and half scales":
        return model([replace(k, scale_type=np.float16) for k in layers], opset=19)
    scale = np.float32 if kind == "half and float scales" else None
    half = [replace(k, scale_type=scale) for k in layers]
    return model(half, opset=17 if kind == "half in opset 17" else 19, dtype=np.float16)
