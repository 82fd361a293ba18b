"""onnxruntime, OpenVINO and torch as plain callables: what `octc.runtimes` gives, without it (the floors are tested alone)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from octc.core.optional import openvino_core
from octc.export.pipeline import Device
from octc.imaging.preprocess import Float32, UInt8
from octc.store.artifacts import Artifact, Golden
from octc.train.loop.checkpoint import read_weights
from octc.train.networks.models import WithInput, build_model


class Engine:
    """A callable with `close`."""

    def __init__(self, call: Callable[[UInt8], Float32]) -> None:
        self.call = call

    def __call__(self, batch: UInt8) -> Float32:
        return self.call(batch)

    def close(self) -> None:
        self.call = self._closed

    def _closed(self, batch: UInt8) -> Float32:
        raise RuntimeError("closed")


def open_engine(folder: Path, artifact: Artifact) -> Engine:
    path = str(folder / artifact.main_file)
    if artifact.target == "onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return Engine(lambda batch: session.run(None, {"image": batch})[0])
    if artifact.target == "openvino":
        model = openvino_core().compile_model(openvino_core().read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return Engine(lambda batch: np.array(model(batch)[0]))
    if artifact.target == "litert":
        interpreter = litert_interpreter(path)
        return Engine(lambda batch: np.concatenate([one_by_one(interpreter, image) for image in batch]))
    network = build_model(artifact.model, len(artifact.classes), **artifact.details["model_kwargs"])
    network.load_state_dict(read_weights(Path(path)))
    whole = WithInput(network.eval(), artifact.preprocess)
    return Engine(lambda batch: whole(torch.from_numpy(batch)).detach().numpy())


def litert_interpreter(path: str) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(model_path=path)
    made.allocate_tensors()
    return made


def one_by_one(interpreter: Any, image: UInt8) -> Float32:
    """Logits [1, classes] of one picture [channels, size, size], in the layout that the file asks for."""
    given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    shape = tuple(given["shape"])
    last = image[None] if shape[1] == image.shape[0] and shape[-1] != image.shape[0] else image.transpose(1, 2, 0)[None]
    interpreter.set_tensor(given["index"], np.ascontiguousarray(last.reshape(shape)))
    interpreter.invoke()
    return np.array(interpreter.get_tensor(found["index"]), np.float32)


LIMITS = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}


def replay(runtime: Any, golden: Golden, artifact: Artifact) -> dict[str, Any]:
    delta = float(np.abs(runtime(golden.inputs) - golden.logits).max() / np.ptp(golden.logits, axis=1).mean())
    return {
        "delta_over_s": delta,
        "ok": delta <= LIMITS[artifact.precision],
        "images": len(golden.inputs),
        "tolerance_id": "own",
    }


DEVICE = Device(open=open_engine, replay=replay)
