"""A student with its teacher, trained and exported once, and ways to spoil a copy of an artifact for real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from octc.cli._app.main import main
from octc.runtimes.registry import open_runtime
from octc.store.artifacts import Golden, read_artifact, read_golden, write_golden, write_manifest
from octc.store.runs import Run
from tests.integration.made_once import made_once
from tests.tiny_run import make_run, write_patterns

DECIDABLE = ("--margin", "30", "--class-margin", "60", "--plan-discordance", "0.5", "--bootstrap", "1000")  # for 32 images


def made_pair() -> Run:
    """The student (onnx-fp32, -int8, openvino-, tensorrt-int8) of a pair; its teacher (torch-fp32) lies beside it, and
    `patterns` beside the run folder. Whoever changes something takes a copy."""
    place = made_once("pair", _make_pair)
    return Run(place / "runs" / (place / "student").read_text())


def _make_pair(place: Path) -> None:
    write_patterns(place / "patterns")
    runs = place / "runs"
    teacher = make_run(runs, place / "patterns", kind="teacher", model="test_efficientnet")
    student = make_run(runs, place / "patterns", teacher_run=teacher.id)
    for words in ((student.id, "--int8"), (student.id, "--target", "onnx", "--fp32"), (teacher.id, "--target", "torch")):
        assert main(("export", *words, "--run-dir", str(runs), "-q")) == 0
    (place / "student").write_text(student.id)


def respelled(folder: Path, **fields: Any) -> None:
    """Write the manifest of an artifact anew after something in it was changed."""
    write_manifest(folder, replace(read_manifest(folder), **fields))


def read_manifest(folder: Path) -> Any:
    """The artifact, also where a sum no longer fits."""
    import json

    from octc.store.artifacts import _from_json

    return _from_json(json.loads((folder / "artifact.json").read_text()), folder / "artifact.json")


def change_logits(folder: Path, change: Callable[[Any], Any], **fields: Any) -> None:
    """Change weight and bias of the last linear layer of an ONNX artifact; its golden logits are those of the changed file."""
    model = onnx.load(folder / "model.onnx")
    last = [node for node in model.graph.node if node.op_type == "Gemm"][-1]
    for initializer in model.graph.initializer:
        if initializer.name in last.input:
            initializer.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(initializer).copy()), initializer.name))
    onnx.save(model, folder / "model.onnx")
    respelled(folder, **fields)
    golden = read_golden(folder)
    runtime = open_runtime(folder, read_artifact(folder))
    write_golden(folder, replace(golden, logits=runtime(golden.inputs)))
    runtime.close()
    respelled(folder)


def spoil_golden(folder: Path) -> None:
    """Recorded logits that nothing computes."""
    golden = read_golden(folder)
    write_golden(folder, Golden(golden.inputs, golden.logits[::-1].copy(), golden.source_png, golden.source_input))
    respelled(folder)


def constant(values: Any) -> Any:
    """A last layer that always says the first class."""
    values[...] = 0
    if values.ndim == 1:
        values[0] = 5
    return np.asarray(values)
