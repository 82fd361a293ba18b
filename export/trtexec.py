"""How an engine is built from the Q/DQ file on the device that will run it. Text only: nothing here needs TensorRT."""

from __future__ import annotations

from octc.export.to_onnx import INPUT
from octc.image import Preprocess

RECIPE = "BUILD.txt"


def recipe_text(pre: Preprocess) -> str:
    """trtexec lines by version: 10.0 to 10.11 take precision flags, later ones are strongly typed and refuse them."""
    shape = f"{pre.channels}x{pre.size}x{pre.size}"
    shapes = f"--minShapes={INPUT}:1x{shape} --optShapes={INPUT}:1x{shape} --maxShapes={INPUT}:8x{shape}"
    common = f"trtexec --onnx=model.onnx --saveEngine=model.engine {shapes}"
    return (
        "No engine was built where this folder was written. An engine runs only on the kind of GPU and the TensorRT\n"
        "version that built it, so build it on the device:\n\n"
        f"TensorRT 10.0 to 10.11 (JetPack 6):\n  {common} --int8 --fp16\n\n"
        f"TensorRT 10.12 to 10.16 (what is not INT8 runs in FP32):\n  {common} --stronglyTyped\n\n"
        f"TensorRT 11 and later (what is not INT8 runs in FP32):\n  {common}\n\n"
        f"Input: {INPUT}, uint8 [N, {pre.channels}, {pre.size}, {pre.size}], resized and not normalised. "
        "Output: logits, float32 [N, classes].\n"
        "Compare with golden.npz before use.\n"
    )
