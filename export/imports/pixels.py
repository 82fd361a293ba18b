"""Arithmetic at the beginning of a foreign network: one that takes pixels from 0 to 255 is not to be fed normalised ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from octc.core.errors import OctcError
from octc.imaging.foreign import Foreign

Step = tuple[str, npt.NDArray[np.float64]]  # "+", "*" or "/" and the constant
SIGNS = {"Add": "+", "Sub": "+", "Subtract": "+", "Mul": "*", "Multiply": "*", "Div": "/", "Divide": "/"}
PASSED = ("Cast", "Convert", "Identity", "Transpose", "Gather", "Reshape")  # change no value
LEVELS = 20.0  # constants of grey levels are above, those of normalised values below: 3 is much


def refuse_twice(steps: list[Step], foreign: Foreign) -> None:
    """Refuse a preprocessing that normalises what the network normalises again (OctcError E104).

    steps: the arithmetic with constants between the input and the first operator of another kind.
    """
    own = [step for step in steps if _of_levels(*step)]
    low, high = ((np.array([value, value, value]) * foreign.factor - foreign.mean) / foreign.std for value in (0, 255))
    most = float(max(np.abs(low).max(), np.abs(high).max()))
    if own and most < LEVELS:
        constant = ", ".join(f"{value:.4g}" for value in np.unique(np.round(own[0][1].ravel(), 6))[:3])
        words = {"+": "takes away", "*": "multiplies by", "/": "divides by"}[own[0][0]]
        text = f"the network {words} {constant} first: it takes 0 to 255; its preprocessing gives at most {most:.3g}"
        hint = '"mean": [0, 0, 0], "std": [0.00392157, 0.00392157, 0.00392157] in --preprocess: octc\'s own form, 0 to 255'
        raise OctcError("OCT-E104", text, hint=hint, place="--preprocess")


def _of_levels(sign: str, constant: npt.NDArray[np.float64]) -> bool:
    """Whether a constant is one of grey levels from 0 to 255."""
    largest = float(np.abs(constant).max()) if constant.size else 0.0
    return 0 < largest <= 1 / LEVELS if sign == "*" else largest >= LEVELS


def steps_of_onnx(graph: onnx.GraphProto, start: str) -> list[Step]:
    """The arithmetic with constants that an ONNX graph begins with."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].type == onnx.AttributeProto.TENSOR:
            constants[node.output[0]] = node.attribute[0].t
    found: list[Step] = []
    value = start
    for _ in range(len(graph.node)):
        users = [node for node in graph.node if value in node.input]
        if len(users) != 1 or not users[0].output:
            break
        (node,) = users
        beside = [constants[name] for name in node.input if name in constants]
        if node.op_type in SIGNS and beside and not (node.op_type == "Div" and node.input[0] != value):
            found.append((SIGNS[node.op_type], numpy_helper.to_array(beside[0]).astype(np.float64)))
        elif node.op_type not in PASSED:
            break
        value = node.output[0]
    return found


def steps_of_ir(model: Any) -> list[Step]:
    """The arithmetic with constants that an OpenVINO model begins with."""
    return list(_walk_ir(model.input(0).get_node()))


def _walk_ir(node: Any) -> Iterator[Step]:
    while len(users := list(node.output(0).get_target_inputs())) == 1:
        node = users[0].get_node()
        kind = node.get_type_name()
        constant = _constant(node)
        if kind in SIGNS and constant is not None:
            yield SIGNS[kind], constant
        elif kind not in PASSED:
            return


def _constant(node: Any) -> npt.NDArray[np.float64] | None:
    """The constant beside the picture; behind a change of its type too."""
    for port in node.inputs()[:2]:
        source = port.get_source_output().get_node()
        if source.get_type_name() == "Convert":
            source = source.input_value(0).get_node()
        if source.get_type_name() == "Constant":
            return np.asarray(source.data, np.float64)
    return None
