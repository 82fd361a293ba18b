"""The model repository, read back by a parser of its own and checked against the fields that Triton publishes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octc.core.errors import OctcError
from octc.export.triton import write_repository
from octc.imaging.preprocess import Preprocess
from octc.store.artifacts import Artifact, write_manifest

# the part of model_config.proto that octc writes: message -> field -> (type, repeated)
SCHEMA: dict[str, dict[str, tuple[str, bool]]] = {
    "ModelConfig": {
        "name": ("string", False), "platform": ("string", False), "backend": ("string", False),
        "max_batch_size": ("int", False),
        "input": ("ModelInput", True), "output": ("ModelOutput", True), "instance_group": ("ModelInstanceGroup", True),
        "dynamic_batching": ("ModelDynamicBatching", False), "version_policy": ("ModelVersionPolicy", False),
        "parameters": ("Entry", True),
    },
    "ModelInput": {"name": ("string", False), "data_type": ("DataType", False), "dims": ("int", True)},
    "ModelOutput": {
        "name": ("string", False), "data_type": ("DataType", False), "dims": ("int", True), "label_filename": ("string", False),
    },
    "ModelInstanceGroup": {"count": ("int", False), "kind": ("Kind", False)},
    "ModelDynamicBatching": {"preferred_batch_size": ("int", True)},
    "ModelVersionPolicy": {"specific": ("Specific", False)},
    "Specific": {"versions": ("int", True)},
    "Entry": {"key": ("string", False), "value": ("ModelParameter", False)},
    "ModelParameter": {"string_value": ("string", False)},
}  # fmt: skip
ENUMS = {
    "DataType": {"TYPE_BOOL", "TYPE_UINT8", "TYPE_INT8", "TYPE_INT32", "TYPE_FP16", "TYPE_FP32", "TYPE_STRING"},
    "Kind": {"KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"},
}
TOKEN = re.compile(r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>[A-Za-z_]\w*)|(?P<number>-?\d+)|(?P<mark>[{}\[\],:]))')


def parse(text: str) -> dict[str, list[Any]]:
    """protobuf text format -> field -> list of values (every field is a list here)."""
    tokens = []
    at = 0
    while text[at:].strip():
        found = TOKEN.match(text, at)
        assert found, text[at : at + 40]
        tokens.append((found.lastgroup, found[found.lastgroup or ""]))
        at = found.end()
    message, rest = _message(tokens)
    assert rest == []
    return message


def _message(tokens: list[Any]) -> tuple[dict[str, list[Any]], list[Any]]:
    fields: dict[str, list[Any]] = {}
    while tokens and tokens[0][1] != "}":
        (kind, name), *tokens = tokens
        assert kind == "word"
        if tokens[0][1] == ":":
            tokens = tokens[1:]
        if tokens[0][1] == "{":
            value, tokens = _message(tokens[1:])
            assert tokens.pop(0)[1] == "}"
            fields.setdefault(name, []).append(value)
        elif tokens[0][1] == "[":
            end = tokens.index(("mark", "]"))
            fields.setdefault(name, []).extend(_value(t) for t in tokens[1:end] if t[1] != ",")
            tokens = tokens[end + 1 :]
        else:
            fields.setdefault(name, []).append(_value(tokens[0]))
            tokens = tokens[1:]
    return fields, tokens


def _value(token: tuple[str, str]) -> Any:
    kind, text = token
    return int(text) if kind == "number" else text[1:-1] if kind == "text" else (text,)


def check(message: dict[str, list[Any]], kind: str) -> None:
    """Refuse fields, types and enum values that the published schema does not have."""
    for name, values in message.items():
        assert name in SCHEMA[kind], f"{kind} has no {name}"
        wanted, repeated = SCHEMA[kind][name]
        assert repeated or len(values) == 1, name
        for value in values:
            if wanted in SCHEMA:
                check(value, wanted)
            elif wanted in ENUMS:
                assert value in {(word,) for word in ENUMS[wanted]}, value
            else:
                assert isinstance(value, str if wanted == "string" else int), (name, value)


def artifact_in(folder: Path, target: str, engine: dict[str, Any] | None = None) -> Artifact:
    folder.mkdir()
    names = {"tensorrt": ("model.onnx", "int8-weak.engine"), "onnx": ("model.onnx",), "openvino": ("model.xml", "model.bin")}
    for name in names.get(target, ("model.safetensors",)):
        (folder / name).write_bytes(name.encode())
    main = names.get(target, ("model.safetensors",))[0]
    one = Artifact(
        f"{target}-int8", "student", "net", target, "int8", ("CNV", 'D"ME', "NORMAL"), Preprocess(260), {}, main_file=main
    )
    return write_manifest(folder, replace(one, details={"engine": engine}))


BUILT = {"file": "int8-weak.engine", "package": "tensorrt", "tensorrt": "10.3.0", "sm": "8.7"}


@pytest.mark.parametrize(("target", "key", "file", "kind"), [
    ("tensorrt", ("platform", "tensorrt_plan"), "model.plan", "KIND_GPU"),
    ("onnx", ("backend", "onnxruntime"), "model.onnx", "KIND_CPU"),
    ("openvino", ("backend", "openvino"), "model.xml", "KIND_CPU"),
])  # fmt: skip
def test_a_repository_is_what_triton_reads(tmp_path: Path, target: str, key: tuple[str, str], file: str, kind: str) -> None:
    folder = tmp_path / "artifact"
    artifact = artifact_in(folder, target, BUILT if target == "tensorrt" else None)
    place = write_repository(folder, artifact, tmp_path / "models")
    found = parse((place / "config.pbtxt").read_text())
    check(found, "ModelConfig")
    assert found[key[0]] == [key[1]]
    assert (found["name"], found["max_batch_size"]) == ([place.name], [8])
    assert (found["input"][0]["name"], found["input"][0]["data_type"]) == (["image"], [("TYPE_UINT8",)])
    assert found["input"][0]["dims"] == [artifact.preprocess.channels, 260, 260]
    assert (found["output"][0]["dims"], found["output"][0]["label_filename"]) == ([3], ["labels.txt"])
    assert found["instance_group"][0]["kind"] == [(kind,)]
    assert found["dynamic_batching"] == [{}]
    assert (place / "labels.txt").read_text().splitlines() == list(artifact.classes)
    source = {"tensorrt": "int8-weak.engine"}.get(target, artifact.main_file)
    assert (place / "1" / file).read_bytes() == (folder / source).read_bytes()
    assert (place / "1" / "model.bin").exists() == (target == "openvino")
    said = (place / "README.txt").read_text()
    assert ("TensorRT 10.3.0" in said) == (target == "tensorrt")
    assert "ORT_DISABLE_TELEMETRY=1 tritonserver" in said
    assert "-e ORT_DISABLE_TELEMETRY=1" in said
    with pytest.raises(OctcError) as caught:
        write_repository(folder, artifact, tmp_path / "models")
    assert caught.value.code == "OCT-E106"


@pytest.mark.parametrize(("target", "engine", "code"), [
    ("tensorrt", None, "OCT-E410"), ("tensorrt", {**BUILT, "package": "tensorrt_rtx"}, "OCT-E505"), ("torch", None, "OCT-E104"),
])  # fmt: skip
def test_what_triton_cannot_serve_is_refused(tmp_path: Path, target: str, engine: dict[str, Any] | None, code: str) -> None:
    folder = tmp_path / "artifact"
    with pytest.raises(OctcError) as caught:
        write_repository(folder, artifact_in(folder, target, engine), tmp_path / "models")
    assert caught.value.code == code
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("bad", ['nmae: "x"', "max_batch_size: many", "input { data_type: TYPE_UINT9 }", 'name: "a" name: "b"'])
def test_the_checker_itself_refuses(bad: str) -> None:
    with pytest.raises(AssertionError):
        check(parse(bad), "ModelConfig")
