#!/usr/bin/env bash
# torchinfo 1.8.0: of the multiplications of a ConvNeXt it counts 7 %, of a ViT 3 %, so that they look smaller than an EfficientNet-B2.
#
# Guess, written down before the run: total_mult_adds of summary() is the number of multiplications and additions of torch's own counter
# (FlopCounterMode, half of its FLOPs) for the common backbones of timm, within a few percent.
#
# Seen on 2026-12-01 at 224 px: EfficientNet-B2 658 million by both, ResNet-18 1,814 by both; ConvNeXt-Tiny 322 by torchinfo and 4,455 by torch, ViT-Tiny 34
# and 1,075. A Linear counts as its weights once an image, however many pixels or tokens go through it (attention is not counted at all). No
# warning, and the number of parameters is right. So of a distilled EfficientNet-B2 it is said that it takes twice the
# work of its teacher ConvNeXt-Tiny, which takes 6.8 times as much as B2. Count with torch.utils.flop_counter.FlopCounterMode.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.14.1 torchvision==0.29.1 timm==1.0.31 torchinfo==1.8.0
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchinfo import summary

torch.set_num_threads(1)
image, share = torch.zeros(1, 3, 224, 224), {}
for name in ("efficientnet_b2", "resnet18", "convnext_tiny", "vit_tiny_patch16_224"):
    network = timm.create_model(name, num_classes=4).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(image)
    right, found = counter.get_total_flops() / 2e6, summary(network, input_data=image, verbose=0)
    assert found.total_params == sum(p.numel() for p in network.parameters())
    share[name] = found.total_mult_adds / 1e6 / right
    print(f"{name}: torchinfo {found.total_mult_adds / 1e6:.0f} million, torch {right:.0f} million")
assert all(abs(share[name] - 1) < 0.01 for name in ("efficientnet_b2", "resnet18"))
assert share["convnext_tiny"] < 0.08 and share["vit_tiny_patch16_224"] < 0.04, "the behaviour changed"
PY
