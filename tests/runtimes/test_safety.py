"""Model files of an attacker: refused from their bytes, before an engine (or anything else) opens what they name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from octc.core.errors import OctcError
from octc.runtimes import onnx_reader as onnx_file
from octc.runtimes import safety
from octc.runtimes.onnx_reader import walk_model
from octc.runtimes.registry import open_runtime
from octc.runtimes.safety import check_model, scan_ir
from octc.store.artifacts import Artifact, read_artifact
from octc.store.runs import Run
from tests.tiny_artifacts import copied, folder_of, resign


def simple(*nodes: onnx.NodeProto, **more: object) -> onnx.ModelProto:
    """A model around some nodes, valid or not."""
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 1, 8, 8])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])]
    return helper.make_model(helper.make_graph(list(nodes), "g", inputs, outputs, **more))


def loop() -> onnx.NodeProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, [])],
    )  # fmt: skip
    return helper.make_node("Loop", ["", "go"], [], body=body)


def external(place: str) -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    return tensor


def spoilt(run: Run, tmp_path: Path, proto: onnx.ModelProto) -> tuple[Path, Artifact]:
    """An artifact whose sums are right and whose model is `proto`."""
    folder = copied(run, "onnx-fp32", tmp_path)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    resign(folder)
    return folder, read_artifact(folder)


def refused(folder: Path, artifact: Artifact, code: str, word: str) -> None:
    with pytest.raises(OctcError) as caught:
        open_runtime(folder, artifact, threads=1)
    assert (caught.value.code, caught.value.exit_code) == (code, 3)
    assert word in caught.value.message, caught.value.message


def in_constant() -> onnx.ModelProto:
    return simple(helper.make_node("Constant", [], ["logits"], value=external("pipe")))


def in_sparse() -> onnx.ModelProto:
    proto = simple()
    proto.graph.sparse_initializer.add().values.CopyFrom(external("pipe"))
    return proto


def in_initializer() -> onnx.ModelProto:
    return simple(initializer=[external("pipe")])


@pytest.mark.parametrize("make", [in_initializer, in_constant, in_sparse])
def test_b04_external_data_is_refused_and_never_opened(run: Run, tmp_path: Path, make: Callable[[], onnx.ModelProto]) -> None:
    """What it refers to is a pipe that nobody writes to: whoever opened it would wait for ever."""
    folder, artifact = spoilt(run, tmp_path, make())
    os.mkfifo(folder / "pipe")
    refused(folder, artifact, "OCT-E503", "location=pipe")


def test_b04_external_data_outside(run: Run, tmp_path: Path) -> None:
    refused(*spoilt(run, tmp_path, simple(initializer=[external("../../etc/passwd")])), "OCT-E503", "../../etc/passwd")


def functions() -> onnx.ModelProto:
    proto = simple(helper.make_node("Relu", ["image"], ["logits"]))
    proto.functions.add().name = "f"
    return proto


@pytest.mark.parametrize(("make", "word"), [
    (lambda: simple(helper.make_node("Surprise", ["image"], ["logits"], domain="com.evil")), "com.evil::Surprise"),
    (lambda: simple(helper.make_node("Relu", ["image"], ["logits"], domain="com.microsoft")), "com.microsoft::Relu"),
    (lambda: simple(helper.make_node("RandomNormal", [], ["logits"], shape=[1, 2])), "RandomNormal"),
    (lambda: simple(loop()), "Loop"),
    (lambda: simple(helper.make_node("Relu", ["image"], ["logits"], body=simple().graph)), "1 subgraphs"),
    (functions, "1 functions"),
])  # fmt: skip
def test_b05_operators_that_are_not_allowed(run: Run, tmp_path: Path, make: Callable[[], onnx.ModelProto], word: str) -> None:
    refused(*spoilt(run, tmp_path, make()), "OCT-E504", word)


def test_b05_a_second_graph_does_not_hide_behind_the_first(run: Run, tmp_path: Path) -> None:
    """Parsers merge both, so both are looked at."""
    folder, artifact = spoilt(run, tmp_path, simple(helper.make_node("Relu", ["image"], ["logits"])))
    with (folder / "model.onnx").open("ab") as stream:
        stream.write(simple(loop()).SerializeToString())
    resign(folder)
    refused(folder, read_artifact(folder), "OCT-E504", "Loop")
    assert artifact.target == "onnx"


def test_b05_two_gigabytes_are_refused_by_their_size(run: Run, tmp_path: Path) -> None:
    """2 GiB for the file system, nothing on the disk; refused before it is read, let alone parsed."""
    folder = copied(run, "onnx-fp32", tmp_path)
    artifact = read_artifact(folder)
    with (folder / "model.onnx").open("r+b") as stream:
        stream.truncate(2 << 30)
    refused(folder, artifact, "OCT-E504", "2147483648 bytes")
    text = (folder / "artifact.json").read_text()
    (folder / "artifact.json").write_text(text.replace(str(artifact.files["model.onnx"].bytes), str(2 << 30)))
    with pytest.raises(OctcError) as caught:
        read_artifact(folder)
    assert caught.value.code == "OCT-E504"


def test_a_million_empty_nodes_are_not_walked_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MOST_FIELDS", 1000)
    proto = simple(*(helper.make_node("Relu", ["image"], ["logits"]) for _ in range(600)))
    with pytest.raises(ValueError, match="more than 1000 fields"):
        walk_model(memoryview(proto.SerializeToString()))


def test_the_walk_sees_what_the_onnx_package_sees(run: Run) -> None:
    for name in ("onnx-fp32", "onnx-fp16", "onnx-int8"):
        path = run.artifacts / name / "model.onnx"
        proto = onnx.load(str(path))
        facts = onnx_file.scan_onnx(path)
        assert sum(facts.operators.values()) == len(proto.graph.node)
        assert {kind for _, kind in facts.operators} == {node.op_type for node in proto.graph.node}
        for tensor in proto.graph.initializer:
            assert facts.types[tensor.name] == tensor.data_type
    assert onnx_file.convolution_precisions(run.artifacts / "onnx-fp16" / "model.onnx") == {"fp16": 15}


def test_bytes_that_are_no_onnx_end_in_one_kind_of_error() -> None:
    """Cut off anywhere, or with any byte turned round: a result or ValueError, nothing else."""
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "w")
    data = simple(helper.make_node("Add", ["image", "w"], ["logits"]), initializer=[tensor]).SerializeToString()
    rng = np.random.default_rng(0)
    outcomes = set()
    for cut in range(len(data)):
        turned = bytearray(data)
        turned[cut] ^= int(rng.integers(1, 256))
        for bad in (data[:cut], bytes(turned)):
            try:
                walk_model(memoryview(bad))
                outcomes.add("read")
            except ValueError:
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


LAYER = '<layer id="0" name="a" type="{}" version="{}"><data {}/></layer>'


def ir(layer: str, head: str = "") -> bytes:
    return f'<?xml version="1.0"?>{head}<net name="n" version="11"><layers>{layer}</layers><edges/></net>'.encode()


@pytest.mark.parametrize(("data", "kind", "word"), [
    (ir(LAYER.format("Surprise", "opset1", "")), "refused", "operator Surprise"),
    (ir(LAYER.format("Convolution", "extension", "")), "refused", "Convolution of extension"),
    (ir(LAYER.format("TensorIterator", "opset1", "")), "refused", "operator TensorIterator"),
    (ir(LAYER.format("Const", "opset1", 'element_type="f32" offset="8" size="93"')), "refused", "bytes 8 to 101 of 100"),
    (ir(LAYER.format("Const", "opset1", 'element_type="f32" offset="-8" size="9"')), "refused", "bytes -8"),
    (ir(LAYER.format("Const", "opset1", 'element_type="f32" offset="x" size="9"')), "refused", "without its place"),
    (ir(LAYER.format("Const", "opset1", 'element_type="string" offset="0" size="9"')), "refused", "strings"),
    (ir(LAYER.format("Const", "opset1", 'weights_path="w.bin"')), "outside", "w.bin"),
    (ir(LAYER.format("Const", "opset1", 'source="../../etc/passwd"')), "outside", "passwd"),
    (ir(LAYER.format("Const", "opset1", 'source="/etc/passwd"')), "outside", "passwd"),
    (ir("", '<!DOCTYPE n [<!ENTITY x SYSTEM "file:///etc/passwd">]>'), "refused", "document type"),
    (b"", "refused", "not well-formed"),
    (b"<net><layers>", "refused", "not well-formed"),
    (b"\xff\xfe\x00", "refused", "not well-formed"),
    (b"<html/>", "refused", "no network"),
])  # fmt: skip
def test_ir_that_is_refused(data: bytes, kind: str, word: str) -> None:
    problems = scan_ir(data, 100)
    assert [k for k, _ in problems] == [kind]
    assert word in problems[0][1]


def test_ir_inside_its_bounds_is_taken() -> None:
    assert scan_ir(ir(LAYER.format("Const", "opset1", 'element_type="f32" offset="8" size="92" shape="23"')), 100) == []


def test_an_ir_file_is_refused_through_the_table(run: Run, tmp_path: Path) -> None:
    folder = copied(run, "openvino-fp16", tmp_path)
    text = (folder / "model.xml").read_text()
    (folder / "model.xml").write_text(text.replace('type="Convolution" version="opset1"', 'type="Evil" version="extension"', 1))
    resign(folder)
    refused(folder, read_artifact(folder), "OCT-E504", "operator Evil")
    (folder / "model.xml").write_text(text.replace("<data ", '<data path="/etc/passwd" ', 1))
    resign(folder)
    refused(folder, read_artifact(folder), "OCT-E503", "/etc/passwd")
    (folder / "model.xml").write_text(text)
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:-1000])
    resign(folder)
    refused(folder, read_artifact(folder), "OCT-E504", "a constant at bytes")
    (folder / "model.bin").unlink()
    resign(folder)
    refused(folder, read_artifact(folder), "OCT-E504", "model.bin is not among")


def test_limits_of_an_ir(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run.artifacts / "openvino-fp16"
    artifact = read_artifact(folder)
    monkeypatch.setattr(safety, "MOST_ELEMENTS", 50)
    refused(folder, artifact, "OCT-E504", "more than 50 elements")
    monkeypatch.setattr(safety, "MOST_XML", 1000)
    refused(folder, artifact, "OCT-E504", "the limit is 1000")


def test_the_kind_of_file_must_be_that_of_the_target(run: Run) -> None:
    folder = run.artifacts / "onnx-fp32"
    artifact = read_artifact(folder)
    for target in ("openvino", "torch", "litert"):
        with pytest.raises(OctcError, match=r"is no \.") as caught:
            check_model(folder, replace(artifact, target=target))
        assert caught.value.code == "OCT-E504"


@pytest.mark.parametrize(
    "name", ["onnx-fp32", "onnx-fp16", "onnx-int8", "openvino-fp16", "openvino-int8", "torch-fp32", "litert-int8"]
)
def test_what_octc_writes_passes(run: Run, name: str) -> None:
    check_model(folder_of(run, name), read_artifact(folder_of(run, name)))
