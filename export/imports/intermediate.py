"""A foreign OpenVINO IR behind octc's input. What it is made of is OpenVINO's, so nothing else can be exported from it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from octc.core.errors import OctcError, shorten
from octc.core.optional import need, openvino_core
from octc.export.imports.graph import LAYOUTS, SORTED, Described, choose_size, of_sigmoid, refused
from octc.export.imports.network import ImportedFile
from octc.export.imports.pixels import refuse_twice, steps_of_ir
from octc.export.onnx.float import INPUT, OUTPUT, compare_batches
from octc.export.openvino import MAIN
from octc.imaging.foreign import Foreign
from octc.imaging.preprocess import Float32, Preprocess
from octc.runtimes.safety import scan_ir

TYPES = {"f32": "float32", "f16": "float16", "u8": "uint8"}
PASSING = ("Convert", "Reshape", "Squeeze")


def write_ir(path: Path, foreign: Foreign, output: str | None, folder: Path) -> ImportedFile:
    """Check an IR and write it behind uint8 [N, C, R, R].

    Raises:
        OctcError: E107 no file, E502 no weights beside it or not an IR, E504 operators that are not allowed, E411 it does not
            take one image and give logits, E402 its batch cannot be changed, E104 another size than the preprocessing's, E701
            weights that are no finite numbers.
    """
    openvino = need("openvino")
    model = _read(path)
    _check_finite(model, path)
    known = _describe(model, output)
    choose_size(known, foreign.size, foreign.source)
    if known.type != "uint8":
        refuse_twice(steps_of_ir(model), foreign)
    plain = _compiled(_behind(_read(path), known, Preprocess(foreign.size), foreign, as_uint8=False))
    made = _behind(model, known, foreign.preprocess, foreign, as_uint8=True)
    batches = _batches(made, foreign.preprocess, path, coded=known.precision == "int8")
    openvino.save_model(made, str(folder / MAIN), compress_to_fp16=False)
    files = (folder / MAIN, folder / "model.bin")
    counts = Counter(node.get_type_name() for node in made.get_ops())
    facts = {
        "bytes": sum(one.stat().st_size for one in files), "operators": dict(sorted(counts.items())), "exporter": "imported",
        "batches_run": batches, "writer": f"openvino {openvino.__version__.split('-')[0]}",
    }  # fmt: skip

    def run(images: Float32) -> Float32:
        rows = [np.array(plain(np.ascontiguousarray(one[None]))[0], np.float32) for one in images]
        return np.concatenate(rows)

    return ImportedFile(known, "openvino", files, None, facts, run)


def _batches(made: Any, pre: Preprocess, path: Path, *, coded: bool) -> list[int]:
    """Run it with several batches (OctcError E402 where a reshape inside it is for another one)."""
    compiled = _compiled(made)
    try:
        return compare_batches(
            lambda images: np.array(compiled(images)[0]), pre, path.name, "export it with a dynamic batch", coded=coded
        )
    except OctcError as error:
        text = f"{path.name}: {error.message}"
        raise OctcError(error.code, text, hint=error.hint, place=str(path)) from error


def _read(path: Path) -> Any:
    if not path.is_file():
        raise OctcError("OCT-E107", f"no file {path}", hint="octc import FILE.xml", place=str(path))
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        text = f"the weights of {path.name} are missing: {weights.name} is not beside it"
        raise OctcError("OCT-E502", text, hint=f"copy {weights.name} into {path.parent}", place=str(weights))
    problems = scan_ir(path.read_bytes(), weights.stat().st_size)
    if problems:
        outside = [text for kind, text in problems if kind == "outside"]
        text = f"{path.name} holds what is not allowed: {shorten(outside or list(dict.fromkeys(text for _, text in problems)))}"
        hint = "save it again with openvino.save_model"
        raise OctcError("OCT-E503" if outside else "OCT-E504", text, hint=hint, place=str(path))
    try:
        return openvino_core().read_model(str(path))
    except RuntimeError as error:
        text = f"{path.name} cannot be read as an OpenVINO IR: {(str(error).splitlines() or ['no message'])[-1][:200]}"
        raise OctcError("OCT-E502", text, hint="save it again with openvino.save_model", place=str(path)) from error


def _check_finite(model: Any, path: Path) -> None:
    """Refuse weights that are NaN or infinite: OpenVINO's ReLU makes 0 of NaN, so that the logits may show nothing of it."""
    floats = [node for node in model.get_ops() if node.get_type_name() == "Constant" and node.get_element_type().is_real()]
    bad = [node.get_friendly_name() for node in floats if not np.isfinite(np.asarray(node.data, np.float64)).all()]
    if bad:
        text = f"{path.name} has weights that are not finite: {shorten(bad)}"
        raise OctcError("OCT-E701", text, hint="export trained weights", place=str(path))


