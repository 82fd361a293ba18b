#!/usr/bin/env bash
# torchao 0.18.0: quantize_ with INT8 weights changes nothing in a convolutional network, and says nothing.
#
# Guess, written down before the run: quantize_(network, Int8WeightOnlyConfig()) makes every network about four times smaller, or says what it
# passes over; the small student stays the smaller one.
#
# Seen on 2026-12-01: EfficientNet-B2 and EfficientNet-Lite0 keep their size to within 0.1 % (their classifier alone is changed), and every
# convolution is float32, without a warning or an error; ConvNeXt-Tiny, whose blocks have linear layers, becomes 3.3 times smaller. So a teacher in
# "INT8" is about as large as its student in "INT8" (32.3 and 29.8 MiB with four classes; 106.2 and 29.8 before), and whoever compares
# the two compares INT8 with FP32. What it takes by default is torch.nn.Linear. Count the data types of what comes back.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.14.1 torchvision==0.29.1 timm==1.0.31 torchao==0.18.0
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import io
import warnings

import timm
import torch
from torchao.quantization import Int8WeightOnlyConfig, quantize_


def size(network: torch.nn.Module) -> float:
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return len(file.getvalue()) / 2**20


before, after, said = {}, {}, []
for name in ("efficientnet_b2", "tf_efficientnet_lite0", "convnext_tiny"):
    network = timm.create_model(name, num_classes=4).eval()
    before[name] = size(network)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantize_(network, Int8WeightOnlyConfig())
    said += [str(one.message) for one in caught if "conv" in str(one.message).lower()]
    after[name] = size(network)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions and all(m.weight.dtype == torch.float32 and type(m.weight) is torch.nn.Parameter for m in convolutions)
    print(f"{name}: {before[name]:.1f} MiB, then {after[name]:.1f} MiB, {before[name] / after[name]:.3f} times smaller")
print("said of convolutions:", said or "nothing")
assert not said, "the behaviour changed"
assert all(before[name] / after[name] < 1.01 for name in ("efficientnet_b2", "tf_efficientnet_lite0")), "the behaviour changed"
assert before["convnext_tiny"] / after["convnext_tiny"] > 3, "the behaviour changed"
PY
