"""The largest magnitude of every tensor of an ONNX graph on given images, and which operators would not survive in FP16."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from octc.export.onnx.float import INPUT
from octc.imaging.preprocess import UInt8
from octc.runtimes.onnxrt import reference_session

HALF_MAX = 65504.0
PREFIX = "octc_range_"


def tensor_ranges(proto: onnx.ModelProto, images: UInt8) -> dict[str, float]:
    """Largest |value| of each float tensor that a node makes, over images uint8 [N, C, S, S]; by tensor name.

    Only the maxima leave the session, so that a large network does not fill the memory. A NaN or infinity gives infinity.
    """
    probed = onnx.ModelProto()
    probed.CopyFrom(proto)
    names = _float_tensors(proto)
    for name in names:
        probed.graph.node.append(helper.make_node("Abs", [name], [f"{PREFIX}abs_{name}"]))
        probed.graph.node.append(helper.make_node("ReduceMax", [f"{PREFIX}abs_{name}"], [PREFIX + name], keepdims=0))
        probed.graph.output.append(helper.make_tensor_value_info(PREFIX + name, TensorProto.FLOAT, []))
    session = reference_session(probed.SerializeToString())
    top = np.zeros(len(names))
    for image in images:
        found = np.array(session.run([PREFIX + name for name in names], {INPUT: image[None]}), dtype=np.float64)
        top = np.maximum(top, np.where(np.isfinite(found), found, np.inf))
    return dict(zip(names, (float(value) for value in top), strict=True))


def _float_tensors(proto: onnx.ModelProto) -> list[str]:
    inferred = shape_inference.infer_shapes(proto).graph
    known = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}
    return [out for node in proto.graph.node for out in node.output if known.get(out) == TensorProto.FLOAT]


def beyond_half(proto: onnx.ModelProto, images: UInt8, kept: set[str]) -> list[str]:
    """Operators, as "name (type): why", whose weights or results do not fit into FP16; those in `kept` stay FP32."""
    ranges = tensor_ranges(proto, images)
    weights = {t.name: _top(numpy_helper.to_array(t)) for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT}
    found = []
    for node in proto.graph.node:
        if node.name in kept:
            continue
        heavy = max((weights[name] for name in node.input if name in weights), default=0.0)
        wide = max((ranges[name] for name in node.output if name in ranges), default=0.0)
        if heavy > HALF_MAX:
            found.append(f"{node.name} ({node.op_type}): weight {heavy:.3g}")
        elif wide > HALF_MAX:
            found.append(f"{node.name} ({node.op_type}): result {wide:.3g}")
    return found


def _top(array: Any) -> float:
    value = float(np.abs(array).max()) if array.size else 0.0
    return value if np.isfinite(value) else float("inf")
