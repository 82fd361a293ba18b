"""octc.import_model: ONNX files and OpenVINO IR of other people become artifacts that answer as the network did."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
import onnxruntime
import openvino
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

import octc
from octc.core.errors import OctcError
from octc.datasets.synthetic.bscans import draw_phantom
from octc.export.golden import are_probabilities
from octc.export.imports.presets import read_preset
from octc.runtimes.onnx_reader import convolution_precisions
from octc.stats.metrics import softmax
from octc.store.artifacts import read_artifact

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PRE = {"size": 48, "channels": 3, "mean": MEAN, "std": STD}
Write = Callable[..., Path]


class Network(nn.Module):
    """A network whose logits tell colours, places and levels apart. kind: how it is fed and what it gives."""

    def __init__(self, kind: str = "plain") -> None:
        super().__init__()
        torch.manual_seed(3)
        self.kind = kind
        self.stem = nn.Conv2d(1 if kind == "grey" else 3, 8, 5, stride=3)
        self.head = nn.Linear(8 * 9, 4)

    def forward(self, x: torch.Tensor) -> Any:
        if self.kind == "nhwc":
            x = x.permute(0, 3, 1, 2)
        if self.kind == "uint8":
            x = (x.float() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
        x = nn.functional.adaptive_avg_pool2d(torch.relu(self.stem(x)), 3)
        if self.kind == "strided":  # as torch writes the pooling of a ConvNeXt: places in the flattened tensor
            x = torch.as_strided(x, (1, 8, 3, 3), (72, 9, 1, 3))
        logits = self.head(x.flatten(1))
        if self.kind == "softmax":
            return logits.softmax(dim=1)
        if self.kind == "sigmoid":
            return logits.sigmoid()
        if self.kind == "maps":
            return logits[:, :, None, None]
        if self.kind == "choice":
            return logits.softmax(dim=1).argmax(dim=1)
        if self.kind == "one logit":
            return logits[:, :1]
        return (logits, x) if self.kind == "two" else logits


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Export a `Network` as people do, one image as the example: once for all tests here. The folder that it lies in."""
    base = tmp_path_factory.mktemp("exported")

    def call(kind: str, *, dynamic: bool, external: bool, size: int) -> Path:
        folder = base / f"{kind}-{dynamic}-{external}-{size}"
        if folder.exists():
            return folder
        folder.mkdir()
        shape = (1, size, size, 3) if kind == "nhwc" else (1, 1 if kind == "grey" else 3, size, size)
        example = torch.zeros(shape, dtype=torch.uint8 if kind == "uint8" else torch.float32)
        shapes: Any = ({0: torch.export.Dim("batch")},) if dynamic else None
        if dynamic:
            example = example.repeat(2, 1, 1, 1)
        torch.onnx.export(
            Network(kind).eval(), (example,), str(folder / f"{kind}.onnx"), dynamo=True, external_data=external, verbose=False,
            dynamic_shapes=shapes,
        )  # fmt: skip
        return folder

    return call


@pytest.fixture
def write(exported: Write, tmp_path: Path) -> Write:
    """A copy of the file of such a network, with what lies beside it."""

    def call(kind: str = "plain", *, dynamic: bool = False, external: bool = False, size: int = 48) -> Path:
        shutil.copytree(exported(kind, dynamic=dynamic, external=external, size=size), tmp_path, dirs_exist_ok=True)
        return tmp_path / f"{kind}.onnx"

    return call


