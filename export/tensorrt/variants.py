"""A TensorRT artifact: ONNX variants of one network, build plans, worker and recipe. Nothing here needs TensorRT.

model.onnx           Q/DQ, the rest FP32   weakly typed builds, TensorRT 10.0 to 10.11 (JetPack 6)
model.int8fp16.onnx  Q/DQ, the rest FP16   strongly typed builds, 10.12 and later, and TensorRT for RTX
model.fp16.onnx      no Q/DQ               the FP16 engine that INT8 has to beat
"""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import fx, nn

from octc.compress.placement import convolutions
from octc.core.errors import OctcError
from octc.core.files import sha256_file, write_bytes, write_json
from octc.export.lint.check import mark_float, require_clean
from octc.export.lint.graph import graphs_of
from octc.export.lint.placement import wide_enough
from octc.export.onnx.float import INPUT, OUTPUT, read_onnx, save
from octc.export.onnx.fp16 import write_fp16
from octc.export.tensorrt.trtexec import RECIPE, recipe_text
from octc.imaging.preprocess import Preprocess, UInt8
from octc.runtimes.onnxrt import reference_session
from octc.schemas.tensorrt_plan import (
    ONNX_FILES,
    RTX,
    SIDECAR_SCHEMA,
    STRONG,
    VARIANTS,
    PlannedFiles,
    both_typings,
    make_plan,
    plans_text,
)
from octc.store.artifacts import GOLDEN
from octc.train.loop.evaluate import logits_of

WORKER, SIDECAR, FLOAT_GOLDEN = "trt_worker.py", "engine.json", "golden-fp16.npz"
STRONG_TARGET = "tensorrt-strong"
CHECKED = 4  # golden images that every variant is run on; onnxruntime is slow in FP16
AGREE = {"int8": (5e-2, 0.0), "int8fp16": (5e-2, 1e-2), "fp16": (1e-2, 0.0)}  # delta over s: limit, and what FP16 may add
LIMITS = {"int8": {"delta_over_s": 5e-2, "agreement": 0.999}, "fp16": {"delta_over_s": 1e-2, "agreement": 0.999}}


def write_int8(
    qdq: Path,
    plain: Path,
    folder: Path,
    references: tuple[nn.Module, nn.Module],
    pre: Preprocess,
    images: UInt8,
    floats: frozenset[str],
    module: str,
) -> dict[str, Any]:
    """Fill `folder` from the Q/DQ file and the float file of one network; references are their torch networks.

    Returns: facts for the manifest.

    Raises:
        OctcError: E403 or E404 by the linter, E408 beyond FP16.
    """
    write_bytes(folder / "model.onnx", qdq.read_bytes())
    write_fp16(qdq, folder / "model.int8fp16.onnx", images)
    for name in ("model.onnx", "model.int8fp16.onnx") if floats else ():
        marked = read_onnx(folder / name)
        mark_float(marked, floats)
        save(marked, folder / name)
    write_fp16(plain, folder / "model.fp16.onnx", images)
    quantised, network = references
    proto = read_onnx(folder / "model.int8fp16.onnx")
    counts = require_clean(proto, STRONG_TARGET, floats)
    require_clean(read_onnx(folder / "model.fp16.onnx"), STRONG_TARGET, quantised=False)
    compared = {
        name: compare(folder / name, network if name == "model.fp16.onnx" else quantised, pre, images[:CHECKED])
        for name in VARIANTS
    }
    promised, depthwise = promises(proto)
    write_plans(folder, "int8", pre, module, promised=promised, depthwise=depthwise)
    wanted = logits_of(network, images, pre, "cpu", batch=8).numpy()  # golden.npz holds those of the quantised network
    np.savez_compressed(folder / FLOAT_GOLDEN, inputs=images, logits=wanted)
    write_plans(folder, "fp16", pre, module, golden=FLOAT_GOLDEN)
    return {**counts, "promised": len(promised), "depthwise": len(depthwise), **_common(folder, pre, compared)}


def write_half(plain: Path, folder: Path, reference: nn.Module, pre: Preprocess, images: UInt8, module: str) -> dict[str, Any]:
    """Fill `folder` with the FP16 variant alone (a teacher: its norms stay FP32). Raises what `write_int8` raises."""
    facts = write_fp16(plain, folder / "model.fp16.onnx", images)
    require_clean(read_onnx(folder / "model.fp16.onnx"), STRONG_TARGET, quantised=False)
    compared = {"model.fp16.onnx": compare(folder / "model.fp16.onnx", reference, pre, images[:CHECKED])}
    write_plans(folder, "fp16", pre, module)
    return {**facts, **_common(folder, pre, compared)}


