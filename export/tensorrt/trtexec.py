"""How an engine is built from these files on the device that will run it. Text only: nothing here needs TensorRT."""

from __future__ import annotations

import shlex
from pathlib import Path

from octc.core.files import read_json
from octc.export.onnx.float import INPUT
from octc.imaging.preprocess import Preprocess
from octc.schemas.tensorrt_plan import STRONG, WEAK, plan_from_json, trtexec_argv

RECIPE = "BUILD.txt"
RANGES = ((WEAK, (10, 3), "10.0 to 10.11 (JetPack 6)"), (STRONG, (10, 13), "10.12 to 10.16"), (STRONG, (11, 4), "11 and later"))


def recipe_text(pre: Preprocess, folder: Path, names: list[str]) -> str:
    """What to type, for every plan file of `folder`: octc, the worker alone, trtexec by version."""
    text = [
        "No engine was built where this folder was written. An engine runs only on the kind of GPU and the TensorRT",
        "version that built it, so build it on the device. Any one of these does:",
        "",
        "With octc:       octc export --from-artifact . --target tensorrt",
        *(f"Without octc:    python3 trt_worker.py build {name}     (the Python that has TensorRT)" for name in names),
        "With trtexec:",
    ]
    for name in names:
        plans = {key: plan_from_json(value) for key, value in read_json(folder / name).items()}
        for typing, version, words in RANGES:
            if typing in plans and plans[typing].module == "tensorrt":
                text += ["", f"  {plans[typing].precision.upper()}, TensorRT {words}:"]
                text += [f"    {shlex.join(trtexec_argv(plans[typing], version))}"]
    text += [
        "",
        f"Input: {INPUT}, uint8 [N, {pre.channels}, {pre.size}, {pre.size}], resized and not normalised.",
        "Output: logits, float32 [N, classes]. Build INT8 and FP16, time both, keep the faster one that agrees with golden.npz",
        "(trt_worker.py verify and bench).",
    ]
    return "\n".join(text) + "\n"