def picture(width: int = 90, height: int = 60) -> Image.Image:
    """Colours and edges."""
    rng = np.random.default_rng(1)
    smooth = np.kron(rng.integers(0, 256, (height // 10, width // 10, 3)), np.ones((10, 10, 1)))
    return Image.fromarray(np.clip(smooth + rng.normal(0, 9, smooth.shape), 0, 255).astype(np.uint8))


def answer(kind: str, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Probabilities that the torch network gives for uint8 [3, H, W]."""
    x = torch.from_numpy(pixels.astype(np.float32) / 255)[None]
    x = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    model = Network(kind).eval()
    with torch.no_grad():
        if kind == "uint8":
            found = model(torch.tensor(pixels)[None])
        elif kind == "nhwc":
            found = model(x.permute(0, 2, 3, 1))
        else:
            found = model(x[:, :1] if kind == "grey" else x)
    logits = found[0] if kind == "two" else found
    if kind == "choice":
        return answer("plain", pixels)
    if kind == "softmax":
        return np.asarray(logits.numpy())[0]
    return softmax(logits.numpy().reshape(1, -1).astype(np.float64))[0]


def seen() -> np.ndarray[Any, Any]:
    """The picture as networks of 48 px see it, uint8 [3, 48, 48]."""
    return np.asarray(picture().resize((48, 48), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def predicted(made: octc.Imported, tmp_path: Path) -> list[float]:
    """Probabilities of the picture, by the artifact."""
    picture().save(tmp_path / "seen.png")
    with octc.load(made.folder, threads=1) as model:
        (found,) = model.predict([tmp_path / "seen.png"])
    return list((found.probabilities or {}).values())


KINDS = ("plain", "nhwc", "grey", "uint8", "softmax", "maps", "two", "strided", "choice")


@pytest.mark.parametrize(("kind", "dynamic"), [*((kind, False) for kind in KINDS), ("plain", True)])
def test_an_artifact_answers_as_the_network_did(kind: str, dynamic: bool, write: Write, tmp_path: Path) -> None:
    file = write(kind, dynamic=dynamic)
    first = onnx.load(str(file)).graph.output[0].name
    given = {**PRE, "mean": (0.0,) * 3, "std": (1.0,) * 3} if kind == "uint8" else PRE
    options = octc.ImportOptions(out=str(tmp_path / "out"), output=first if kind == "two" else None, name="theirs")
    made = octc.import_model(file, given, CLASSES, options=options)
    artifact = read_artifact(made.folder)
    assert artifact.details["batches_run"] == [1, 2, 5]
    assert artifact.lineage["run"] is None
    assert artifact.model == "theirs"
    assert made.difference["levels_max"] == 0
    assert ("Softmax at the end" in " ".join(made.notes)) == (kind in ("softmax", "choice"))
    image = picture()
    image.save(tmp_path / "a.png")
    with octc.load(made.folder, threads=1) as model:
        (found,) = model.predict([tmp_path / "a.png"])
    resized = np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert found.probabilities is not None
    np.testing.assert_allclose(list(found.probabilities.values()), answer(kind, resized), atol=2e-5)


def test_an_ir_of_openvino_answers_as_the_network_did(write: Write, tmp_path: Path) -> None:
    for kind in ("plain", "softmax", "nhwc"):
        core = openvino.Core().read_model(str(write(kind, dynamic=True)))
        openvino.save_model(core, str(tmp_path / f"{kind}.xml"), compress_to_fp16=False)
        made = octc.import_model(tmp_path / f"{kind}.xml", PRE, CLASSES, options=octc.ImportOptions(out=str(tmp_path / kind)))
        assert (made.artifact.target, made.artifact.precision) == ("openvino", "fp32")
        picture().save(tmp_path / "a.png")
        with octc.load(made.folder, threads=1) as model:
            (found,) = model.predict([tmp_path / "a.png"])
        resized = np.asarray(picture().resize((48, 48), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert found.probabilities is not None
        np.testing.assert_allclose(list(found.probabilities.values()), answer(kind, resized), atol=2e-5)
    (tmp_path / "plain.bin").unlink()
    with pytest.raises(OctcError, match=r"plain\.bin is not beside it") as caught:
        octc.import_model(tmp_path / "plain.xml", PRE, CLASSES)
    assert caught.value.code == "OCT-E502"


def test_a_middle_that_is_cut_out_and_turned_colours_are_in_the_graph(write: Write, tmp_path: Path) -> None:
    """Square pictures: resize to 60, the middle 48, blue first. All of it is matched: the answers are those of the source."""
    stated = {
        "do_resize": True, "size": {"shortest_edge": 60}, "do_center_crop": True, "crop_size": {"height": 48, "width": 48},
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN, "image_std": STD,
        "resample": 3, "do_flip_channel_order": True, "image_processor_type": "X",
    }  # fmt: skip
    made = octc.import_model(write(), stated, CLASSES, options=octc.ImportOptions(out=str(tmp_path / "out")))
    assert made.artifact.preprocess.size == 60
    image = picture(80, 80)
    image.save(tmp_path / "a.png")
    with octc.load(made.folder, threads=1) as model:
        (found,) = model.predict([tmp_path / "a.png"])
    seen = np.asarray(image.resize((60, 60), Image.Resampling.BICUBIC)).transpose(2, 0, 1)[:, 6:54, 6:54]
    # the network takes blue first, and its mean and std are those of the channels as they are named
    x = (seen / 255 - np.array(MEAN).reshape(3, 1, 1)) / np.array(STD).reshape(3, 1, 1)
    with torch.no_grad():
        logits = Network().eval()(torch.from_numpy(np.ascontiguousarray(x[::-1]).astype(np.float32))[None])
    assert found.probabilities is not None
    np.testing.assert_allclose(list(found.probabilities.values()), softmax(logits.numpy().astype(np.float64))[0], atol=2e-5)


def test_what_is_not_matched_is_said_with_its_difference_on_ten_images(write: Write, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(12):
        draw_phantom("CNV", i, i, (150, 90)).save(tmp_path / "images" / f"{i}.png")
    stated = {"crop_size": [48], "resize_size": [60], "mean": MEAN, "std": STD, "antialias": False}
    options = octc.ImportOptions(out=str(tmp_path / "out"), images=str(tmp_path / "images"))
    made = octc.import_model(write(), stated, CLASSES, options=options)
    found = made.difference
    assert found["pictures"] == 10
    assert found["levels_mean"] > 3
    assert found["delta_over_s"] > 0.01
    (note,) = made.notes
    assert "aspect ratio is kept" in note
    assert "without antialiasing" in note
    assert f"{found['changed']} answers are others" in note
    kept = read_artifact(made.folder).details["imported"]
    assert kept["difference"] == found
    assert kept["preprocessing"]["source"] == "torchvision"


def _behind(proto: onnx.ModelProto, kind: str, *values: Any) -> None:
    """One more operator at the end, with constants as its further inputs."""
    output, names = proto.graph.output[0].name, [f"{kind}_{k}" for k in range(len(values))]
    for node in proto.graph.node:
        node.output[:] = [f"before_{kind}" if name == output else name for name in node.output]
        node.input[:] = [f"before_{kind}" if name == output else name for name in node.input]
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for v, n in zip(values, names, strict=True))
    proto.graph.node.append(helper.make_node(kind, [f"before_{kind}", *names], [output], name=kind))


def _ended(proto: onnx.ModelProto, how: str) -> None:
    """The network gives its logits from the largest on, or percent."""
    last, end = proto.graph.output[0].name, "percent" if how == "percent" else "values"
    values = {"all": np.array([len(CLASSES)]), "hundred": np.float32(100)}
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    share = helper.make_node("Softmax", [last], ["share"], axis=1)
    percent = [share, helper.make_node("Mul", ["share", "hundred"], ["percent"])]
    proto.graph.node.extend(
        percent if how == "percent" else [helper.make_node("TopK", [last, "all"], ["values", "places"], axis=1)]
    )
    proto.graph.output[0].name = end


def _in_front(proto: onnx.ModelProto, how: str) -> None:
    """The network takes pixels from 0 to 255 and normalises them itself, as Keras' do."""
    name, means = proto.graph.input[0].name, np.array([124, 116, 104], np.float32).reshape(1, 3, 1, 1)
    kind, value = ("Sub", means) if "means" in how else ("Div", np.array(255, np.float32))
    proto.graph.initializer.append(numpy_helper.from_array(value, "levels"))
    for node in proto.graph.node:
        node.input[:] = ["inside" if one == name else one for one in node.input]
    proto.graph.node.insert(0, helper.make_node(kind, [name, "levels"], ["inside"]))


def damaged(write: Write, how: str, tmp_path: Path) -> tuple[Path, dict[str, Any]]:  # noqa: C901, PLR0915 - a table of cases
    """A file that cannot be imported, and the options it is tried with."""
    path = tmp_path / "bad.onnx"
    more: dict[str, Any] = {}
    if how == "two outputs":
        return write("two"), more
    if how == "no such output":
        return write("two"), {"output": "nothing"}
    if how == "a number for a class":
        openvino.save_model(openvino.Core().read_model(str(write("choice"))), str(tmp_path / "bad.xml"))
        return tmp_path / "bad.xml", more
    if how in ("sigmoid", "one logit"):
        return write(how), more
    if how == "weights missing":
        write("plain", external=True)
        (tmp_path / "plain.onnx.data").rename(tmp_path / "elsewhere.data")
        return tmp_path / "plain.onnx", more
    if how == "another size":
        return write(size=64), more
    proto = onnx.load(str(write("one logit" if how.startswith("one sigmoid") else "plain")))
    if how.startswith("one sigmoid"):
        _behind(proto, "Sigmoid")
    if how == "no onnx":
        path.write_bytes(b"hello" * 50)
        return path, more
    if how == "of torch.save":
        torch.save(Network().state_dict(), path)
        return path, more
    if how == "two inputs":
        proto.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, [1]))
    if how == "no picture":
        proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    if how == "not square":
        proto.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 64
    if how == "old opset":
        proto.opset_import[0].version = 9
    if how == "new opset":
        proto.opset_import[0].version = 26
    if how == "operator of its own":
        proto.graph.node[0].domain = "com.example"
        proto.opset_import.append(helper.make_opsetid("com.example", 1))
    if how == "outside":
        tensor = proto.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../etc/passwd")
    if how == "dropout that drops":
        _behind(proto, "Dropout", np.float32(0.5), np.array(True))
    if how == "codes of 16 bits":
        _behind(proto, "QuantizeLinear", np.float32(0.1), np.int16(0))
        _behind(proto, "DequantizeLinear", np.float32(0.1), np.int16(0))
    if how == "a scale of 0":
        _behind(proto, "QuantizeLinear", np.float32(0), np.uint8(0))
        _behind(proto, "DequantizeLinear", np.float32(0.1), np.uint8(0))
    if how.startswith("a column an image"):
        proto.graph.node.append(helper.make_node("Transpose", [proto.graph.output[0].name], ["columns"], perm=[1, 0]))
        proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("columns", TensorProto.FLOAT, [len(CLASSES), "n"]))
    if how.startswith("softmax over images"):
        last = proto.graph.output[0].name
        proto.graph.node.append(helper.make_node("Softmax", [last], ["shares"], axis=0))
        proto.graph.output[0].name = "shares"
    if "255 inside" in how:
        _in_front(proto, how)
    if how.startswith("sorted") or how == "percent":
        _ended(proto, how)
    if how.endswith("as an IR"):
        path.write_bytes(proto.SerializeToString())
        openvino.save_model(openvino.Core().read_model(str(path)), str(tmp_path / "bad.xml"))
        return tmp_path / "bad.xml", more
    if how == "not valid":
        proto.graph.node[0].output[0] = proto.graph.node[1].output[0]
    if how == "not finite":
        weights = numpy_helper.to_array(proto.graph.initializer[0]) * np.nan
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, proto.graph.initializer[0].name))
    path.write_bytes(proto.SerializeToString())
    return path, more


