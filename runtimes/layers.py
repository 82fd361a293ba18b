"""Where do two files of one network begin to differ? The result of every convolution and matrix product, side by side.

Works on the files themselves: the layers are made outputs of the graph, and both run on the same images. Two exports of one
network have the same layers in the same order, whatever stands between them (quantisers, casts).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError
from octc.core.optional import openvino_core
from octc.core.protobuf import bytes_field, fields, messages, text
from octc.imaging.preprocess import UInt8
from octc.runtimes.base import broken
from octc.runtimes.onnx_reader import GRAPH_NODE, MODEL_GRAPH, NODE_INPUT, NODE_OPERATOR
from octc.runtimes.onnxrt import reference_session
from octc.runtimes.safety import check_model
from octc.store.artifacts import Artifact

LAYERS = {"Conv", "Gemm", "MatMul", "Convolution", "GroupConvolution"}
BARE = "/WithoutBiases"  # what OpenVINO calls an ONNX layer whose bias it adds in a node of its own
GRAPH_OUTPUT, NODE_OUTPUT, NODE_NAME, VALUE_NAME = 12, 2, 3, 1  # numbers of fields in onnx.proto
BATCH = 2  # images at once: every layer's result is held
SOUND = 0.04  # of the reference's size: what a sound layer adds at least, for this judgement
TIMES = 5.0

Values = npt.NDArray[np.float32]
Run = Callable[[UInt8], "list[Values]"]


@dataclass(frozen=True)
class LayerGap:
    """How a layer's result differs from the reference's.

    error: root mean square of the difference over that of the reference; gain: the factor that fits the reference to it best
    (1 where only noise was added; a wrong scale shows here); added: error beyond that of the layer before.
    """

    name: str
    error: float
    gain: float
    added: float


def layer_gaps(reference: tuple[Path, Artifact], candidate: tuple[Path, Artifact], images: UInt8) -> tuple[LayerGap, ...]:
    """Every layer in the order of the graph; images uint8 [N, channels, size, size].

    Raises:
        OctcError: E708 the two files do not have the same layers, or one is of a kind that cannot be looked into; E901.
    """
    (names, run_reference), (others, run_candidate) = _opened(*reference), _opened(*candidate)
    if len(names) != len(others):
        text_ = f"{reference[1].name} has {len(names)} layers, {candidate[1].name} has {len(others)}"
        raise OctcError("OCT-E708", text_, hint="compare two exports of one run")
    sums = np.zeros((len(names), 3))
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        for i, (r, c) in enumerate(zip(run_reference(part), run_candidate(part), strict=True)):
            if r.shape != c.shape:
                text_ = f"layer {names[i]} has shapes {list(r.shape)} and {list(c.shape)}"
                raise OctcError("OCT-E708", text_, hint="compare two exports of one run")
            a, b = r.astype(np.float64).ravel(), c.astype(np.float64).ravel()
            sums[i] += (a @ a, a @ b, ((a - b) ** 2).sum())
    found: list[LayerGap] = []
    for name, (rr, rc, gap) in zip(names, sums, strict=True):
        error = math.sqrt(gap / rr) if rr > 0 else 0.0
        before = found[-1].error if found else 0.0
        found.append(LayerGap(name, error, float(rc / rr) if rr > 0 else 1.0, error - before))
    return tuple(found)


SAMPLED = 8  # values of a layer of each image that are kept


def layer_values(folder: Path, artifact: Artifact, images: UInt8) -> tuple[tuple[str, Values], ...]:
    """A few values of every layer on these images, always the same ones: what tells one machine from another.

    The layers are made outputs of the graph, which may keep an engine from fusing them: the logits of the artifact itself are
    those of its golden replay.

    Returns: in the order of the graph, names and float32 [N * SAMPLED].

    Raises:
        OctcError: as `layer_gaps`.
    """
    names, run = _opened(folder, artifact)
    kept: list[list[Values]] = [[] for _ in names]
    for start in range(0, len(images), BATCH):
        for own, result in zip(kept, run(images[start : start + BATCH]), strict=True):
            flat = result.reshape(len(result), -1)
            places = np.linspace(0, flat.shape[1] - 1, SAMPLED).round().astype(np.int64)
            own.append(flat[:, places].astype(np.float32).ravel())
    return tuple((name, np.concatenate(own)) for name, own in zip(names, kept, strict=True))


def suspects(gaps: tuple[LayerGap, ...]) -> tuple[LayerGap, ...]:
    """The layers that add several times as much error as any layer before them: where a file begins to depart.

    Tuned weights differ everywhere a little, and what reaches a layer behind a spoiled one is spoiled already.
    """
    found, most = [], SOUND
    for one in gaps:
        if one.added > TIMES * most:
            found.append(one)
        most = max(most, one.added)
    return tuple(found)


def _opened(folder: Path, artifact: Artifact) -> tuple[list[str], Run]:
    check_model(folder, artifact)
    path = folder / artifact.main_file
    if path.suffix == ".onnx":
        return _open_onnx(path, artifact)
    if path.suffix == ".xml":
        return _open_ir(path, artifact)
    text_ = f"{artifact.name} is of a kind whose layers cannot be looked at ({path.name})"
    raise OctcError("OCT-E708", text_, hint="compare ONNX or OpenVINO artifacts")


def _open_onnx(path: Path, artifact: Artifact) -> tuple[list[str], Run]:
    """A second message behind the first is merged into it: the names of more outputs, without rewriting the file."""
    data = path.read_bytes()
    layers, known = _onnx_layers(memoryview(data))
    more = [one for _, one in layers if one not in known]
    outputs = b"".join(bytes_field(GRAPH_OUTPUT, bytes_field(VALUE_NAME, one.encode())) for one in more)
    try:
        session = reference_session(data + bytes_field(MODEL_GRAPH, outputs), threads=1)
    except Exception as error:  # onnxruntime's errors share no base class
        raise broken(artifact, error) from error
    source, wanted = session.get_inputs()[0].name, [one for _, one in layers]
    return [name for name, _ in layers], lambda images: session.run(wanted, {source: images})


def _onnx_layers(data: memoryview) -> tuple[list[tuple[str, str]], set[str]]:
    """Name and output of every convolution and matrix product of an ONNX file, and the outputs that the graph has already."""
    found, known = [], set()
    for graph in messages(data, MODEL_GRAPH):
        known |= {text(name) for output in messages(graph, GRAPH_OUTPUT) for name in messages(output, VALUE_NAME)}
        for node in messages(graph, GRAPH_NODE):
            kept: dict[int, list[str]] = {NODE_INPUT: [], NODE_OUTPUT: [], NODE_NAME: [], NODE_OPERATOR: []}
            for number, value in fields(node):
                if number in kept and isinstance(value, memoryview):
                    kept[number].append(text(value))
            if kept[NODE_OPERATOR][0] in LAYERS:
                found.append((_layer_name(kept[NODE_INPUT], kept[NODE_NAME]), kept[NODE_OUTPUT][0]))
    return found, known


def _layer_name(inputs: list[str], names: list[str]) -> str:
    """The name of the weights where they have one, else that of the node."""
    weight = inputs[1].removeprefix("model.") if len(inputs) > 1 else ""
    return weight.removesuffix(".weight") if weight.endswith(".weight") else (names or [weight or "layer"])[0]


def _open_ir(path: Path, artifact: Artifact) -> tuple[list[str], Run]:
    core = openvino_core()
    model = core.read_model(str(path))
    layers = [one for one in model.get_ordered_ops() if one.get_type_name() in LAYERS and _is_layer(one)]
    wanted = [_with_bias(one) for one in layers]
    model.add_outputs(wanted)  # but for the logits, which are one already
    order = {_maker(result.input_value(0)): i for i, result in enumerate(model.get_results())}
    places = [order[_maker(output)] for output in wanted]
    pre = artifact.preprocess
    model.reshape([BATCH, pre.channels, pre.size, pre.size])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})

    def run(images: UInt8) -> list[Values]:
        filled = np.concatenate([images, np.repeat(images[-1:], BATCH - len(images), axis=0)])
        results = compiled([filled])
        return [np.array(results[place])[: len(images)] for place in places]

    return [one.get_friendly_name().removesuffix(BARE) for one in layers], run


def _maker(output: Any) -> str:
    name: str = output.get_node().get_friendly_name()
    return name


def _with_bias(node: Any) -> Any:
    """The output that ONNX gives the layer: behind the addition of its bias, where OpenVINO has split that off."""
    if node.get_friendly_name().endswith(BARE):
        for target in node.output(0).get_target_inputs():
            if target.get_node().get_type_name() == "Add":
                return target.get_node().output(0)
    return node.output(0)


def _is_layer(node: Any) -> bool:
    """A matrix product of two results is none: it has no weights."""
    return node.get_type_name() != "MatMul" or node.input_value(1).get_node().get_type_name() in ("Constant", "Convert")
