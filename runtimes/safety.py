"""What a model file may hold before an engine sees it: allow-lists of operators, sizes, nothing outside the folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from xml.parsers import expat

from octc.core.errors import OctcError, shorten
from octc.core.faults import fault_of
from octc.core.targets import TARGETS, called
from octc.store.artifacts import LARGEST, Artifact

T = TypeVar("T")
MOST_XML = 64 << 20  # bytes; weights lie beside it
MOST_ELEMENTS = 2_000_000

# Operators of ai.onnx that an inference graph of a classifier is made of. None of them has a subgraph, keeps a state,
# draws random numbers or handles sequences, maps or strings.
STANDARD = """
    Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil
    Celu Clip Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear
    Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand Flatten Floor GRU Gather GatherElements GatherND Gelu
    Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax
    Identity InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot
    Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
# The same for OpenVINO's own operator sets; no TensorIterator, Loop, If, Assign, ReadValue.
OPENVINO = """
    Abs Acos Acosh AdaptiveAvgPool AdaptiveMaxPool Add Asin Asinh Atan Atanh AvgPool BatchNormInference Broadcast Ceiling
    Clamp Concat Const Convert ConvertLike Convolution ConvolutionBackpropData Cos Cosh CumSum DepthToSpace Divide Einsum
    Elu Equal Erf Exp FakeConvert FakeQuantize Floor FloorMod Gather GatherElements GatherND Gelu Greater GreaterEqual
    GRUSequence GridSample GroupConvolution GroupConvolutionBackpropData GroupNormalization HSigmoid HSwish HardSigmoid
    Hswish Identity Interpolate IsInf IsNaN LRN LSTMSequence Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr
    LogicalXor MVN MatMul MaxPool Maximum Minimum Mish Mod Multiply Negative NormalizeL2 NotEqual OneHot PReLU PRelu Pad
    Parameter Power RMS RNNSequence Range ReLU ReduceL1 ReduceL2 ReduceLogicalAnd ReduceLogicalOr ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum Reshape Result Reverse Round ScaledDotProductAttention ScatterElementsUpdate
    ScatterNDUpdate ScatterUpdate Select Selu ShapeOf ShuffleChannels Sigmoid Sign Sin Sinh Slice SoftMax SoftPlus SoftSign
    Softmax SpaceToDepth Split Sqrt SquaredDifference Squeeze StridedSlice Subtract Swish Tan Tanh Tile TopK Transpose
    Unsqueeze VariadicSplit
"""
ONNX_OPERATORS = frozenset(STANDARD.split())
IR_OPERATORS = frozenset(OPENVINO.split())
OPSET = re.compile(r"opset\d{1,2}")
FILE_WORDS = ("path", "file", "location", "extension", "library")
OUTSIDE = re.compile(r"^[/\\~]|^[A-Za-z]:[/\\]|\.\.[/\\]|://")


def check_model(folder: Path, artifact: Artifact) -> None:
    """Look into the model file of an artifact, without an engine and without opening anything that it names.

    Raises:
        OctcError: E503 it keeps data in other files, E504 an operator or a size is not allowed, or it is not what it claims.
    """
    path = folder / artifact.main_file
    target = TARGETS[artifact.target]
    suffix = target.suffix
    if suffix and path.suffix != suffix:
        raise _refuse(path, f"{artifact.main_file} is no {suffix} file")
    size = path.stat().st_size
    if size > LARGEST:
        raise _refuse(path, f"{artifact.main_file} has {size} bytes, the limit is {LARGEST}")
    if target.checks:
        called(target.checks)(path, artifact)


def _scanned(path: Path, kind: str, scan: Callable[[Path], T]) -> T:
    """What a reader finds in a file; refused where it is none of its kind."""
    try:
        return scan(path)
    except (ValueError, OSError) as error:
        if (fault := fault_of(error, path)) is not None:
            raise fault from error
        raise _refuse(path, f"{path.name} is not a well-formed {kind} file: {error}") from error