@pytest.mark.parametrize(("how", "code", "words"), [
    ("two outputs", "OCT-E411", "2 outputs"),
    ("no such output", "OCT-E104", "no output 'nothing'"),
    ("sigmoid", "OCT-E411", "do not exclude each other"),
    ("one logit", "OCT-E411", "one number an image"),
    ("one sigmoid", "OCT-E411", "the probability of one of two classes"),
    ("one sigmoid, as an IR", "OCT-E411", "the probability of one of two classes"),
    ("softmax over images, as an IR", "OCT-E402", "other logits than alone"),
    ("a number for a class", "OCT-E411", "the number of a class"),
    ("sorted", "OCT-E411", "no longer the classes in their order"),
    ("sorted, as an IR", "OCT-E411", "no longer the classes in their order"),
    ("percent", "OCT-E411", "gives probabilities"),
    ("weights missing", "OCT-E502", "they lie in plain.onnx.data"),
    ("another size", "OCT-E104", "takes 64 px"),
    ("no onnx", "OCT-E502", "cannot be read as ONNX"),
    ("of torch.save", "OCT-E502", "is a file of torch.save"),
    ("two inputs", "OCT-E411", "2 inputs"),
    ("no picture", "OCT-E411", "is no picture"),
    ("not square", "OCT-E411", "48 x 64"),
    ("old opset", "OCT-E401", "opset 9"),
    ("new opset", "OCT-E401", "opset 26"),
    ("operator of its own", "OCT-E504", "com.example::"),
    ("outside", "OCT-E503", "outside its folder"),
    ("not finite", "OCT-E701", "not finite"),
    ("dropout that drops", "OCT-E411", "in training mode: Dropout"),
    ("codes of 16 bits", "OCT-E411", "quantised to int16"),
    ("a scale of 0", "OCT-E411", "a scale of 0"),
    ("softmax over images", "OCT-E402", "other logits than alone"),
    ("a column an image", "OCT-E402", "a column an image"),
    ("a column an image, as an IR", "OCT-E402", "a column an image"),
    ("divided by 255 inside", "OCT-E104", "divides by 255 first"),
    ("means of 0 to 255 inside", "OCT-E104", "takes away 104, 116, 124 first"),
    ("divided by 255 inside, as an IR", "OCT-E104", "it takes 0 to 255"),
    ("not valid", "OCT-E411", "the ONNX is not valid"),
])  # fmt: skip
def test_a_file_that_cannot_become_an_artifact_is_refused(
    how: str, code: str, words: str, write: Write, tmp_path: Path
) -> None:
    file, more = damaged(write, how, tmp_path)
    with pytest.raises(OctcError) as caught:
        octc.import_model(file, PRE, CLASSES, options=octc.ImportOptions(out=str(tmp_path / "out"), **more))
    assert caught.value.code == code
    assert words in caught.value.message
    assert code != "OCT-E402" or "dynamic batch" not in caught.value.hint  # which changes nothing about these
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_an_ir_whose_nan_its_engine_hides_is_refused(write: Write, tmp_path: Path) -> None:
    """A kernel of NaN in front of a ReLU: OpenVINO answers with finite logits."""
    proto = onnx.load(str(write(dynamic=True)))
    (kernel,) = (tensor for tensor in proto.graph.initializer if len(tensor.dims) == 4)
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * np.nan, kernel.name))
    onnx.save(proto, tmp_path / "nan.onnx")
    model = openvino.Core().read_model(str(tmp_path / "nan.onnx"))
    assert np.isfinite(openvino.Core().compile_model(model, "CPU")(np.zeros((1, 3, 48, 48), np.float32))[0]).all()
    openvino.save_model(model, str(tmp_path / "nan.xml"), compress_to_fp16=False)
    with pytest.raises(OctcError) as caught:
        octc.import_model(tmp_path / "nan.xml", PRE, CLASSES, options=octc.ImportOptions(out=str(tmp_path / "out")))
    assert caught.value.code == "OCT-E701"


