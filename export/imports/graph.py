"""A foreign ONNX file: what it takes and gives, and the same network behind octc's input.

`read_file` checks, `describe` names the image input and the logits, `compose` puts operators in front of the network so that it
takes what every artifact takes (uint8 [N, C, R, R]) or what every torch network of the house takes (normalised [N, 3, R, R]).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from octc.core.errors import OctcError, first_line, shorten
from octc.export.formats import FORMATS
from octc.export.onnx.domains import spell_domains
from octc.export.onnx.float import INPUT, OUTPUT, opset_of
from octc.imaging.foreign import Foreign
from octc.runtimes.onnx_reader import scan_onnx
from octc.runtimes.safety import ONNX_OPERATORS
from octc.store.artifacts import LARGEST

LOWEST = 13  # opset: from here on one channel a scale may be quantised, and Squeeze takes its axes as an input
FREE = 4  # file format: from here on a weight need not be an input
PLACED = 11  # opset: from here on Resize says where it samples; before, always at "asymmetric" places
TYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.UINT8: "uint8"}
LAYOUTS = {"nchw": (1, 2, 3), "nhwc": (3, 1, 2)}  # axes of channels, height, width
CODES = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32)  # of values, and of biases
PASSING = ("Identity", "Cast", "Flatten", "Reshape", "Squeeze")  # what may stand behind a softmax
ONE_LOGIT = (
    "two classes have two logits: give a module whose forward returns torch.cat([torch.zeros_like(z), z], 1) for the one "
    "logit z [N, 1], in front of a sigmoid"
)
CONTROL = frozenset(("If", "Loop", "Scan"))
SORTED = "TopK: the largest values first, and no longer the classes in their order"
PREFIX = "octc"
FLOATS = (0, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)  # 0: it is not stated


@dataclass(frozen=True)
class Described:
    """What a foreign graph takes and gives.

    Attributes:
        input, output: their names. type: a value of TYPES. layout: a key of LAYOUTS. channels: 1 or 3.
        size: side in pixels, None where it is free. logits: how the output became logits, "" where it was.
        batch: where the file has a fixed one.
    """

    input: str
    output: str
    type: str
    layout: str
    channels: int
    size: int | None
    precision: str
    logits: str = ""
    batch: int | None = None


def refused(text: str, hint: str, place: str | None = None, why: str | None = None) -> OctcError:
    """A file that cannot become an artifact (E411)."""
    return OctcError("OCT-E411", text, hint=hint, place=place, why=why)


def read_file(path: Path) -> onnx.ModelProto:
    """An ONNX file with all its weights, those in files beside it too; nothing outside its folder is opened.

    Raises:
        OctcError: E107 no file, E502 no ONNX, or external data that is missing, E503 external data outside the folder,
            E504 operators that are not allowed or too large, E401 an opset that is too old or too new, E411 a file of training,
            or codes of other than 8 bits.
    """
    if not path.is_file():
        raise OctcError("OCT-E107", f"no file {path}", hint="octc import FILE.onnx", place=str(path))
    try:
        facts = scan_onnx(path)
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's errors share no base class with octc's reader's
        text = f"{path.name} cannot be read as ONNX: {first_line(error)}"
        hint = "export it again, as ONNX"
        if path.read_bytes()[:2] in (b"PK", b"\x80\x02"):
            text = f"{path.name} is a file of torch.save, and no ONNX: weights, without the network that they are of"
            hint = "torch.onnx.export(model, ...) in the program that builds the network; octc.quantize takes its module"
        raise OctcError("OCT-E502", text, hint=hint, place=str(path)) from error
    spell_domains(proto)
    _load_external(proto, path)
    foreign = sorted(f"{d}::{n}" if d else n for d, n in facts.operators if d not in ("", "ai.onnx") or n not in ONNX_OPERATORS)
    if foreign or facts.subgraphs or facts.functions:
        extra = [f"{facts.subgraphs} subgraphs"] * bool(facts.subgraphs) + [f"{facts.functions} functions"] * bool(
            facts.functions
        )
        text = f"{path.name} holds what an inference graph of a classifier has not: {shorten([*foreign, *extra])}"
        raise OctcError("OCT-E504", text, hint=_instead(foreign, facts.functions), place=str(path))
    _check_versions(proto, path)
    _check_training(proto, path)
    _check_codes(proto, path)
    return proto


def _instead(foreign: Sequence[str], functions: int) -> str:
    """What makes a file of operators of ai.onnx out of one that has others."""
    if "ai.onnx.ml::ZipMap" in foreign:
        return "convert it without ZipMap: options={'zipmap': False} of skl2onnx; onnx.utils.extract_model cuts it off"
    names = {name.removeprefix("com.microsoft::") for name in foreign if name.startswith("com.microsoft::")}
    if any(name.startswith(("QLinear", "QGemm")) for name in names):
        return "quantize_static(..., quant_format=QuantFormat.QDQ), on the file before quantisation"
    if names & {"QuantizeLinear", "DequantizeLinear"}:
        return "quantize_static(..., activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)"
    if names:
        return "the file as it was before ONNX Runtime optimised it: operators of com.microsoft run in ONNX Runtime only"
    if functions:
        return "import onnx.inliner; onnx.inliner.inline_local_functions(model) puts the functions' operators into the graph"
    if CONTROL & set(foreign) or any("Sequence" in name for name in foreign):
        return (
            "torch.onnx.export(..., dynamo=True) writes graphs without branches, loops and sequences; where a condition is a "
            "constant, ONNX Runtime takes the branch: graph_optimization_level=ORT_ENABLE_BASIC, optimized_model_filepath=FILE"
        )
    if all("::" not in name for name in foreign):
        return "write the network without them: an artifact holds the operators of runtimes/safety.py, and no others"
    return "export the network in eval mode, with operators of ai.onnx only"


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Tensors that stand in the file, by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def _check_training(proto: onnx.ModelProto, path: Path) -> None:
    """A norm that takes the statistics of its batch, or dropout that drops, belongs to training."""
    known = _constants(proto.graph)
    for node in proto.graph.node:
        norm = node.op_type == "BatchNormalization" and any(one.name == "training_mode" and one.i for one in node.attribute)
        mode = known.get(node.input[2]) if node.op_type == "Dropout" and len(node.input) > 2 else None
        if norm or (mode is not None and mode.data_type == TensorProto.BOOL and bool(numpy_helper.to_array(mode).any())):
            text = f"{path.name} was exported in training mode: {node.op_type} {node.name or node.output[0]}"
            raise refused(text, "torch.onnx.export(model.eval(), ...)", str(path))


def _check_codes(proto: onnx.ModelProto, path: Path) -> None:
    """What is quantised has codes of 8 bits: an artifact that is called INT8 is nothing else."""
    known, kinds = _constants(proto.graph), Counter[int]()
    for node in proto.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = known.get(node.input[2]) if len(node.input) > 2 else None
        codes = known.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        stated = [one.i for one in node.attribute if one.name == "output_dtype" and node.op_type == "QuantizeLinear"]
        kinds.update({one.data_type for one in (zero, codes) if one is not None} | {one for one in stated if one})
    if other := sorted(TensorProto.DataType.Name(one).lower() for one in kinds if one not in CODES):
        text = f"{path.name} is quantised to {', '.join(other)}: INT8 is what octc compares, times and runs"
        hint = "quantize_static(..., activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)"
        raise refused(text, hint, str(path))
    scales = [(node, known.get(node.input[1])) for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    if bad := [node.name or node.output[0] for node, one in scales if one is not None and not _divides(one)]:
        text = f"{path.name} divides by a scale of 0, or one that is not finite: {shorten(bad)}"
        raise refused(text, "calibrate again; octc lint FILE.onnx --target onnx names the scales", str(path))


def _divides(scale: onnx.TensorProto) -> bool:
    """Whether a scale is one that values can be divided by."""
    values = numpy_helper.to_array(scale).astype(np.float64)
    return bool(np.isfinite(values).all() and (values != 0).all())


def _load_external(proto: onnx.ModelProto, path: Path) -> None:
    """Weights that lie beside the file become part of it."""
    inside = [one.t for node in proto.graph.node for one in node.attribute if one.HasField("t")]
    outside = [one for one in (*proto.graph.initializer, *inside) if one.data_location == TensorProto.EXTERNAL]
    names = {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"}
    for name in sorted(names):
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name or (path.parent / name).is_symlink():
            text = f"{path.name} keeps its weights outside its folder: {name!r}"
            raise OctcError("OCT-E503", text, hint="export it as one file (external_data=False)", place=str(path))
        if not (path.parent / name).is_file():
            text = f"the weights of {path.name} are missing: they lie in {name}, which is not beside it"
            raise OctcError("OCT-E502", text, hint=f"copy {name} into {path.parent}", place=str(path.parent / name))
    if sum((path.parent / name).stat().st_size for name in names) > LARGEST:
        raise OctcError(
            "OCT-E504", f"{path.name} has more than {LARGEST} bytes of weights", hint="a smaller network", place=str(path)
        )
    if outside:
        try:
            onnx.external_data_helper.load_external_data_for_model(proto, str(path.parent))
        except Exception as error:  # of onnx's checker, of the file system
            text = f"the weights of {path.name} cannot be read: {str(error)[:200]}"
            raise OctcError("OCT-E502", text, hint="export it again", place=str(path)) from error
        for tensor in outside:
            tensor.ClearField("external_data")
            tensor.data_location = TensorProto.DEFAULT


def _check_versions(proto: onnx.ModelProto, path: Path) -> None:
    reads = FORMATS["onnx"].reads
    assert reads is not None  # the row of ONNX has one
    found = opset_of(proto) if any(entry.domain in ("", "ai.onnx") for entry in proto.opset_import) else 0
    if not LOWEST <= found <= reads.highest:
        text = f"{path.name} has opset {found}; {LOWEST} to {reads.highest} are read on a device"
        hint = "torch.onnx.export(..., opset_version=18), or onnx.version_converter.convert_version(model, 18)"
        resized = [node.name or node.op_type for node in proto.graph.node if node.op_type in ("Resize", "Upsample")]
        if found < PLACED and resized:  # the converter leaves the default of opset 11, which samples elsewhere
            placed = 'coordinate_transformation_mode="asymmetric" (and nearest_mode="floor" where it is nearest)'
            hint += f", then {placed} in {shorten(resized)}, which the converter leaves out"
        raise OctcError("OCT-E401", text, hint=hint, place=str(path))
    # newer formats say nothing that these opsets use; in those before 4 every weight is an input too
    proto.ir_version = max(min(proto.ir_version, reads.ir), FREE)


def describe(proto: onnx.ModelProto, output: str | None = None) -> Described:
    """The image input, the output of one row of numbers an image, the precision. A softmax at the end is taken away.

    Raises:
        OctcError: E411 another number of inputs than one, no picture, an input that is not square, several outputs and none
            named, an output that is no row of logits.
    """
    graph = proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = shorten([value.name for value in inputs]) or "none"
        raise refused(
            f"{len(inputs)} inputs ({names}), one image is needed", "export the network with the image as its only input"
        )
    value = inputs[0].type.tensor_type
    kind = TYPES.get(value.elem_type)
    shape = [
        dim.dim_value if dim.dim_value > 0 else None for dim in value.shape.dim
    ]  # some exporters write -1 where it is free
    if kind is None or len(shape) != 4:
        text = f"{inputs[0].name} is no picture: {TensorProto.DataType.Name(value.elem_type).lower()} {shape}"
        raise refused(text, "float32, float16 or uint8 of [N, channels, height, width] or [N, height, width, channels]")
    layout = next((name for name, axes in LAYOUTS.items() if shape[axes[0]] in (1, 3)), None)
    if layout is None:
        raise refused(f"{inputs[0].name} {shape} has no axis of 1 or 3 channels", "export it with a fixed number of channels")
    channels, height, width = (shape[axis] for axis in LAYOUTS[layout])
    if height is not None and width is not None and height != width:
        raise refused(f"{inputs[0].name} takes {height} x {width} px: octc's input is square", "export it for square images")
    name = _output(proto, output)
    found, words = _logits_of(graph, name)
    return Described(
        inputs[0].name, found, kind, layout, int(channels or 3), height or width, _precision(proto), words, shape[0]
    )


def _output(proto: onnx.ModelProto, named: str | None) -> str:
    names = [str(value.name) for value in proto.graph.output]
    if named is not None:
        if named not in names:
            raise OctcError("OCT-E104", f"no output {named!r}", hint=f"one of: {shorten(names)}", place="--output")
        return named
    if len(names) != 1:
        floats = [str(one.name) for one in proto.graph.output if one.type.tensor_type.elem_type in FLOATS]
        raise refused(f"{len(names)} outputs ({shorten(names)})", f"--output {[*floats, 'NAME'][0]}, the one of the logits")
    return names[0]


def _logits_of(graph: onnx.GraphProto, name: str) -> tuple[str, str]:
    """The tensor of the logits behind an output, and what was left out to have it: a choice of the class, a softmax."""
    makers = {out: node for node in graph.node for out in node.output}
    found, left = name, []
    for kinds in (("ArgMax", "Hardmax"), ("Softmax", "LogSoftmax")):
        node, passed = makers.get(found), 0
        while node is not None and node.op_type in PASSING and passed < len(graph.node):
            node, passed = makers.get(node.input[0]), passed + 1
        if node is not None and node.op_type in kinds and _over_classes(node):
            found = str(node.input[0])
            left.append(node.op_type)
        elif node is not None and node.op_type == "Sigmoid":
            given = next(one.type.tensor_type.shape.dim for one in graph.output if one.name == name)
            raise of_sigmoid(name, one=len(given) == 1 or (len(given) > 1 and given[-1].dim_value == 1))
        elif node is not None and node.op_type == "TopK":
            raise refused(f"{name} is of {SORTED}", "export the network without what sorts its classes")
    given = {one.name: one.type.tensor_type.elem_type for one in graph.output}
    if not left and given.get(name, 0) not in FLOATS:
        kind = TensorProto.DataType.Name(given[name]).lower()
        raise refused(
            f"{name} is {kind}: the number of a class, and no row of logits", "export the network without what chooses"
        )
    return found, f"{' behind '.join(left)} at the end was left out: an artifact gives logits" if left else ""


def of_sigmoid(name: str, *, one: bool) -> OctcError:
    """An output that is a sigmoid. one: of a single number an image."""
    if one:
        return refused(f"{name} is a sigmoid of one number an image: the probability of one of two classes", ONE_LOGIT)
    text = f"{name} is a sigmoid: probabilities of labels that do not exclude each other"
    return refused(text, "import a network that gives one logit for each class, of which one holds")


def _over_classes(node: onnx.NodeProto) -> bool:
    """Whether a softmax, or a choice, is over the classes and not over the images."""
    axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    return axes != [0] and not (node.op_type == "ArgMax" and not axes)


def _precision(proto: onnx.ModelProto) -> str:
    operators = {node.op_type for node in proto.graph.node}
    if operators & {"QuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}:
        return "int8"
    halves = sum(int(np.prod(t.dims)) for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT16)
    floats = sum(int(np.prod(t.dims)) for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT)
    return "fp16" if halves > floats else "fp32"


def compose(proto: onnx.ModelProto, known: Described, foreign: Foreign, *, as_uint8: bool) -> onnx.ModelProto:
    """The network behind an input of octc's own: "image" -> "logits", batch axis free.

    Args:
        foreign: where the network sees less than what is resized to, the middle is cut out in the graph.
        as_uint8: takes uint8 [N, C, R, R] and normalises; else normalised float32 [N, 3, R, R].
    """
    pre, size = foreign.preprocess, foreign.size
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    graph = made.graph
    names = _rename(graph, {INPUT, OUTPUT})
    given, result = names.get(known.input, known.input), names.get(known.output, known.output)
    if known.batch == 1:
        _free_batch(graph)
    often = Counter(node.name for node in graph.node)
    for node in graph.node:  # names of nodes are labels; ONNX Runtime opens no file where two are alike
        node.name = node.name if often[node.name] == 1 else ""
    nodes: list[onnx.NodeProto] = []
    taken = {out for node in graph.node for out in node.output} | {tensor.name for tensor in graph.initializer}
    own = _Names(nodes, graph, taken)
    channels = pre.channels if as_uint8 else 3
    value = INPUT
    if as_uint8:
        scale, shift = (np.asarray(row, np.float32).reshape(1, 3, 1, 1) for row in pre.affine)
        value = own("Cast", [value], to=TensorProto.FLOAT)
        value = own("Mul", [value, own.constant("scale", scale)])  # grey is spread to three channels
        value = own("Sub", [value, own.constant("shift", shift)])
    if size != pre.size:
        start = foreign.start(pre.size)
        ends = [own.constant(name, np.asarray(row, np.int64)) for name, row in
                (("starts", [start, start]), ("ends", [start + size, start + size]), ("axes", [2, 3]))]  # fmt: skip
        value = own("Slice", [value, *ends])
    value = _as_known(own, value, known, foreign)
    for node in graph.node:
        node.input[:] = [value if name == given else name for name in node.input]
    tail: list[onnx.NodeProto] = []
    after = _Names(tail, graph, taken)
    last = after("Cast", [result], to=TensorProto.FLOAT)
    tail.append(helper.make_node("Flatten", [last], [OUTPUT], name=f"{PREFIX}/Flatten", axis=1))
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *body, *tail])
    kept = [v for v in graph.input if v.name in {t.name for t in graph.initializer}]
    del graph.input[:], graph.output[:]
    kind = TensorProto.UINT8 if as_uint8 else TensorProto.FLOAT
    graph.input.append(helper.make_tensor_value_info(INPUT, kind, ["batch", channels, pre.size, pre.size]))
    graph.input.extend(kept)
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", "classes"]))
    _prune(graph)
    return made


def _as_known(own: _Names, value: str, known: Described, foreign: Foreign) -> str:
    """Normalised float32 [N, 3, R, R] as the foreign network takes it: channels and their order, type, layout."""
    if known.channels == 1:
        rows = [own.constant(name, np.asarray(row, np.int64)) for name, row in (("first", [0]), ("last", [1]), ("axis", [1]))]
        value = own("Slice", [value, *rows])
    elif foreign.bgr:
        value = own("Gather", [value, own.constant("order", np.asarray([2, 1, 0], np.int64))], axis=1)
    if known.type == "uint8":
        value = own("Mul", [value, own.constant("levels", np.asarray(255, np.float32))])
        value = own("Clip", [own("Round", [value]), own.constant("low", np.float32(0)), own.constant("high", np.float32(255))])
        value = own("Cast", [value], to=TensorProto.UINT8)
    elif known.type == "float16":
        value = own("Cast", [value], to=TensorProto.FLOAT16)
    if known.layout == "nhwc":
        value = own("Transpose", [value], perm=[0, 2, 3, 1])
    return value


def _free_batch(graph: onnx.GraphProto) -> None:
    """Where a batch of 1 stands in the shape of a Reshape, or in the places that a Gather takes out of a flattened tensor (so
    torch writes as_strided), take that of what is reshaped. Whoever runs the file with batches of several images sees whether
    the rows are still those of single ones."""
    holders = _constants(graph)
    flat: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in holders:
            values = numpy_helper.to_array(holders[node.input[1]])
            if values.tolist() == [-1] and node.input[0] not in holders:
                flat[node.output[0]] = node
            zeros = any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute)
            if values.size > 1 and values[0] == 1 and not (zeros and (values == 0).any()):
                _reshaped(graph, node, [0, *values[1:]])
    readers = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in flat and node.input[1] in holders and readers[node.input[0]] == 1:
            places = numpy_helper.to_array(holders[node.input[1]])
            if places.ndim > 1 and len(places) == 1 and all(one.name == "axis" and one.i == 0 for one in node.attribute):
                _reshaped(graph, flat[node.input[0]], [0, -1])
                _replace(graph, node, "places", places[0])
                del node.attribute[:]
                node.attribute.append(helper.make_attribute("axis", 1))


def _reshaped(graph: onnx.GraphProto, node: onnx.NodeProto, shape: Sequence[int]) -> None:
    """Give a Reshape another shape, in which 0 stands for the length that is there."""
    kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
    del node.attribute[:]
    node.attribute.extend(kept)
    _replace(graph, node, "shape", np.asarray(shape, np.int64))


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, word: str, values: Any) -> None:
    """A constant of the node's own in place of its second input, which others may read too."""
    own = numpy_helper.from_array(np.ascontiguousarray(values), f"{PREFIX}/{word} of {node.name or node.output[0]}")
    graph.initializer.append(own)
    node.input[1] = own.name


