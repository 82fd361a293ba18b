#!/usr/bin/env bash
# torch 2.14.1's ONNX exporter: in a ConvNeXt it fixes the batch inside a Gather, so that a freed batch axis loses images silently.
#
# Guess, written down before the run: a timm network exported for one image, whose batch axis is renamed to a symbol and whose
# Reshapes take their batch from the input (a common mending of such files), either answers for every image of a batch or is refused
# by the runtime.
#
# Seen on 2026-11-30: the pooled features of convnext_atto (timm 1.0.31) are exported as as_strided: Reshape to [-1], then Gather
# with places [1, 320, 1, 1]. Given two images, onnxruntime 1.32.0 takes the places of the first one and gives one row of logits,
# without an error or a warning. resnet18 exported in the same way gives two rows. Check the number of rows, or export with a
# dynamic batch.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 timm==1.0.31 numpy==2.4.6 \
    onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
cd "$dir"
HOME="$dir" ORT_DISABLE_TELEMETRY=1 venv/bin/python - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
import timm
import torch
from onnx import numpy_helper

images = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)


def rows_of(name):
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=4).eval()
    file = f"{name}.onnx"
    torch.onnx.export(network, (torch.zeros(1, 3, 64, 64),), file, dynamo=True, external_data=False, verbose=False)
    model = onnx.load(file)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name in shapes and values.size > 1 and values[0] == 1:
            values[0] = -1
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: images})[0]
    with torch.no_grad():
        wanted = network(torch.from_numpy(images)).numpy()
    kinds = [node.op_type for node in model.graph.node]
    print(name, "rows for two images:", len(found), "Gather:", kinds.count("Gather"), "first row as in torch:",
          bool(np.allclose(found[0], wanted[0], atol=1e-3)))
    return len(found)


assert rows_of("resnet18") == 2
assert rows_of("convnext_atto") == 1, "the behaviour changed"
PY