@pytest.mark.parametrize(("mode", "scale"), [("linear", 2.0), ("nearest", 1 / 3), ("nearest", 3.0)])
def test_an_old_resize_is_the_same_after_what_the_hint_says(mode: str, scale: float, tmp_path: Path) -> None:
    """onnx's converter alone leaves places of opset 11 in a Resize of opset 10; without a Resize nothing more is needed."""
    scales = numpy_helper.from_array(np.float32([1, 1, scale, scale]), "scales")
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, None, None]) for name in "xy"]
    resize = helper.make_node("Resize", ["x", "scales"], ["y"], mode=mode)
    graph = helper.make_graph([resize], "g", info[:1], info[1:], [scales])
    old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=5)
    onnx.save(old, tmp_path / "old.onnx")
    with pytest.raises(OctcError) as caught:
        octc.import_model(tmp_path / "old.onnx", PRE, CLASSES)
    assert caught.value.code == "OCT-E401"
    newer = onnx.version_converter.convert_version(old, 18)
    (node,) = (node for node in newer.graph.node if node.op_type == "Resize")
    said = dict(re.findall(r'(\w+_mode)="(\w+)"', caught.value.hint))
    node.attribute.extend(helper.make_attribute(key, value) for key, value in said.items())
    x = np.random.default_rng(0).normal(size=(1, 3, 12, 12)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for m in (old, newer)
    )
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert said


