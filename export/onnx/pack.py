"""Weights of convolutions that compute in float (squeeze-excite, heads) stored as int8 codes: a quarter of their size.

They go through one DequantizeLinear per weight, which engines that fold constants run once, when they load the file.
The rounding is done in the network first (`round_weights`), so that the file and its reference hold the same numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from octc.compress.calibrate import LEVELS
from octc.compress.fake_quant import LEAST_SCALE, QuantConv2d
from octc.export.onnx.float import read_onnx, save

LEAST = 4096  # weights; below it the scales and the node outweigh what is saved


def round_weights(module: nn.Module, floats: frozenset[str] = frozenset()) -> None:
    """Put the weights of the large plain convolutions on their int8 grid, one scale for each output channel.

    Those in `floats` were taken out of INT8 by the mixed-precision fallback and stay what they are.
    """
    inside = {id(part.conv) for part in module.modules() if isinstance(part, QuantConv2d)}
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d) and id(part) not in inside and name not in floats and part.weight.numel() >= LEAST:
            weight = part.weight.detach()
            scale = (weight.abs().amax(dim=(1, 2, 3), keepdim=True) / LEVELS).clamp_min(LEAST_SCALE)
            part.weight = nn.Parameter(torch.round(weight / scale) * scale, requires_grad=False)


def pack_weights(path: Path) -> dict[str, int]:
    """Rewrite an ONNX file: float weights of convolutions that lie on an int8 grid become codes, scales and a DequantizeLinear.

    Returns: {"packed_weights": how many, "bytes": of the new file}. Weights that lie on no such grid are left alone.
    """
    proto = read_onnx(path)
    known = {tensor.name: tensor for tensor in proto.graph.initializer}
    used = [name for node in proto.graph.node for name in node.input]
    packed = 0
    for node in [n for n in proto.graph.node if n.op_type == "Conv" and n.input[1] in known]:
        name = node.input[1]
        weight: Any = numpy_helper.to_array(known[name])
        if weight.dtype != np.float32 or weight.size < LEAST or used.count(name) > 1:
            continue
        scale = np.maximum(np.abs(weight).max(axis=tuple(range(1, weight.ndim))) / LEVELS, LEAST_SCALE).astype(np.float32)
        wide = scale.reshape(-1, *(1,) * (weight.ndim - 1))
        codes = np.rint(weight / wide)
        if not np.allclose(codes * wide, weight, rtol=0, atol=1e-3 * float(scale.min())):
            continue
        proto.graph.initializer.remove(known[name])
        parts = {f"{name}_codes": codes.astype(np.int8), f"{name}_scale": scale, f"{name}_zero": np.zeros(len(scale), np.int8)}
        proto.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in parts.items())
        place = list(proto.graph.node).index(node)
        proto.graph.node.insert(place, _dequantize(list(parts), name))
        packed += 1
    if packed:
        save(proto, path)
    return {"packed_weights": packed, "bytes": path.stat().st_size}


def _dequantize(inputs: list[str], name: str) -> onnx.NodeProto:
    return helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}/packed", axis=0)
