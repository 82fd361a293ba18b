"""OpenVINO IR from our own ONNX files: one truth for both engines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.optional import need, openvino_core

MAIN = "model.xml"


def write_openvino(source: Path, folder: Path, *, half: bool) -> dict[str, Any]:
    """Read an ONNX file and write model.xml and model.bin; `half` stores float weights as FP16 (executed in FP32 on a CPU).

    The graph is simplified as OpenVINO's own converter does it (that one reports its use, so it is not called): constants are
    folded, Q/DQ of activations becomes FakeQuantize. INT8 codes stay INT8 in the .bin. The batch axis stays dynamic: the
    runtime reshapes to a static one.

    Raises:
        OctcError: E407 when OpenVINO cannot read the file.
    """
    openvino = need("openvino")
    from openvino._offline_transformations import apply_moc_transformations

    try:
        model = openvino_core().read_model(str(source))
        apply_moc_transformations(model, True)
        openvino.save_model(model, str(folder / MAIN), compress_to_fp16=half)
    except RuntimeError as error:
        lines = str(error).splitlines()
        text = f"OpenVINO cannot take the graph: {lines[-1][:300] if lines else 'no message'}"
        raise OctcError("OCT-E407", text, hint="octc export --target onnx") from error
    main = folder / MAIN
    main.write_bytes(re.sub(rb"\n\t+", b"\n", main.read_bytes()))  # the indentation alone is 140 kB of EfficientNet-B2's file
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("model.*"))}
    return {"bytes": sum(sizes.values()), "file_bytes": sizes, "writer": f"openvino {openvino.__version__.split('-')[0]}"}