@pytest.mark.parametrize(("domain", "kind", "hint"), [
    ("com.microsoft", "QLinearAdd", "QuantFormat.QDQ"),
    ("com.microsoft", "FusedConv", "before ONNX Runtime optimised it"),
    ("ai.onnx.ml", "ZipMap", "{'zipmap': False}"),
    ("", "DFT", "write the network without them"),
    ("", "SplitToSequence", "dynamo=True"),
])  # fmt: skip
def test_a_foreign_operator_is_refused_with_what_makes_a_file_without_it(
    domain: str, kind: str, hint: str, write: Write, tmp_path: Path
) -> None:
    proto = onnx.load(str(write()))
    proto.graph.node[0].domain, proto.graph.node[0].op_type = domain, kind
    (tmp_path / "bad.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(OctcError) as caught:
        octc.import_model(tmp_path / "bad.onnx", PRE, CLASSES)
    assert caught.value.code == "OCT-E504"
    assert hint in caught.value.hint


def test_functions_that_were_put_into_the_graph_are_imported_as_the_hint_has_it(write: Write, tmp_path: Path) -> None:
    proto, file = onnx.load(str(write())), tmp_path / "function.onnx"
    own = helper.make_function("own", "Act", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], proto.opset_import)
    proto.functions.append(own)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    for node in proto.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Act", "own"
    file.write_bytes(proto.SerializeToString())
    with pytest.raises(OctcError) as caught:
        octc.import_model(file, PRE, CLASSES)
    assert "onnx.inliner.inline_local_functions(model)" in caught.value.hint
    onnx.save(onnx.inliner.inline_local_functions(proto), str(file))
    made = octc.import_model(file, PRE, CLASSES, options=octc.ImportOptions(out=str(tmp_path / "out")))
    assert made.artifact.precision == "fp32"


