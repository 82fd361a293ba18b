"""What stands in an ONNX file, read straight from its bytes: operators, subgraphs, data kept elsewhere."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from octc.core.protobuf import Field, fields, text

# numbers of fields in onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto)
MODEL_GRAPH, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 20, 25
GRAPH_NODE, GRAPH_INITIALISER, GRAPH_SPARSE = 1, 5, 15
NODE_INPUT, NODE_OUTPUT, NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 4, 5, 7
ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
SPARSE_TENSORS = (1, 2)
TENSOR_TYPE, TENSOR_NAME, TENSOR_EXTERNAL, TENSOR_LOCATION = 2, 8, 13, 14
INT8_CONVOLUTIONS = ("QLinearConv", "ConvInteger")
FLOATS = {1: "fp32", 10: "fp16", 16: "bf16"}  # TensorProto.DataType
MOST_FIELDS = 2_000_000  # a second or two of walking; a node has about ten


@dataclass
class OnnxFacts:
    """What a walk found.

    Attributes:
        operators: (domain, name) -> count, at the top level.
        outside: entries that keep data in another file.
        convolutions: operator and inputs of each. types: element type of each named constant.
        dequantised: the scale of each tensor that a DequantizeLinear gives.
        fields: how many were looked at.
    """

    operators: Counter[tuple[str, str]] = field(default_factory=Counter)
    subgraphs: int = 0
    functions: int = 0
    outside: list[str] = field(default_factory=list)
    convolutions: list[tuple[str, list[str]]] = field(default_factory=list)
    types: dict[str, int] = field(default_factory=dict)
    dequantised: dict[str, str] = field(default_factory=dict)
    fields: int = 0


def scan_onnx(path: Path) -> OnnxFacts:
    """Walk a file; weights are passed over, nothing that it names is opened. Raises ValueError, OSError."""
    with path.open("rb") as stream:
        return walk_model(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))


def operators_of(path: Path) -> dict[str, int]:
    """How often each operator stands in a file, those of other domains with it before the name. Raises as `scan_onnx`."""
    return {f"{domain}:{name}" if domain else name: count for (domain, name), count in scan_onnx(path).operators.items()}


def convolution_precisions(path: Path) -> dict[str, int]:
    """Convolutions of a file by precision: that of their float constants, or int8. Raises as `scan_onnx`."""
    facts = scan_onnx(path)
    counts: Counter[str] = Counter()
    for operator, inputs in facts.convolutions:
        names = [facts.dequantised.get(name, name) for name in inputs]  # float kernels read codes through their scales
        kinds = [FLOATS[facts.types[name]] for name in names if facts.types.get(name) in FLOATS]
        counts["int8" if operator in INT8_CONVOLUTIONS else kinds[0] if kinds else "unknown"] += 1
    return dict(counts)


def walk_model(data: memoryview) -> OnnxFacts:
    """Facts of the bytes of a ModelProto. Raises ValueError where they are none."""
    facts = OnnxFacts()
    graphs = 0
    for number, value in _counted(data, facts):
        if not isinstance(value, memoryview):
            continue
        if number == MODEL_GRAPH:
            graphs += 1  # a second one would be merged into the first by every parser: both are looked at
            _graph(value, facts)
        elif number in (MODEL_FUNCTIONS, MODEL_TRAINING):
            facts.functions += 1
    if not graphs:
        raise ValueError("no graph in it")
    return facts


def _counted(data: memoryview, facts: OnnxFacts) -> Iterator[Field]:
    for one in fields(data):
        facts.fields += 1
        if facts.fields > MOST_FIELDS:
            raise ValueError(f"more than {MOST_FIELDS} fields")
        yield one


def _graph(data: memoryview, facts: OnnxFacts) -> None:
    for number, value in _counted(data, facts):
        if isinstance(value, memoryview):
            if number == GRAPH_NODE:
                _node(value, facts)
            elif number == GRAPH_INITIALISER:
                _tensor(value, facts)
            elif number == GRAPH_SPARSE:
                _sparse(value, facts)


def _node(data: memoryview, facts: OnnxFacts) -> None:
    operator, domain = "", ""
    inputs: list[str] = []
    outputs: list[str] = []
    for number, value in _counted(data, facts):
        if isinstance(value, memoryview):
            if number == NODE_INPUT:
                inputs.append(text(value))
            elif number == NODE_OUTPUT:
                outputs.append(text(value))
            elif number == NODE_OPERATOR:
                operator = text(value)
            elif number == NODE_DOMAIN:
                domain = text(value)
            elif number == NODE_ATTRIBUTE:
                _attribute(value, facts)
    facts.operators[domain, operator] += 1
    if operator == "DequantizeLinear" and len(inputs) > 1 and outputs:
        facts.dequantised[outputs[0]] = inputs[1]
    if operator.endswith("Conv") or operator == "ConvInteger":
        facts.convolutions.append((operator, inputs))


def _attribute(data: memoryview, facts: OnnxFacts) -> None:
    for number, value in _counted(data, facts):
        if isinstance(value, memoryview):
            if number in ATTRIBUTE_GRAPHS:
                facts.subgraphs += 1  # no operator that octc runs has one, so what is inside does not matter
            elif number in ATTRIBUTE_TENSORS:
                _tensor(value, facts)
            elif number in ATTRIBUTE_SPARSE:
                _sparse(value, facts)


def _sparse(data: memoryview, facts: OnnxFacts) -> None:
    for number, value in _counted(data, facts):
        if isinstance(value, memoryview) and number in SPARSE_TENSORS:
            _tensor(value, facts)


def _tensor(data: memoryview, facts: OnnxFacts) -> None:
    name, kind = "", 0
    for number, value in _counted(data, facts):
        if isinstance(value, int):
            kind = value if number == TENSOR_TYPE else kind
            if number == TENSOR_LOCATION and value != 0:
                facts.outside.append("data_location")
        elif number == TENSOR_NAME:
            name = text(value)
        elif number == TENSOR_EXTERNAL:
            parts = [bytes(v[:200]).decode(errors="replace") for _, v in fields(value) if isinstance(v, memoryview)]
            facts.outside.append("=".join(parts))
    facts.types[name] = kind