def check_onnx(path: Path, artifact: Artifact) -> None:
    from octc.runtimes.onnx_reader import scan_onnx

    del artifact
    facts = _scanned(path, "ONNX", scan_onnx)
    if facts.outside:
        text = f"ONNX refers to external data: {shorten(facts.outside, 3, 'see the file')}"
        raise OctcError("OCT-E503", text, hint="do not use this artifact; octc writes single files", place=str(path))
    foreign = sorted(
        f"{domain}::{name}" if domain else name
        for domain, name in facts.operators
        if domain not in ("", "ai.onnx") or name not in ONNX_OPERATORS
    )
    if foreign:
        raise _refuse(path, f"operators that are not allowed: {shorten(foreign, 5, 'see the file')}")
    if facts.subgraphs or facts.functions:
        raise _refuse(path, f"{facts.subgraphs} subgraphs and {facts.functions} functions; none is allowed")


def check_ir(path: Path, artifact: Artifact) -> None:
    weights = path.with_suffix(".bin")
    if artifact.main_file.removesuffix(".xml") + ".bin" not in artifact.files:
        raise _refuse(path, f"{weights.name} is not among the artifact's files")
    if path.stat().st_size > MOST_XML:
        raise _refuse(path, f"{path.name} has {path.stat().st_size} bytes, the limit is {MOST_XML}")
    problems = scan_ir(path.read_bytes(), weights.stat().st_size)
    outside = [text for kind, text in problems if kind == "outside"]
    if outside:
        text = f"the IR refers to other files: {shorten(outside, 3, 'see the file')}"
        raise OctcError("OCT-E503", text, hint="do not use this artifact", place=str(path))
    if problems:
        found = list(dict.fromkeys(text for _, text in problems))
        raise _refuse(path, f"not allowed: {shorten(found, 5, 'see the file')}")


def check_litert(path: Path, artifact: Artifact) -> None:
    from octc.runtimes.litert_reader import scan_litert

    del artifact
    found = _scanned(path, "LiteRT", lambda file: scan_litert(file.read_bytes()))
    if found.outside:
        text = f"the LiteRT file keeps data outside its graph: {shorten(found.outside, 3, 'see the file')}"
        raise OctcError("OCT-E503", text, hint="do not use this artifact; octc writes single files", place=str(path))
    if found.refused:
        raise _refuse(path, f"operators that are not allowed: {shorten(found.refused, 5, 'see the file')}")
    if found.graphs != 1:
        raise _refuse(path, f"{found.graphs} graphs; one is allowed")


class _Stop(Exception):
    """Enough was seen."""


def scan_ir(data: bytes, weights: int) -> list[tuple[str, str]]:
    """What is wrong with the XML of an IR: ("outside" or "refused", text). `weights`: bytes of its .bin file."""
    problems: list[tuple[str, str]] = []
    seen = 0

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal seen
        seen += 1
        if seen > MOST_ELEMENTS:
            raise _Stop(f"more than {MOST_ELEMENTS} elements")
        if seen == 1 and name != "net":
            raise _Stop(f"no network: the document is {name[:50]!r}")
        if name == "layer":
            problems.extend(("refused", text) for text in _layer(attributes))
        elif name == "data":
            problems.extend(_data(attributes, weights))
        if len(problems) > 100:
            raise _Stop("")

    def doctype(*_: Any) -> None:
        raise _Stop("a document type with entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)
    except _Stop as error:
        problems += [("refused", str(error))] if str(error) else []
    except (expat.ExpatError, ValueError) as error:
        problems.append(("refused", f"not well-formed XML ({error})"))
    return problems


def _layer(attributes: dict[str, str]) -> list[str]:
    kind, version = attributes.get("type", ""), attributes.get("version", "")
    if kind not in IR_OPERATORS:
        return [f"operator {kind or 'without a type'}"]
    return [] if OPSET.fullmatch(version) else [f"{kind} of {version or 'no operator set'}"]


def _data(attributes: dict[str, str], weights: int) -> list[tuple[str, str]]:
    problems = [
        ("outside", f"{key}={value[:200]}")
        for key, value in attributes.items()
        if OUTSIDE.search(value) or any(word in key.lower() for word in FILE_WORDS)
    ]
    if attributes.get("element_type") == "string":
        problems.append(("refused", "constants of strings"))
    if "offset" in attributes:
        try:
            offset, size = int(attributes["offset"]), int(attributes["size"])
        except (KeyError, ValueError):
            return [*problems, ("refused", "a constant without its place")]
        if offset < 0 or size < 0 or offset + size > weights:
            problems.append(("refused", f"a constant at bytes {offset} to {offset + size} of {weights}"))
    return problems


def _refuse(path: Path, text: str) -> OctcError:
    return OctcError("OCT-E504", text, hint="do not use this artifact; octc export makes one", place=str(path))