def _rename(graph: onnx.GraphProto, taken: set[str]) -> dict[str, str]:
    """Give tensors of the foreign graph that are called as octc's own another name; old name -> new name."""
    new = {name: f"foreign/{name}" for name in taken}
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for value in (*graph.initializer, *graph.input, *graph.output):
        value.name = new.get(value.name, value.name)
    return new


class _Names:
    """Makes nodes and constants whose names no foreign graph has."""

    def __init__(self, nodes: list[onnx.NodeProto], graph: onnx.GraphProto, taken: set[str]) -> None:
        self._nodes, self._graph, self._taken = nodes, graph, taken

    def __call__(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = self._free(operator)
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, word: str, value: Any) -> str:
        name = self._free(word)
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _free(self, word: str) -> str:
        name, count = f"{PREFIX}/{word}", 1
        while name in self._taken:
            name, count = f"{PREFIX}/{word}_{count}", count + 1
        self._taken.add(name)
        return name


def _prune(graph: onnx.GraphProto) -> None:
    """Take away what leads to no output any more (a softmax, heads that were not named), and shapes that were inferred."""
    wanted, kept = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    constants = [tensor for tensor in graph.initializer if tensor.name in wanted]
    inputs = [value for value in graph.input if value.name in wanted or value.name == INPUT]
    del graph.node[:], graph.initializer[:], graph.input[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)
    graph.input.extend(inputs)


def choose_size(known: Described, size: int, source: str) -> None:
    """Refuse a preprocessing of another size than the graph takes (E104)."""
    if known.size not in (None, size):
        text = f"the network takes {known.size} px, its preprocessing ({source}) makes {size} px"
        raise OctcError(
            "OCT-E104",
            text,
            hint=f"give the preprocessing that it was exported with, for {known.size} px",
            place="--preprocess",
        )
