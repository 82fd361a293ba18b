"""The inference engines that artifacts are made for: one row of a table for each.

Lists elsewhere (what a manifest may name, what `octc predict` chooses from, what `octc doctor` asks, tolerances, versions in a
result) are read from here when they are needed, so that a new engine is one entry. What `octc export` can make of a run is the
maker's own table, `export/formats.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from octc.core.optional import EXTRAS, WINGS

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Served:
    """How Triton's model configuration names a backend: key and value of its line; file: what it looks for in a version."""

    key: str
    value: str
    file: str


@dataclass(frozen=True)
class Target:
    """An inference engine, and what octc must know of its artifacts.

    Places in the code are written "module:function" and imported when they are called (`called`).

    Attributes:
        title: how it is called in a sentence. library: its Python module; the version of that package is in every result.
        opens: (folder, artifact, threads, batch) -> Runtime. opens_kept: the same by way of the user's cache of compiled
            networks, for an engine that compiles when it opens; such a runtime has `not_kept`: why nothing was kept, or "".
        golden: precision -> row of the table of tolerances (`runtimes/golden.py`) for golden images; its keys are the
            precisions that artifacts of this target may have. parity: where the row for a whole set is another one.
        needs: modules without which no artifact of it opens (`octc.core.optional.EXTRAS` has their extras).
        suffix: of the main file; checks: (path, artifact), refuses a model file before the engine sees it.
        why_not: (artifact) -> why it cannot run here, or None, where more than a module decides.
        processors: precision -> the family of processors whose answers it gives, where that is not every one.
        choice: family of processors -> its place in the order in which `octc predict` takes files of one precision, "" for the
            others; a target without a place is taken only when it is named, or last (torch).
        reference: place among the targets of an FP32 reference, the first that is here is taken; None: it is none.
        floats: its float precisions, the quicker one first. on_gpu: it computes on an NVIDIA GPU.
        triton: its backend in Triton Inference Server; None: there is none.
        asks: () -> what `octc doctor` says of the engine, in a process of its own. machines: whose problem it is there.
    """

    title: str
    library: str
    opens: str
    golden: Mapping[str, str]
    parity: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    suffix: str = ""
    checks: str = ""
    why_not: str = ""
    processors: Mapping[str, str] = field(default_factory=dict)
    choice: Mapping[str, int] = field(default_factory=dict)
    reference: int | None = None
    floats: tuple[str, ...] = ("fp32",)
    on_gpu: bool = False
    triton: Served | None = None
    asks: str = "octc.runtimes.probe:version_of"
    opens_kept: str = ""
    machines: tuple[str, ...] = ("x86",)


# OpenVINO's convolutions on Arm take INT8 only with one code type on both sides: Cortex-A57 and A72 refuse the file,
# Neoverse-N1 misses the golden images. There predict takes the ONNX file first, which gives the answers of x86.
TARGETS: dict[str, Target] = {
    "onnx": Target(
        "ONNX Runtime", "onnxruntime", "octc.runtimes.onnxrt:open_ort", {"fp32": "K1", "fp16": "K4", "int8": "K7"},
        {"int8": "K10"}, ("onnxruntime",), ".onnx", "octc.runtimes.safety:check_onnx", choice={"arm": 0, "": 1}, reference=0,
        floats=("fp32", "fp16"), triton=Served("backend", "onnxruntime", "model.onnx"), asks="octc.runtimes.probe:onnxruntime",
    ),
    "openvino": Target(
        "OpenVINO", "openvino", "octc.runtimes.openvino:open_ov", {"fp32": "K2", "fp16": "K4", "int8": "K7"},
        {"int8": "K10"}, ("openvino",), ".xml", "octc.runtimes.safety:check_ir", processors={"int8": "x86"},
        choice={"arm": 1, "": 0}, reference=1, floats=("fp16", "fp32"),
        triton=Served("backend", "openvino", "model.xml"), asks="octc.runtimes.probe:openvino",
        opens_kept="octc.runtimes.openvino:open_kept",
    ),
    "tensorrt": Target(
        "TensorRT", "tensorrt", "octc.runtimes.tensorrt.runtime:open_trt", {"fp32": "K3", "fp16": "K4", "int8": "K7"},
        {"int8": "K10"}, why_not="octc.runtimes.tensorrt.runtime:why_no_engine", floats=("fp16",), on_gpu=True,
        triton=Served("platform", "tensorrt_plan", "model.plan"), machines=("tensorrt", "jetson"),
    ),
    "litert": Target(
        "LiteRT", "ai_edge_litert", "octc.runtimes.litert:open_litert", {"fp32": "K2", "int8": "K7"}, {"int8": "K10"},
        ("ai_edge_litert",), ".tflite", "octc.runtimes.safety:check_litert", choice={"arm": 2, "": 2},
        asks="octc.runtimes.litert:probe",
    ),
    "torch": Target(
        "PyTorch", "torch", "octc.runtimes.eager:open_eager", {"fp32": "K1"}, needs=("torch", "timm", "safetensors"),
        suffix=".safetensors", reference=2, asks="",
    ),
}  # fmt: skip


def called(place: str) -> Callable[..., Any]:
    """The function of "module:function"."""
    module, _, name = place.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def row_of(target: str, precision: str, *, whole_set: bool = False) -> str | None:
    """The row of the tolerance table for golden images, or for a whole set; None if the target has no such artifact."""
    known = TARGETS.get(target)
    if known is None:
        return None
    row = known.golden.get(precision)
    return known.parity.get(precision, row) if whole_set else row


def processors_of(target: str, precision: str) -> str | None:
    """The family of processors that an artifact is for; None: every one."""
    return TARGETS[target].processors.get(precision) if target in TARGETS else None


def extras() -> tuple[str, ...]:
    """The extras that a machine may need: to train, to export, to run an engine, baselines."""
    of_engines = (EXTRAS[module] for one in TARGETS.values() for module in one.needs if module in EXTRAS)
    return tuple(dict.fromkeys((*WINGS, *of_engines, "stats", "baselines")))


def in_order(family: str | None) -> tuple[str, ...]:
    """Targets in the order in which `octc predict` prefers them for files of one precision, on a family of processors."""
    places = {name: one.choice.get(family or "", one.choice.get("")) for name, one in TARGETS.items()}
    return tuple(sorted((n for n, place in places.items() if place is not None), key=lambda n: (places[n], n)))


def references() -> tuple[str, ...]:
    """Targets for the FP32 reference, in order of preference."""
    places = {name: one.reference for name, one in TARGETS.items() if one.reference is not None}
    return tuple(sorted(places, key=lambda name: (places[name], name)))
