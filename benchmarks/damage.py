"""A copy of an OpenVINO artifact in which the weights of one layer are scaled, and whose checksums are right all the same.

    python benchmarks/damage.py ARTIFACT COPY

What a damaged download does is found by a checksum. This is the other kind: a converter's mistake, a wrong scale, a file
that was edited. Every checksum agrees, every engine loads it, and the answers are wrong. `octc verify COPY` shall refuse it
and name the layer. The artifact itself is not touched.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np

from octc.core.optional import openvino_core
from octc.store.artifacts import read_artifact, write_manifest

LAYERS = {"Convolution", "GroupConvolution", "MatMul"}
FACTOR = 4.0  # as large as a wrong shift by two bits


def damage(source: Path, copy: Path) -> int:
    """Copy the artifact folder and scale the weights of its middle convolution there. Returns the number of the layer, from 1,
    among all convolutions and matrix products in the order of the graph.

    Raises:
        OctcError: what `read_artifact` raises. FileExistsError: `copy` exists. SystemExit: it is no OpenVINO artifact.
    """
    artifact = read_artifact(source)
    if artifact.target != "openvino":
        raise SystemExit(f"{source} is no OpenVINO artifact")
    import openvino

    model = openvino_core().read_model(str(source / artifact.main_file))
    layers = [node for node in model.get_ordered_ops() if node.get_type_name() in LAYERS]
    convolutions = [number for number, node in enumerate(layers, 1) if node.get_type_name() == "Convolution"]
    place = convolutions[len(convolutions) // 2]
    layer = layers[place - 1]
    weights = layer.input_value(1)
    factor = openvino.op.Constant(weights.get_element_type(), openvino.Shape([]), np.array([FACTOR]))
    layer.input(1).replace_source_output(openvino.opset8.multiply(weights, factor).output(0))
    shutil.copytree(source, copy)
    (copy / "verify.json").unlink(missing_ok=True)  # what was found of the sound file is not about this one
    openvino.save_model(model, copy / artifact.main_file, compress_to_fp16=False)
    write_manifest(copy, artifact)
    return place


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("copy", type=Path)
    chosen = parser.parse_args()
    layer = damage(chosen.artifact, chosen.copy)
    told = f"the weights of layer {layer} are {FACTOR:g} times as large in {chosen.copy}; its checksums agree"
    sys.stdout.write(f"damaged on purpose: {told}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
