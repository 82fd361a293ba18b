"""A .tflite file from one of octc's own ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from octc.core.errors import OctcError, first_line
from octc.core.files import write_bytes
from octc.core.optional import need
from octc.export.litert.flatbuffer import to_bytes
from octc.export.litert.graph import Graph
from octc.export.litert.state import HINT
from octc.export.litert.translate import translate
from octc.export.onnx.float import read_onnx
from octc.machine.host import versions
from octc.runtimes.litert_reader import OPERATORS

LITERT = "model.tflite"
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def write_litert(source: Path, folder: Path, *, int8: bool) -> dict[str, Any]:
    """Translate an ONNX file and write model.tflite: uint8 in (channels last), logits out, free batch, all data inside.

    Returns: facts (bytes, writer, operators; for INT8 how many convolutions compute in codes and in float).

    Raises:
        OctcError: E407 the graph cannot be translated, E404 no convolution of an INT8 file would compute in codes.
    """
    need("ai_edge_litert")
    try:
        graph = translate(read_onnx(source))
    except onnx.shape_inference.InferenceError as error:
        text = f"LiteRT: the shapes of the graph are not known: {first_line(error, 300)}"
        raise OctcError("OCT-E407", text, hint=HINT) from error
    data = to_bytes(graph)
    write_bytes(folder / LITERT, data)
    return {
        "bytes": len(data),
        "writer": f"octc, schema of ai-edge-litert {versions(('ai-edge-litert',)).get('ai-edge-litert')}",
        "operators": {name: count for name in OPERATORS.values() if (count := sum(op.kind == name for op in graph.operations))},
        **(_precisions(graph) if int8 else {}),
    }


def _precisions(graph: Graph) -> dict[str, int]:
    found = [op.output.type == "int8" for op in graph.operations if op.kind in CONVOLUTIONS]
    if not any(found):
        text = "no convolution would compute in INT8 with LiteRT: nothing quantises between them and their activations"
        raise OctcError("OCT-E404", text, hint="quantise with the placement that LiteRT needs: octc export --int8 --ptq octc")
    return {"int8_convolutions": sum(found), "float_convolutions": len(found) - sum(found)}