def _describe(model: Any, output: str | None) -> Described:
    if len(model.inputs) != 1:
        raise refused(f"{len(model.inputs)} inputs, one image is needed", "export the network with the image as its only input")
    given = model.input(0)
    kind, shape = TYPES.get(given.element_type.get_type_name()), given.partial_shape
    if kind is None or shape.rank.is_dynamic or len(shape) != 4:
        raise refused(f"its input is no picture: {given.element_type.get_type_name()} {shape}", "float32 or uint8 of four axes")
    sides = [side.get_length() if side.is_static else None for side in shape]
    layout = next((name for name, axes in LAYOUTS.items() if sides[axes[0]] in (1, 3)), None)
    if layout is None:
        raise refused(f"its input {shape} has no axis of 1 or 3 channels", "export it with a fixed number of channels")
    channels, height, width = (sides[axis] for axis in LAYOUTS[layout])
    if height is not None and width is not None and height != width:
        raise refused(f"its input takes {height} x {width} px: octc's is square", "export it for square images")
    names = [sorted(one.get_names()) for one in model.outputs]
    if output is None and len(names) != 1:
        raise refused(f"{len(names)} outputs ({shorten([n[0] for n in names if n])})", "--output NAME, the one of the logits")
    place = 0 if output is None else next((i for i, own in enumerate(names) if output in own), -1)
    if place < 0:
        listed = shorten([name for own in names for name in own])
        raise OctcError("OCT-E104", f"no output {output!r}", hint=f"one of: {listed}", place="--output")
    if not (kind_out := model.outputs[place].element_type).is_real():
        text = f"its output is {kind_out.get_type_name()}: the number of a class, and no row of logits"
        raise refused(text, "save the network without what chooses the class")
    types = {node.get_type_name() for node in model.get_ops()}
    precision = "int8" if "FakeQuantize" in types else "fp32"
    return Described("", str(place), kind, layout, int(channels or 3), height or width, precision, _softmax(model, place)[1])


def _softmax(model: Any, place: int) -> tuple[Any, str]:
    """The output of the logits behind an output of a model, and what was left out to have it."""
    source = model.outputs[place].get_node().input_value(0)
    node = source.get_node()
    while node.get_type_name() in PASSING:
        node = node.input_value(0).get_node()
    if node.get_type_name() in ("Softmax", "SoftMax", "LogSoftmax") and node.get_attributes().get("axis") != 0:
        return node.input_value(0), f"{node.get_type_name()} at the end was left out: an artifact gives logits"
    if node.get_type_name() == "TopK":
        raise refused(f"its output is of {SORTED}", "save the network without what sorts its classes")
    if node.get_type_name() == "Sigmoid":
        sides = list(source.get_partial_shape())
        raise of_sigmoid("its output", one=len(sides) == 1 or (not sides[-1].is_dynamic and sides[-1].get_length() == 1))
    return source, ""


def _behind(model: Any, known: Described, pre: Preprocess, foreign: Foreign, *, as_uint8: bool) -> Any:
    """The model behind uint8 [N, C, R, R], or normalised float32 [N, 3, R, R]; its batch is free."""
    openvino = need("openvino")
    ops = openvino.opset13
    logits, _ = _softmax(model, int(known.output))
    try:
        model.reshape(
            [-1, *(side if side.is_dynamic else side.get_length() for side in list(model.input(0).partial_shape)[1:])]
        )
    except RuntimeError as error:
        text = f"its batch cannot be changed: {(str(error).splitlines() or ['no message'])[-1][:200]}"
        raise OctcError("OCT-E402", text, hint="export it with a dynamic batch") from error
    shape = [-1, pre.channels if as_uint8 else 3, pre.size, pre.size]
    image = ops.parameter(openvino.PartialShape(shape), np.uint8 if as_uint8 else np.float32, name=INPUT)
    image.output(0).set_names({INPUT})
    value = image
    if as_uint8:
        scale, shift = (np.asarray(row, np.float32).reshape(1, 3, 1, 1) for row in pre.affine)
        value = ops.subtract(ops.multiply(ops.convert(value, "f32"), scale), shift)
    if foreign.size != pre.size:
        start = foreign.start(pre.size)
        end = start + foreign.size
        value = ops.slice(value, np.array([start, start]), np.array([end, end]), np.array([1, 1]), np.array([2, 3]))
    if known.channels == 1:
        value = ops.slice(value, np.array([0]), np.array([1]), np.array([1]), np.array([1]))
    elif foreign.bgr:
        value = ops.gather(value, np.array([2, 1, 0]), np.array(1))
    if known.type == "uint8":
        value = ops.convert(ops.clamp(ops.round(ops.multiply(value, np.float32(255)), "half_to_even"), 0.0, 255.0), "u8")
    elif known.type == "float16":
        value = ops.convert(value, "f16")
    if known.layout == "nhwc":
        value = ops.transpose(value, np.array([0, 2, 3, 1]))
    for target in model.input(0).get_node().output(0).get_target_inputs():
        target.replace_source_output(value.output(0))
    last = ops.reshape(ops.convert(logits, "f32"), np.array([0, -1]), special_zero=True)
    last.output(0).set_names({OUTPUT})
    return openvino.Model([ops.result(last)], [image], "octc")


def _compiled(model: Any) -> Any:
    return openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