def _common(folder: Path, pre: Preprocess, compared: dict[str, Any]) -> dict[str, Any]:
    """Worker and recipe, and what a manifest says of every TensorRT artifact."""
    worker = files("octc.runtimes.tensorrt") / "worker.py"  # a file that travels, not an import
    write_bytes(folder / WORKER, worker.read_bytes())
    write_bytes(folder / RECIPE, recipe_text(pre, folder, sorted(p.name for p in folder.glob("build-*.json"))).encode())
    reason = {"value": None, "reason": "no engine was built on this machine"}
    write_json(folder / SIDECAR, {"schema": SIDECAR_SCHEMA, "engine": None, "measured": reason})
    return {"variants": compared, "engine": None, "engine_recipe": RECIPE, "worker": WORKER}


def write_plans(folder: Path, precision: str, pre: Preprocess, module: str, golden: str = GOLDEN, **more: Any) -> None:
    """build-<precision>.json: the plan for weakly and the one for strongly typed builds, or the one for TensorRT for RTX."""
    names = {name for (_, kind), name in ONNX_FILES.items() if kind == precision}
    sums = {name: sha256_file(folder / name) for name in names}
    macs = convolution_macs(read_onnx(folder / sorted(names)[0]))
    rule = {"file": golden, **LIMITS[precision]}
    made = PlannedFiles(sums, [pre.channels, pre.size, pre.size], macs, golden=rule, **more)
    plans = {STRONG: make_plan(precision, STRONG, made, RTX)} if module == RTX else both_typings(precision, made)
    write_bytes(folder / f"build-{precision}.json", plans_text(plans).encode())


def convolution_macs(proto: onnx.ModelProto) -> dict[str, int]:
    """Multiply-accumulates of every convolution for one image, by node."""
    graph = graphs_of(proto)[0]
    found = {}
    for node in graph.of("Conv"):
        weight, out = graph.shapes.get(node.input[1], ()), graph.shapes.get(node.output[0], ())
        found[str(node.name)] = math.prod(side or 0 for side in (*weight, *out[2:]))
    return found


def narrow(module: fx.GraphModule) -> frozenset[str]:
    """Convolutions with so few channels that TensorRT has no INT8 kernels for them (the rule of ModelOpt 0.47): float."""
    known = convolutions(module)
    first = next((str(n.target) for n in module.graph.nodes if n.op == "call_module" and str(n.target) in known), "")
    return frozenset(name for name, one in known.items() if not _fits_int8(one.conv, first=name == first))


def _fits_int8(conv: nn.Conv2d, *, first: bool) -> bool:
    inputs = conv.in_channels // conv.groups
    return wide_enough(conv.out_channels, inputs, conv.kernel_size, grouped=conv.groups > 1, first=first)


def promises(proto: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Names of the convolutions that stand between two DequantizeLinear, and of the depthwise ones among them."""
    made = {out: node.op_type for node in proto.graph.node for out in node.output}
    convs = [node for node in proto.graph.node if node.op_type == "Conv"]
    promised = [n for n in convs if [made.get(name) for name in n.input[:2]] == ["DequantizeLinear"] * 2]
    grouped = [n.name for n in promised if any(a.name == "group" and a.i > 1 for a in n.attribute)]
    return [node.name for node in promised], grouped


def compare(path: Path, reference: nn.Module, pre: Preprocess, images: UInt8) -> dict[str, float]:
    """A file against its torch reference: onnxruntime with graph optimisation off, where Q/DQ is what TensorRT defines.

    Returns: max_abs, delta_over_s (max_abs over the mean range of the logits), cosine (the lowest), agreement, images.
    """
    session = reference_session(path)
    ours = session.run([OUTPUT], {INPUT: images})[0].astype(np.float64)
    theirs = logits_of(reference, images, pre, "cpu", batch=len(images)).numpy().astype(np.float64)
    spread = float(np.ptp(theirs, axis=1).mean()) or 1.0
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    largest = float(np.abs(ours - theirs).max())
    return {
        "max_abs": largest,
        "delta_over_s": largest / spread,
        "images": len(images),
        "cosine": float(((ours * theirs).sum(1) / np.maximum(norms, 1e-30)).min()),
        "agreement": float((ours.argmax(1) == theirs.argmax(1)).mean()),
    }


def require_agreement(compared: dict[str, dict[str, float]]) -> None:
    for name, found in compared.items():
        limit = sum(AGREE[VARIANTS[name]])
        if not found["delta_over_s"] <= limit:  # NaN is refused too
            text = (
                f"{name} computes something else than its reference: delta over s {found['delta_over_s']:.3g} (limit {limit:g})"
            )
            raise OctcError("OCT-E407", text, hint="octc export --target onnx --fp32; report the model", place=name)
