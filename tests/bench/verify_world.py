"""A whole `octc verify` in seconds, without torch: noisy patterns, a small ONNX network, its INT8 twin."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from octc.datasets.layouts.folders import scan_folder
from octc.datasets.split import Split, make_split
from octc.imaging.decode import read_image
from octc.imaging.preprocess import Preprocess
from octc.runtimes.registry import open_runtime
from octc.store.artifacts import Artifact, Golden, read_artifact, read_golden, write_golden, write_manifest
from octc.store.runs import Run, create_run

Array = np.ndarray[Any, Any]
CLASSES = ("bright", "dark", "lying", "upright")
SIZE, FILE_SIZE, WIDTH = 32, 40, 8
PRE = Preprocess(SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
PATIENTS, IMAGES = 42, 4
MODEL = "model.onnx"
FORGIVING = (
    "--margin",
    "10",
    "--class-margin",
    "30",
    "--plan-discordance",
    "0.5",
    "--plan-icc",
    "0.1",
    "--bootstrap",
    "1000",
    "--ece-slack",
    "0.03",
)


def write_pictures(root: Path) -> None:
    """root/CLASS/CLASS-PATIENT-INDEX.png, so noisy that some are mistaken; two sizes."""
    rng = np.random.default_rng(3)
    stripes = np.where(np.arange(FILE_SIZE) // 5 % 2, 148.0, 108.0)
    bases = {"bright": np.full((FILE_SIZE,) * 2, 148.0), "dark": np.full((FILE_SIZE,) * 2, 108.0)}
    bases |= {"lying": np.tile(stripes[:, None], (1, FILE_SIZE)), "upright": np.tile(stripes, (FILE_SIZE, 1))}
    for place, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for patient in range(PATIENTS):
            shift, noise = rng.normal(0, 11), rng.uniform(20, 70)
            for index in range(IMAGES):
                pixels = np.clip(bases[name] + shift + rng.normal(0, noise, bases[name].shape), 0, 255).astype(np.uint8)
                picture = Image.fromarray(pixels).resize((FILE_SIZE + 8 * (patient % 2), FILE_SIZE))
                picture.save(root / name / f"{name.upper()}-{1000 * place + patient}-{index}.png")


def weights(head: Array | None = None) -> dict[str, Array]:
    """Two convolutions with drawn filters, and a head [K, WIDTH + 1] (bias last) or none."""
    rng = np.random.default_rng(0)
    found = {
        "conv1.weight": rng.normal(0, 0.4, (WIDTH, 1, 5, 5)).astype(np.float32),
        "conv2.weight": rng.normal(0, 0.25, (WIDTH, WIDTH, 3, 3)).astype(np.float32),
    }
    if head is not None:
        found |= {"head.weight": head[:, :-1].astype(np.float32), "head.bias": head[:, -1].astype(np.float32)}
    return found


def network(given: dict[str, Array], ranges: dict[str, float] | None = None, until: str = "") -> onnx.ModelProto:
    """image uint8 [N, 1, S, S] -> logits (without a head: features); with `ranges`, of each layer's input, as Q/DQ."""
    nodes, constants = [], {"scale": np.float32(1 / 127.5), "one": np.float32(1), **given}
    at = "image"
    for kind, inputs, out, more in (
        ("Cast", [], "cast", {"to": TensorProto.FLOAT}), ("Mul", ["scale"], "scaled", {}), ("Sub", ["one"], "input", {}),
    ):  # fmt: skip
        nodes.append(helper.make_node(kind, [at, *inputs], [out], **more))
        at = out
    for name in ("conv1", "conv2"):
        weight = f"{name}.weight"
        if ranges is not None:
            at, weight = quantised(nodes, constants, at, name, ranges[name])
        nodes.append(
            helper.make_node("Conv", [at, weight], [f"{name}_out"], strides=[2, 2], pads=[1, 1, 1, 1], name=f"node_{name}")
        )
        nodes.append(helper.make_node("Relu", [f"{name}_out"], [f"{name}_relu"]))
        at = f"{name}_relu"
    nodes += [helper.make_node("GlobalAveragePool", [at], ["pooled"]), helper.make_node("Flatten", ["pooled"], ["features"])]
    last = "features"
    if "head.weight" in given:
        nodes.append(helper.make_node("Gemm", ["features", "head.weight", "head.bias"], ["logits"], transB=1, name="node_head"))
        last = "logits"
    last = until or last
    shape = {"logits": ["batch", len(CLASSES)], "features": ["batch", WIDTH]}.get(last, ["batch", WIDTH, "height", "width"])
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def quantised(nodes: list[Any], constants: dict[str, Any], at: str, name: str, largest: float) -> tuple[str, str]:
    """Q/DQ before a convolution and int8 weights behind one: the names of both results."""
    weight = constants.pop(f"{name}.weight")
    scales = np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127
    constants |= {
        f"{name}.input_scale": np.float32(largest / 127), f"{name}.zero": np.int8(0),
        f"{name}.zeros": np.zeros(len(weight), np.int8),
        f"{name}.weight_scale": scales.astype(np.float32),
        f"{name}.codes": np.clip(np.rint(weight / scales[:, None, None, None]), -127, 127).astype(np.int8),
    }  # fmt: skip
    own = [f"{name}.input_scale", f"{name}.zero"]
    nodes += [
        helper.make_node("QuantizeLinear", [at, *own], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", *own], [f"{name}_dq"]),
        helper.make_node("DequantizeLinear", [f"{name}.codes", f"{name}.weight_scale", f"{name}.zeros"], [f"{name}_w"], axis=0),
    ]  # fmt: skip
    return f"{name}_dq", f"{name}_w"


def run_model(model: onnx.ModelProto, images: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": images})[0])


def make_world(place: Path) -> Run:
    """place/pictures, place/runs/r-0001-student-folder with the artifacts onnx-fp32 and onnx-int8."""
    write_pictures(place / "pictures")
    split = make_split(scan_folder(place / "pictures", None), "folder", 0)
    run = create_run(place / "runs", "student", "folder", data_root=str(place / "pictures"))
    split.write(run.split)
    images = {part: pictures(place, split, part) for part in ("train", "val")}
    features = run_model(network(weights()), images["train"])
    labels = np.array([s.label for s in split.parts["train"]])
    known = np.column_stack([features, np.ones(len(features))])
    head = np.linalg.lstsq(known.T @ known + 1e-4 * np.eye(WIDTH + 1), known.T @ (6 * np.eye(4)[labels] - 1.5), rcond=None)[0].T
    plain = network(weights(head))
    ranges = {"conv1": 1.0, "conv2": float(run_model(network(weights(), until="conv1_relu"), images["train"]).max())}
    int8 = network(weights(head), ranges)
    for name, model, precision in (("onnx-fp32", plain, "fp32"), ("onnx-int8", int8, "int8")):
        write_artifact(run, split, name, precision, model, images["train"][:: len(labels) // 12][:12])
    run.update(status="done")
    return run


def pictures(place: Path, split: Split, part: str) -> Array:
    return np.concatenate([PRE.prepare(read_image(place / "pictures" / s.path).image) for s in split.parts[part]])


def write_artifact(
    run: Run, split: Split, name: str, precision: str, model: onnx.ModelProto, golden: Array
) -> Path:  # fmt: skip
    folder = run.artifacts / name
    folder.mkdir(parents=True)
    onnx.save(model, folder / MODEL)
    stream = io.BytesIO()
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 60)).astype(np.uint8))
    picture.save(stream, format="PNG")
    write_golden(folder, Golden(
        golden, run_model(model, golden), np.frombuffer(stream.getvalue(), np.uint8), PRE.prepare(Image.open(stream))
    ))  # fmt: skip
    lineage = {"run": run.id, "teacher_run": None, "split_digest": split.digest, "dataset": "folder"}
    write_manifest(folder, Artifact(name, "student", "tiny", "onnx", precision, CLASSES, PRE, lineage, {}, main_file=MODEL))
    return folder


def change_constants(folder: Path, change: Callable[[str, Array], Array], *, golden: bool = False) -> None:
    """Change constants of an artifact's model and sign it again; with `golden` its golden logits become those of it."""
    model = onnx.load(folder / MODEL)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor).copy()
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(change(tensor.name, value), value.dtype), tensor.name))
    onnx.save(model, folder / MODEL)
    artifact = replace(read_unchecked(folder))
    write_manifest(folder, artifact)
    if golden:
        before = read_golden(folder)
        runtime = open_runtime(folder, read_artifact(folder))
        write_golden(folder, replace(before, logits=runtime(before.inputs)))
        runtime.close()
        write_manifest(folder, artifact)


def read_unchecked(folder: Path) -> Any:
    """The artifact of a folder whose sums no longer fit."""
    from octc.store.artifacts import _from_json

    return _from_json(json.loads((folder / "artifact.json").read_text()), folder / "artifact.json")
