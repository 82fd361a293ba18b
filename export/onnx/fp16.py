"""FP32 ONNX -> FP16 ONNX with FP32 inputs and outputs. Refuses what would be clipped; norms and L2 sums stay FP32."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from octc.core.errors import OctcError, shorten
from octc.core.optional import need
from octc.export.onnx.float import INPUT, facts_of, read_onnx, save, strip
from octc.export.onnx.ranges import HALF_MAX, beyond_half
from octc.imaging.preprocess import UInt8

# sums of squares overflow FP16 as soon as the mean of x^2 over 9,216 positions exceeds 7.1, and no CPU run shows it
FLOAT_OPERATORS = ("LayerNormalization", "ReduceL2", "ReduceSumSquare", "GroupNormalization", "InstanceNormalization")
SMALLEST = 6e-8  # the smallest positive FP16 number; the converter raises what lies below to it


def write_fp16(source: Path, path: Path, images: UInt8) -> dict[str, Any]:
    """Convert the ONNX file `source`; weights and results on `images` must fit into FP16.

    Returns: facts of the new file and the operators that stay FP32.

    Raises:
        OctcError: E408 with the operators whose weights or results exceed 65504.
    """
    proto = read_onnx(source)
    kept = float_nodes(proto)
    if wide := beyond_half(proto, images, set(kept)):
        text = f"FP16 range exceeded in {len(wide)} operators: {shorten(wide, 10)}"
        hint = "octc export --fp32 (these operators must stay FP32)"
        raise OctcError("OCT-E408", text, hint=hint, why=f"FP16 ends at {HALF_MAX:g}")
    _unshare(proto, set(kept))
    converter = need("onnxconverter_common").float16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "truncated": weights below 6e-8, which FP16 cannot hold
        half = converter.convert_float_to_float16(
            proto,
            min_positive_val=SMALLEST,
            max_finite_val=HALF_MAX,
            keep_io_types=True,
            op_block_list=[*converter.DEFAULT_OP_BLOCK_LIST, *FLOAT_OPERATORS],
            node_block_list=kept,
        )
    strip(half)
    save(half, path)
    types = sorted({node.op_type for node in proto.graph.node if node.name in kept})
    return {**facts_of(half), "bytes": path.stat().st_size, "float_operators": types, "float_nodes": len(kept)}


def _unshare(proto: onnx.ModelProto, kept: set[str]) -> None:
    """Give the FP32 nodes constants of their own: equal ones (biases of zero) are one initialiser, which has one type."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    shared = {name for node in proto.graph.node if node.name not in kept for name in node.input if name in constants}
    for node in [n for n in proto.graph.node if n.name in kept]:
        for place, name in enumerate(node.input):
            if name in shared:
                own = proto.graph.initializer.add()
                own.CopyFrom(constants[name])
                own.name = f"{name}_{node.name}_{place}"
                node.input[place] = own.name


def _is_square(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether a node gives squares, which leave FP16 above 256."""
    if node.op_type == "Mul":
        return bool(node.input[0] == node.input[1])
    exponent = constants.get(node.input[1]) if node.op_type == "Pow" else None
    return exponent is not None and bool((onnx.numpy_helper.to_array(exponent) == 2).all())


def _hides(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether a node adds a mask: -inf, and else what FP16 holds."""
    values = [onnx.numpy_helper.to_array(constants[n]) for n in node.input if n in constants and node.op_type == "Add"]
    floats = [one for one in values if one.dtype.kind == "f"]
    return any(bool(np.isneginf(one).any() and (np.abs(one[~np.isneginf(one)]) <= HALF_MAX).all()) for one in floats)


def float_nodes(proto: onnx.ModelProto) -> list[str]:
    """The normalisation of the image, norms and L2 sums, squares, and what follows a sum or square up to its division (GRN,
    norms that are written out), scores that a mask hides up to their softmax; names."""
    readers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept = {node.name: node for node in proto.graph.node if node.op_type in FLOAT_OPERATORS}
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    sums = [node for node in kept.values() if node.op_type == "ReduceL2"]
    squares = [node for node in proto.graph.node if _is_square(node, constants)]
    for starts, through, ends in (
        (sums, ("ReduceMean", "Add", "Div"), ("Div",)),
        (squares, ("ReduceMean", "ReduceSum", "Add", "Div", "Sqrt", "Reciprocal"), ("Div", "Sqrt", "Reciprocal")),
        ([node for node in proto.graph.node if _hides(node, constants)], ("Reshape", "Softmax", "Where"), ("Softmax",)),
        (readers.get(INPUT, []), ("Cast", "Mul", "Sub"), ("Sub",)),
    ):
        kept.update({node.name: node for node in starts})
        open_ends = list(starts)
        while open_ends:
            for user in [u for out in open_ends.pop().output for u in readers.get(out, [])]:
                if user.name not in kept and user.op_type in through:
                    kept[user.name] = user
                    open_ends += [user] if user.op_type not in ends else []
    return list(kept)
