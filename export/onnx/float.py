"""ONNX by the dynamo exporter: uint8 in, logits out, dynamic batch, one file. What was asked for is read back from the file."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from octc.compress.attention import layers_alone
from octc.compress.shapes import BATCHES
from octc.core.errors import OctcError, first_line
from octc.core.files import sha256_file
from octc.export.onnx.place import failed_at
from octc.imaging.preprocess import Preprocess
from octc.runtimes.onnxrt import reference_session
from octc.train.networks.models import WithInput, out_of_place

INPUT, OUTPUT = "image", "logits"
OTHERWISE = (
    "write what is named otherwise: no branch, shape or number of groups that depends on values or on how many images there "
    "are; octc export -vv shows all. Or torch.onnx.export in a program of yours, and octc import FILE.onnx"
)
LIMIT = 2_000_000_000  # bytes; protobuf ends at 2 GiB
FROZEN = "report this network"  # what octc itself wrote is not frozen
APART = 1e-2  # of the range of the logits, that an image's may be away from those that it has alone
APART_IN_CODES = 5e-2  # the same in INT8


def write_onnx(model: nn.Module, pre: Preprocess, path: Path, opset: int) -> dict[str, Any]:
    """Export `model` (normalised float [N, 3, H, W] -> logits [N, K]) behind its preprocessing.

    The file takes "image" uint8 [batch, channels, size, size] and gives "logits" float32 [batch, K]; BatchNorm is folded.

    Returns: facts (opset, ir, nodes, bytes, operators, exporter).

    Raises:
        OctcError: E407 the exporter failed, E401 the file has another opset than asked, E402 its batch is frozen.
    """
    wrapped = WithInput(model, pre).cpu().eval()
    _apart(wrapped, pre)
    example = torch.zeros((2, pre.channels, pre.size, pre.size), dtype=torch.uint8)
    try:
        with _quiet(), torch.no_grad(), layers_alone(masks=False):
            program = torch.onnx.export(
                wrapped,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
        where, name = failed_at(error, wrapped)
        at = f" at {where}" if where else ""
        text = f"ONNX export failed{at}: {first_line(error.__cause__ or error, 300)}"  # its own words name a step alone
        raise OctcError("OCT-E407", text, hint=OTHERWISE, place=name or None) from error
    assert program is not None  # only without dynamo does it return nothing
    proto: onnx.ModelProto = program.model_proto
    spell_norms(proto)
    strip(proto)
    name_quantisers(proto)
    check_written(proto, opset)
    save(proto, path)
    return {**facts_of(proto), "bytes": path.stat().st_size, "exporter": f"torch {torch.__version__} dynamo"}


def strip(proto: onnx.ModelProto) -> None:
    """Drop what no engine reads: traces of the source code, inferred shapes (they also name paths of this machine)."""
    for holder in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
    proto.graph.ClearField("value_info")
    proto.graph.name = "octc"


def _apart(wrapped: nn.Module, pre: Preprocess) -> None:
    """No activation writes over its input any more: in place, the exporter takes half as long again. Where something else reads
    what is written over, it is left as it is."""
    before = {module: module.inplace for module in wrapped.modules() if vars(module).get("inplace")}
    shape = (2, pre.channels, pre.size, pre.size)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    with torch.no_grad():
        first = wrapped(images) if before else None
        out_of_place(wrapped)
        if first is not None and not torch.equal(first, wrapped(images)):
            for module, value in before.items():
                vars(module)["inplace"] = value


def spell_norms(proto: onnx.ModelProto) -> None:
    """A BatchNormalization that no convolution could take in becomes Mul and Add, which engines join with what is beside it."""
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranks = {one.name: len(one.type.tensor_type.shape.dim) for one in (*graph.value_info, *graph.input, *graph.output)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        rank = ranks.get(node.output[0], 0)
        known = node.op_type == "BatchNormalization" and len(node.output) == 1 and rank >= 2
        if not known or any(name not in constants for name in node.input[1:]):
            nodes.append(node)
            continue
        gamma, beta, mean, variance = (onnx.numpy_helper.to_array(constants[name]) for name in node.input[1:])
        epsilon = next((one.f for one in node.attribute if one.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance + epsilon)
        shape = (1, -1, *[1] * (rank - 2))
        for word, values in (("scale", scale), ("shift", beta - mean * scale)):
            tensor = onnx.numpy_helper.from_array(values.astype(gamma.dtype).reshape(shape), f"{node.output[0]}_{word}")
            graph.initializer.append(tensor)
        out = str(node.output[0])
        nodes.append(
            onnx.helper.make_node("Mul", [node.input[0], f"{out}_scale"], [f"{out}_scaled"], name=f"{node.name}_scale")
        )
        nodes.append(onnx.helper.make_node("Add", [f"{out}_scaled", f"{out}_shift"], [out], name=f"{node.name}_shift"))
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def name_quantisers(proto: onnx.ModelProto) -> None:
    """Name Q and DQ nodes after the tensor or weight that they stand on, so that a finding can be read."""
    seen: Counter[str] = Counter()  # equal scales (all of ReLU6) share one initialiser
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            name = f"{node.input[1].removeprefix('model.').removesuffix('.scale')}/{node.op_type}"
            seen[name] += 1
            node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def check_written(proto: onnx.ModelProto, opset: int) -> None:
    """Refuse a file that is not what was asked for.

    Raises:
        OctcError: E401 another opset, E402 a batch axis with a number, E404 a BatchNorm that was not folded.
    """
    found = opset_of(proto)
    if found != opset:
        raise OctcError("OCT-E401", f"asked for opset {opset}, the exporter wrote {found}", hint=f"--opset {found}")
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.tensor_type.shape.dim[0].dim_value:
            raise _frozen(f"{value.name} has batch {value.type.tensor_type.shape.dim[0].dim_value}", value.name)
    left = [node.name for node in proto.graph.node if node.op_type == "BatchNormalization"]
    if left:
        text = f"{len(left)} BatchNorm left behind"
        raise OctcError("OCT-E404", text, hint="choose a convolutional student (octc list models)", place=left[0])


def opset_of(proto: onnx.ModelProto) -> int:
    """Version of the main operator set."""
    return next(int(entry.version) for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))


def facts_of(proto: onnx.ModelProto) -> dict[str, Any]:
    """What stands in a file: opset, format, nodes, operators by count."""
    operators = Counter(node.op_type for node in proto.graph.node)
    return {
        "opset": opset_of(proto),
        "ir": int(proto.ir_version),
        "nodes": len(proto.graph.node),
        "operators": dict(sorted(operators.items())),
    }


def save(proto: onnx.ModelProto, path: Path) -> None:
    """Check and write in one file (E407 when it is not valid, or too large for one)."""
    try:
        size = proto.ByteSize()
        if size > LIMIT:
            raise OctcError(
                "OCT-E407", f"{size} bytes do not fit into one ONNX file", hint="octc export --fp16, or --target torch"
            )
        onnx.checker.check_model(proto, full_check=True)
        path.write_bytes(proto.SerializeToString())
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        text = f"the exported ONNX is not valid: {first_line(error, 300)}"
        raise OctcError("OCT-E407", text, hint="octc export with another --opset") from error


def check_batches(path: Path, pre: Preprocess, frozen: str = FROZEN) -> list[int]:
    """Run the file with batches of 1, 2 and 5 in onnxruntime; the rows of a batch must be those of the single images.

    frozen: the hint where the file is for another batch.

    Raises:
        OctcError: E402 when a batch cannot be run, or an image's logits depend on the batch.
    """
    session = reference_session(path, optimised=True)
    coded = "QuantizeLinear" in facts_of(read_onnx(path))["operators"]
    return compare_batches(lambda images: session.run([OUTPUT], {INPUT: images})[0], pre, path.name, frozen, coded=coded)


def compare_batches(run: Callable[[Any], Any], pre: Preprocess, place: str, frozen: str = FROZEN, *, coded: bool) -> list[int]:
    """Compare what `run` makes of batches of 1, 2 and 5 (uint8 [N, C, S, S] -> logits [N, K]) with each image alone.

    The images differ in brightness and contrast: of noise alone, one is to a network as another.

    Args:
        frozen: as of `check_batches`. coded: whether the network is INT8: a sum in another order may flip codes.

    Raises as `check_batches` does.
    """
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (max(BATCHES), pre.channels, pre.size, pre.size))
    least, most = np.array([0, 0, 128, 64, 192]), np.array([255, 96, 255, 160, 255])
    wide = (most - least).reshape(-1, 1, 1, 1)
    images = (noise * wide // 255 + least.reshape(-1, 1, 1, 1)).astype(np.uint8)
    alone = np.concatenate([_rows(run, images[k : k + 1], place, frozen) for k in range(len(images))])
    spread = float(np.ptp(alone, axis=1).mean()) or 1.0
    for count in BATCHES[1:]:
        away = np.abs(_rows(run, images[:count], place, frozen) - alone[:count]).max(axis=1)
        if (away > (APART_IN_CODES if coded else APART) * spread).any():
            text = f"image {int(away.argmax()) + 1} of a batch of {count} has other logits than alone"
            hint = "compute each image by itself: a number of images, or a statistic over them, is in the graph"
            raise OctcError("OCT-E402", text, hint=hint, place=place)
    return list(BATCHES)


def _rows(run: Callable[[Any], Any], images: Any, place: str, frozen: str) -> Any:
    try:
        found = np.asarray(run(images))
    except Exception as error:  # the engines' errors share no base class
        raise _frozen(f"batch {len(images)} cannot be run: {first_line(error)}", place, frozen) from error
    if found.ndim == 2 and len(found) != len(images) == found.shape[1]:
        text = f"{len(images)} image gives logits {list(found.shape)}: a column an image"
        raise OctcError("OCT-E402", text, hint="leave out the transposition at its end: octc reads a row an image", place=place)
    if len(found) != len(images):
        raise _frozen(f"a batch of {len(images)} gives {len(found)} rows", place, frozen)
    return found


def _frozen(text: str, place: str, hint: str = FROZEN) -> OctcError:
    return OctcError("OCT-E402", f"exported batch is frozen: {text}", hint=hint, place=place)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about its own insides and logs tracebacks of attempts that it then repairs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read a file with all it holds (E503 when it refers to data outside)."""
    proto = onnx.load(str(path), load_external_data=False)
    if any(tensor.external_data for tensor in proto.graph.initializer):
        raise OctcError(
            "OCT-E503", "ONNX refers to external data", hint="export it again", place=f"{path.name} {sha256_file(path)[:12]}"
        )
    return proto
