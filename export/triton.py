"""A model repository for Triton Inference Server from an artifact: TensorRT engine, ONNX file or OpenVINO file.

Layout and fields: https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.files import publishing, write_bytes
from octc.core.targets import TARGETS, Served
from octc.core.telemetry import DEPENDENCIES
from octc.schemas.artifact import INPUT, OUTPUT
from octc.schemas.tensorrt_plan import LARGEST_BATCH
from octc.store.artifacts import Artifact

LABELS = "labels.txt"
# of the engines that Triton's back ends load
QUIET = [f"{name}={value}" for one in DEPENDENCIES if one.module == "onnxruntime" for name, value in one.switches.items()]
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


def write_repository(folder: Path, artifact: Artifact, out: Path, *, force: bool = False) -> Path:
    """Write OUT/<name>/config.pbtxt, labels.txt, README.txt and 1/<model>; the model's folder.

    Raises:
        OctcError: E104 Triton has no backend for it, E410 a TensorRT artifact without an engine, E106 the folder exists.
    """
    backend, source = _source(folder, artifact)
    place = out / artifact.name
    out.mkdir(parents=True, exist_ok=True)
    with publishing(place, force=force) as temporary:
        (temporary / "1").mkdir()
        shutil.copyfile(folder / source, temporary / "1" / backend.file)
        for name in beside(artifact, source):  # weights of an IR: the name of the model with another ending
            shutil.copyfile(folder / name, (temporary / "1" / backend.file).with_suffix(Path(name).suffix))
        write_bytes(temporary / "config.pbtxt", text_format(config_of(artifact, backend)).encode())
        write_bytes(temporary / LABELS, ("\n".join(artifact.classes) + "\n").encode())
        write_bytes(temporary / "README.txt", readme(artifact).encode())
    return place


def _source(folder: Path, artifact: Artifact) -> tuple[Served, str]:
    backend = TARGETS[artifact.target].triton
    if backend is None:
        text = f"Triton has no backend for {artifact.target} artifacts of octc"
        known = ", ".join(name for name, one in TARGETS.items() if one.triton is not None)
        raise OctcError("OCT-E104", text, hint=f"an artifact for one of: {known}", place=str(folder))
    if artifact.target != "tensorrt":
        return backend, artifact.main_file
    engine = artifact.details.get("engine")
    if not isinstance(engine, dict):
        hint = f"on the device: octc export --from-artifact {folder} --target tensorrt; or serve its ONNX sister"
        raise OctcError("OCT-E410", f"{artifact.name} holds no engine", hint=hint, place=str(folder))
    if engine["package"] != "tensorrt":
        text = f"{artifact.name}: Triton does not load engines of {engine['package']}"
        raise OctcError("OCT-E505", text, hint="octc export --target tensorrt, built on the server's GPU", place=str(folder))
    return backend, str(engine["file"])


def beside(artifact: Artifact, source: str) -> list[str]:
    """Files of an artifact that belong to its main file: the same name with another ending."""
    same = Path(source).with_suffix("")
    return [
        name
        for name in artifact.files
        if source == artifact.main_file and name != source and Path(name).with_suffix("") == same
    ]


def config_of(artifact: Artifact, backend: Served) -> dict[str, Any]:
    """The message ModelConfig as nested dicts and lists; enum values are `Word`."""
    pre, kind = artifact.preprocess, "KIND_GPU" if TARGETS[artifact.target].on_gpu else "KIND_CPU"
    image = {"name": INPUT, "data_type": Word(TYPES["uint8"]), "dims": [pre.channels, pre.size, pre.size]}
    logits = {"name": OUTPUT, "data_type": Word(TYPES["float32"]), "dims": [len(artifact.classes)], "label_filename": LABELS}
    return {
        "name": artifact.name,
        backend.key: backend.value,
        "max_batch_size": LARGEST_BATCH,
        "input": [image],
        "output": [logits],
        "instance_group": [{"count": 1, "kind": Word(kind)}],
        "dynamic_batching": {},
        "version_policy": {"specific": {"versions": [1]}},
        "parameters": [
            {"key": "octc_sha256", "value": {"string_value": artifact.files[artifact.main_file].sha256}},
            {"key": "octc_resize", "value": {"string_value": f"{pre.size} px, {pre.channels} channel(s), not normalised"}},
        ],
    }


class Word(str):
    """A value that text format writes without quotes."""

    __slots__ = ()


def text_format(message: dict[str, Any], indent: str = "") -> str:
    """protobuf text format: repeated messages are written one by one, repeated scalars as a list."""
    lines = []
    for key, value in message.items():
        if isinstance(value, dict):
            body = text_format(value, indent + "  ")
            lines.append(f"{indent}{key} {{\n{body}{indent}}}" if body else f"{indent}{key} {{ }}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{indent}{key} {{\n{text_format(one, indent + '  ')}{indent}}}" for one in value]
        elif isinstance(value, list):
            lines.append(f"{indent}{key}: [ {', '.join(map(_scalar, value))} ]")
        else:
            lines.append(f"{indent}{key}: {_scalar(value)}")
    return "".join(line + "\n" for line in lines)


def _scalar(value: Any) -> str:
    if isinstance(value, Word) or not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def readme(artifact: Artifact) -> str:
    """What a person who runs the server must know."""
    pre, engine = artifact.preprocess, artifact.details.get("engine")
    lines = [
        f"{artifact.name}: {artifact.model}, classes {', '.join(artifact.classes)}",
        f"Input {INPUT}: uint8 [N, {pre.channels}, {pre.size}, {pre.size}], not normalised: the graph does that itself.",
        f"Decode and resize as octc does: {pre.size} x {pre.size} px, Pillow's antialiased {pre.resize}.",
        f"Output {OUTPUT}: float32 [N, {len(artifact.classes)}], before softmax; {LABELS} names the columns.",
    ]
    if isinstance(engine, dict):
        built = f"TensorRT {engine['tensorrt']} for compute capability {engine['sm']}"
        lines.append(f"The engine was built with {built}: the container of Triton must hold this version of TensorRT.")
    lines.append(f"Start: {start_line('THE FOLDER ABOVE THIS ONE')}")
    lines.append(f"In a container: docker run {' '.join(f'-e {one}' for one in QUIET)} ...")
    lines.append("The variable keeps onnxruntime from sending usage events.")
    return "\n".join(lines) + "\n"


def start_line(repository: str) -> str:
    """The command that starts the server; the engines that it loads send nothing."""
    return f"{' '.join(QUIET)} tritonserver --model-repository={repository}"