def test_a_branch_that_was_taken_is_imported_as_the_hint_has_it(write: Write, tmp_path: Path) -> None:
    """A condition that is a constant, as older exporters write a squeeze."""
    proto, file, taken = onnx.load(str(write())), tmp_path / "branch.onnx", tmp_path / "taken.onnx"
    (relu,) = (node for node in proto.graph.node if node.op_type == "Relu")
    info = helper.make_tensor_value_info("kept", TensorProto.FLOAT, None)
    ways = [
        helper.make_graph([helper.make_node(kind, [relu.input[0]], ["kept"])], kind, [], [info]) for kind in ("Relu", "Neg")
    ]
    branch = helper.make_node("If", ["yes"], list(relu.output), then_branch=ways[0], else_branch=ways[1])
    relu.CopyFrom(branch)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    onnx.save(proto, str(file))
    with pytest.raises(OctcError) as caught:
        octc.import_model(file, PRE, CLASSES)
    assert caught.value.code == "OCT-E504"
    assert "graph_optimization_level=ORT_ENABLE_BASIC, optimized_model_filepath=FILE" in caught.value.hint
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(taken)
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    found = predicted(octc.import_model(taken, PRE, CLASSES, options=octc.ImportOptions(out=str(tmp_path / "out"))), tmp_path)
    np.testing.assert_allclose(found, answer("plain", seen()), atol=2e-5)


@pytest.mark.parametrize("how", ["an old format", "another name of the operators", "a choice of ones"])
def test_spellings_of_the_same_network(how: str, write: Write, tmp_path: Path) -> None:
    """Weights that are all inputs, as formats before 4 have them; operators of "ai.onnx"; a class as a row of 0 and 1."""
    proto, file = onnx.load(str(write(dynamic=True))), tmp_path / "spelt.onnx"
    graph = proto.graph
    if how == "an old format":
        proto.ir_version = 3
        graph.input.extend(helper.make_tensor_value_info(one.name, one.data_type, list(one.dims)) for one in graph.initializer)
    elif how == "another name of the operators":
        for one in (*proto.opset_import, *graph.node):
            one.domain = "ai.onnx"
    else:
        _behind(proto, "Hardmax")
    onnx.save(proto, str(file))
    made = octc.import_model(file, PRE, CLASSES, options=octc.ImportOptions(out=str(tmp_path / "out")))
    np.testing.assert_allclose(predicted(made, tmp_path), answer("plain", seen()), atol=2e-5)
    assert bool(made.notes) == (how == "a choice of ones")


@pytest.mark.parametrize("sides", [(-1, -1), (-1, 48), (48, 0)])
def test_a_length_that_is_free_is_written_in_several_ways(sides: tuple[int, int], write: Write, tmp_path: Path) -> None:
    proto = onnx.load(str(write(dynamic=True)))
    for place, side in enumerate(sides, 2):
        proto.graph.input[0].type.tensor_type.shape.dim[place].dim_value = side
    path = tmp_path / "free.onnx"
    path.write_bytes(proto.SerializeToString())
    made = octc.import_model(path, PRE, CLASSES, options=octc.ImportOptions(out=str(tmp_path / "out")))
    assert made.artifact.preprocess.size == 48


