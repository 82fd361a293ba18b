"""OpenVINO IR from our own ONNX files: one truth for both engines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from octc.core.errors import OctcError, first_line, shorten
from octc.core.optional import need, openvino_core
from octc.export.onnx.ranges import HALF_MAX

MAIN = "model.xml"
EXTREMES = ("ReduceMax", "ReduceMin")
STREAM = "iostream error"  # of a file; OpenVINO removes what it could not write whole, so that the disk seems to have room


def write_openvino(source: Path, folder: Path, *, half: bool) -> dict[str, Any]:
    """Read an ONNX file and write model.xml and model.bin; `half` stores float weights as FP16 (executed in FP32 on a CPU).

    The graph is simplified as OpenVINO's own converter does it (that one reports its use, so it is not called): constants are
    folded, Q/DQ of activations becomes FakeQuantize. INT8 codes stay INT8 in the .bin. The batch axis stays dynamic: the
    runtime reshapes to a static one. In a file with quantisers ReduceMax and ReduceMin stay operators of their own.

    Raises:
        OctcError: E407 when OpenVINO cannot read the file, E904 when its files cannot be written, E408 with the weights that
            `half` would cut.
    """
    openvino = need("openvino")
    from openvino._offline_transformations import apply_moc_transformations

    try:
        model = openvino_core().read_model(str(source))
        apply_moc_transformations(model, True)
        _part_extremes(model)
        openvino.save_model(model, str(folder / MAIN), compress_to_fp16=half)
    except RuntimeError as error:
        if STREAM in str(error):
            text = "OpenVINO could not write the files of the model: no room on the disk, or more than this process may write"
            hint = "free some space, or give another disk: --run-dir DIR, TMPDIR=DIR; ulimit -f unlimited"
            raise OctcError("OCT-E904", text, hint=hint, place=str(folder), why=first_line(error)) from error
        lines = str(error).splitlines()
        text = f"OpenVINO cannot take the graph: {lines[-1][:300] if lines else 'no message'}"
        raise OctcError("OCT-E407", text, hint="octc export --target onnx") from error
    main = folder / MAIN
    if half and (wide := beyond_half(model)) and _cut(openvino_core().read_model(str(main))):
        text = f"FP16 range exceeded in {len(wide)} constants: {shorten(wide, 10)}"
        hint = "octc export --fp32 (these weights must stay FP32)"
        raise OctcError(
            "OCT-E408", text, hint=hint, why=f"FP16 ends at {HALF_MAX:g}, and OpenVINO writes that for what is beyond"
        )
    main.write_bytes(re.sub(rb"\n\t+", b"\n", main.read_bytes()))  # the indentation alone is 140 kB of EfficientNet-B2's file
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("model.*"))}
    return {"bytes": sum(sizes.values()), "file_bytes": sizes, "writer": f"openvino {openvino.__version__.split('-')[0]}"}


def _part_extremes(model: Any) -> None:
    """Let each ReduceMax and ReduceMin be read twice, by a maximum of itself, where anything is quantised.

    OpenVINO 2026.4.1 on x86 fuses one with the quantiser behind it (and with what stands in between, a Concat too) and then
    compares values that are rounded to whole numbers. What has two readers is not fused.
    """
    from openvino import opset8

    found = model.get_ordered_ops()
    if not any(node.get_type_name() == "FakeQuantize" for node in found):
        return
    for node in found:
        if node.get_type_name() in EXTREMES:
            readers = [one for one in node.output(0).get_target_inputs() if one.get_node().get_type_name() != "Result"]
            same = opset8.maximum(node, node).output(0)
            for reader in readers:
                reader.replace_source_output(same)


def beyond_half(model: Any) -> list[str]:
    """Names of the float constants with a value that FP16 does not hold (NaN too)."""
    return [node.get_friendly_name() for node in _floats(model, "f32") if not np.abs(node.data).max(initial=0) <= HALF_MAX]


def _cut(model: Any) -> bool:
    """Whether a constant ends where FP16 does. (OpenVINO leaves one in FP32 of which most does not fit.)"""
    return any(np.abs(node.data).max(initial=0) >= HALF_MAX for node in _floats(model, "f16"))


def _floats(model: Any, kind: str) -> list[Any]:
    nodes = (node for node in model.get_ops() if node.get_type_name() == "Constant")
    return [node for node in nodes if node.get_element_type().get_type_name() == kind]
