"""What an artifact's graph takes, read from its own file: name, type and shape of the input. No engine is opened.

ONNX: GraphProto.input of onnx.proto; OpenVINO: the Parameter of the IR; LiteRT: the first graph's inputs; TensorRT: its ONNX
file, else the engine's sidecar.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

from octc.core.errors import OctcError
from octc.core.files import read_json
from octc.core.protobuf import fields, messages, text
from octc.runtimes.litert_reader import scan_litert
from octc.store.artifacts import Artifact

# numbers of fields in onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto)
MODEL_GRAPH, GRAPH_INITIALISER, GRAPH_INPUT, TENSOR_NAME = 7, 5, 11, 8
VALUE_NAME, VALUE_TYPE, TYPE_TENSOR, TENSOR_ELEMENT, TENSOR_SHAPE, SHAPE_DIM, DIM_VALUE, DIM_NAME = 1, 2, 1, 1, 2, 1, 1, 2
ONNX_TYPES = {1: "float32", 2: "uint8", 3: "int8", 10: "float16", 11: "float64", 16: "bfloat16"}  # TensorProto.DataType
IR_TYPES = {"u8": "uint8", "i8": "int8", "f32": "float32", "f16": "float16", "f64": "float64", "bf16": "bfloat16"}


@dataclass(frozen=True)
class GraphInput:
    """name: as a session wants it. type: numpy's name of it. shape: "?" or a name where it is free."""

    name: str
    type: str
    shape: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.type} [{', '.join(self.shape)}]"


def read_graph_input(folder: Path, artifact: Artifact) -> GraphInput | None:
    """The input of an artifact's graph; None for torch weights, which hold no graph.

    Raises:
        OctcError: E502 the file does not say it.
    """
    if artifact.target == "torch":
        return None
    onnx = "model.onnx" if "model.onnx" in artifact.files else artifact.main_file
    path = folder / onnx
    try:
        if path.suffix == ".xml":
            return _of_ir(path.read_bytes())
        if path.suffix == ".tflite":
            ((name, kind, shape),) = scan_litert(path.read_bytes()).inputs
            return GraphInput(name, kind, shape)
        if path.suffix == ".onnx":
            with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _of_onnx(bytes(data))
        known = read_json(folder / f"{artifact.main_file}.json")["input"]
        return GraphInput(
            str(known["name"]), str(known["dtype"]), ("batch", *(str(known[k]) for k in ("channels", "size", "size")))
        )
    except (OSError, ValueError, KeyError, TypeError, expat.ExpatError) as error:
        text_ = f"the input of {path.name} cannot be read: {error!r}"
        raise OctcError("OCT-E502", text_, hint="make it again: octc export --force", place=str(path)) from error


def _of_onnx(data: bytes) -> GraphInput:
    (graph,) = messages(memoryview(data), MODEL_GRAPH)
    constants = {_name(tensor, TENSOR_NAME) for tensor in messages(graph, GRAPH_INITIALISER)}
    found = [value for value in messages(graph, GRAPH_INPUT) if _name(value, VALUE_NAME) not in constants]
    if len(found) != 1:
        raise ValueError(f"{len(found)} inputs")
    tensor = next(messages(next(messages(found[0], VALUE_TYPE)), TYPE_TENSOR))
    kind = next((value for number, value in fields(tensor) if number == TENSOR_ELEMENT), 0)
    shape = [_dim(dim) for one in messages(tensor, TENSOR_SHAPE) for dim in messages(one, SHAPE_DIM)]
    return GraphInput(_name(found[0], VALUE_NAME), ONNX_TYPES.get(int(str(kind)), f"type {kind}"), tuple(shape))


def _name(message: memoryview, number: int) -> str:
    return next((text(value) for value in messages(message, number)), "")


def _dim(message: memoryview) -> str:
    found = dict(fields(message))
    if DIM_NAME in found and isinstance(found[DIM_NAME], memoryview):
        return text(found[DIM_NAME])  # type: ignore[arg-type]
    return str(found.get(DIM_VALUE, "?"))


def _of_ir(data: bytes) -> GraphInput:
    found: list[dict[str, Any]] = []
    inside: list[dict[str, Any]] = []

    def begin(name: str, attributes: dict[str, str]) -> None:
        if name == "layer":
            inside[:] = [{"name": attributes.get("name", "")}] if attributes.get("type") == "Parameter" else []
            found.extend(inside)
        elif inside and name == "data":
            inside[0] |= {"type": attributes.get("element_type", ""), "shape": attributes.get("shape", "")}
        elif inside and name == "port" and attributes.get("names"):
            inside[0]["name"] = attributes["names"].split(",")[0]  # the tensor's own name, which a session takes

    def doctype(*_: Any) -> None:
        raise ValueError("a document type")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.StartDoctypeDeclHandler = begin, doctype
    parser.Parse(data, True)
    if len(found) != 1:
        raise ValueError(f"{len(found)} inputs")
    one = found[0]
    shape = tuple("?" if side.strip() in ("-1", "?", "") else side.strip() for side in one["shape"].split(","))
    return GraphInput(one["name"], IR_TYPES.get(one["type"], one["type"]), shape)