def test_names_that_are_alike_and_constants_beside_the_file_change_nothing(write: Write, tmp_path: Path) -> None:
    proto, beside = onnx.load(str(write())), tmp_path / "beside"
    held = list(proto.graph.initializer)
    body = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in held] + list(proto.graph.node)
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.node.extend(body)
    for node in proto.graph.node:
        node.name = "x"
    beside.mkdir()
    options = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0, "convert_attribute": True}
    onnx.save(proto, str(beside / "net.onnx"), **options)  # type: ignore[arg-type]
    folders = [
        octc.import_model(file, PRE, CLASSES, options=octc.ImportOptions(out=str(tmp_path / name))).folder
        for name, file in (("one", write()), ("other", beside / "net.onnx"))
    ]
    picture().save(tmp_path / "a.png")
    found = []
    for folder in folders:
        with octc.load(folder, threads=1) as model:
            found.append(list((model.predict([tmp_path / "a.png"])[0].probabilities or {}).values()))
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_one_mean_of_one_channel_is_that_of_three(write: Write, tmp_path: Path) -> None:
    stated = {"size": 48, "channels": 1, "resize": "bilinear", "mean": [0.4], "std": [0.2]}
    made = octc.import_model(write("grey"), stated, CLASSES, options=octc.ImportOptions(out=str(tmp_path / "out")))
    assert (made.artifact.preprocess.channels, made.artifact.preprocess.mean) == (1, (0.4, 0.4, 0.4))


def test_graphs_as_other_exporters_write_them(write: Write, tmp_path: Path) -> None:
    """Weights among the inputs, a free height and width, a name with a colon; the class before its probabilities."""
    proto = onnx.load(str(write("softmax", dynamic=True)))
    graph, before = proto.graph, proto.graph.input[0].name
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = "input_1:0" if name == before else name
    graph.input[0].name = "input_1:0"
    for axis, name in ((0, "unk__7"), (2, "height"), (3, "width")):
        graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    graph.input.extend(helper.make_tensor_value_info(one.name, one.data_type, list(one.dims)) for one in graph.initializer)
    graph.node.append(helper.make_node("ArgMax", [graph.output[0].name], ["label"], axis=1))
    graph.output.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, None))
    onnx.save(proto, str(tmp_path / "theirs.onnx"))
    probabilities = graph.output[1].name
    options = octc.ImportOptions(out=str(tmp_path / "out"))
    with pytest.raises(OctcError) as caught:
        octc.import_model(tmp_path / "theirs.onnx", PRE, CLASSES, options=options)
    assert (caught.value.code, f"--output {probabilities}," in caught.value.hint) == ("OCT-E411", True)
    made = octc.import_model(tmp_path / "theirs.onnx", PRE, CLASSES, options=replace(options, output=probabilities))
    picture().save(tmp_path / "a.png")
    with octc.load(made.folder, threads=1) as model:
        (found,) = model.predict([tmp_path / "a.png"])
    resized = np.asarray(picture().resize((48, 48), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_allclose(list((found.probabilities or {}).values()), answer("plain", resized), atol=2e-5)


def test_weights_in_a_file_beside_it_become_part_of_the_artifact(write: Write, tmp_path: Path) -> None:
    file = write(external=True)
    assert (tmp_path / "plain.onnx.data").is_file()
    made = octc.import_model(file, PRE, CLASSES, options=octc.ImportOptions(out=str(tmp_path / "out")))
    assert sorted(read_artifact(made.folder).files) == ["USE.md", "golden.npz", "model.onnx"]


@pytest.mark.parametrize("classes", [("A", "B", "C"), ("A", "B", "C", "C"), ("A",)])
def test_other_classes_than_logits_are_refused(classes: tuple[str, ...], write: Write, tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        octc.import_model(write(), PRE, classes, options=octc.ImportOptions(out=str(tmp_path / "out")))
    assert caught.value.code == "OCT-E309"


def test_an_artifact_that_is_there_is_replaced_by_force_only(write: Write, tmp_path: Path) -> None:
    file, options = write(), octc.ImportOptions(out=str(tmp_path / "out"))
    octc.import_model(file, PRE, CLASSES, options=options)
    with pytest.raises(OctcError) as caught:
        octc.import_model(file, PRE, CLASSES, options=options)
    assert caught.value.code == "OCT-E106"
    octc.import_model(file, PRE, CLASSES, options=octc.ImportOptions(out=str(tmp_path / "out"), force=True))


def test_a_quantised_file_is_an_int8_artifact(write: Write, tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        rows = iter([{"x": np.random.default_rng(0).normal(size=(1, 3, 48, 48)).astype(np.float32)} for _ in range(4)])

        def get_next(self) -> Any:
            return next(self.rows, None)

    quantize_static(str(write()), str(tmp_path / "int8.onnx"), Reader(), quant_format=QuantFormat.QDQ, reduce_range=True)
    made = octc.import_model(tmp_path / "int8.onnx", PRE, CLASSES, options=octc.ImportOptions(out=str(tmp_path / "out")))
    assert made.artifact.name == "onnx-int8"
    with octc.load(made.folder, threads=1) as model:
        assert model.golden.ok
    assert set(convolution_precisions(made.folder / "model.onnx")) == {"fp32"}  # as it is written; engines make INT8 of it


def test_a_preset_is_read_from_a_library_and_from_a_file(tmp_path: Path) -> None:
    timm_own = read_preset("timm:resnet18")
    assert (timm_own.source, timm_own.size, timm_own.resample) == ("timm", 224, "bicubic")
    vision = read_preset("torchvision:resnet50")
    assert (vision.size, vision.between, vision.antialias) == (224, 232, True)
    (tmp_path / "config.json").write_text(
        '{"architecture": "x", "pretrained_cfg": {"input_size": [3, 64, 64], "crop_pct": 1.0}}'
    )
    assert read_preset(tmp_path / "config.json").between == 64
    for wrong in ("timm:no_such_net", "torchvision:no_such_net", '{"a": 1}', "[1]", 3):
        with pytest.raises(OctcError) as caught:
            read_preset(wrong)
        assert caught.value.code in ("OCT-E104", "OCT-E107")


@pytest.mark.parametrize("ending", [".onnx", ".xml"])
def test_a_network_that_divides_by_255_itself_is_fed_as_the_hint_has_it(ending: str, write: Write, tmp_path: Path) -> None:
    proto = onnx.load(str(write()))
    _in_front(proto, "divided by 255 inside")
    file = tmp_path / f"inside{ending}"
    onnx.save(proto, tmp_path / "inside.onnx")
    if ending == ".xml":
        openvino.save_model(openvino.Core().read_model(str(tmp_path / "inside.onnx")), str(file))
    with pytest.raises(OctcError) as caught:
        octc.import_model(file, PRE, CLASSES)
    row = r"\[([^]]+)\]"
    (found,) = re.findall(f'"mean": {row}, "std": {row}', caught.value.hint)
    mean, std = ([float(one) for one in own.split(",")] for own in found)
    made = octc.import_model(
        file, {**PRE, "mean": mean, "std": std}, CLASSES, options=octc.ImportOptions(out=str(tmp_path / "out"))
    )
    picture().save(tmp_path / "a.png")
    with octc.load(made.folder, threads=1) as model:
        (said,) = model.predict([tmp_path / "a.png"])
    pixels = octc.Preprocess(size=48, channels=3).prepare(picture())
    x = torch.from_numpy(pixels.astype(np.float32) / 255)
    with torch.no_grad():
        wanted = softmax(Network("plain").eval()(x).numpy().astype(np.float64))[0]
    assert said.probabilities is not None
    np.testing.assert_allclose(list(said.probabilities.values()), wanted, atol=1e-3)


@pytest.mark.parametrize(("rows", "are"), [
    ([[0.1, 0.2, 0.3, 0.41], [0.1, 0.2, 0.3005, 0.41]], False),  # of a network that learned nothing: all rows are alike
    ([[1.0, 0.2, 0.3, 0.5], [1.001, 0.2, 0.3, 0.5]], False),
    ([[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]], True),
    ([[10.0, 20, 30, 40], [70, 10, 10, 10]], True),
    ([[10.0, 20, 30, 40], [10, 20, 30, 40]], False),
    ([[0.5, 0.25, -0.25, 0.5], [0.2, 0.3, 0.3, 0.2]], False),
])  # fmt: skip
def test_logits_that_are_alike_are_no_probabilities(rows: list[list[float]], *, are: bool) -> None:
    assert are_probabilities(np.array(rows, np.float32)) is are
