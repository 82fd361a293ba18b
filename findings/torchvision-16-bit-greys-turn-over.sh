#!/usr/bin/env bash
# torchvision 0.29.1: of 16-bit greys a bicubic resize makes white specks, a gamma makes white black, and ToTensor makes half of them negative.
#
# Guess, written down before the run: a transform that takes a uint16 tensor without an error gives what it gives for the same greys as floats, up to
# rounding, cut to 0..65535 as uint8 is cut to 0..255; and ToTensor of a 16-bit grey PNG holds the numbers of the file.
#
# Seen on 2026-12-01: v2's resize with BICUBIC does not cut what overshoots: -300 is 65,236, a white speck in the dark vitreous beside a bright layer (an
# edge of 0 and 40,000 brings a row of them). adjust_gamma, and ToDtype(torch.uint16, scale=True) of floats, turn 1.0 into 0: the
# factor 65,536 - 0.001 is 65,536 in float32. v1's ToTensor of an "I;16" image is int16, so that every grey above 32,767 is
# negative (and nothing is scaled). No error, no warning; BILINEAR, rotations, brightness, contrast and ToDtype(torch.float32, scale=True) are
# right. BICUBIC is what most timm networks ask for. Make floats of 16-bit scans first: v2.ToDtype(torch.float32, scale=True).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 pillow==13.0.0
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
import numpy as np
import torch
from PIL import Image
from torchvision.io import decode_image
from torchvision.transforms import InterpolationMode, ToTensor
from torchvision.transforms.v2 import functional as F

scan = np.zeros((448, 448), np.uint16)
scan[100:200] = 40000
scan[300:310] = 65535
Image.fromarray(scan).save("scan.png")
read = decode_image("scan.png")
assert read.dtype == torch.uint16 and np.array_equal(read[0].numpy(), scan)


def resized(image, how):
    return F.resize(image, [224, 224], interpolation=how, antialias=True)


for how in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
    right = resized(read.to(torch.float32), how).clamp(0, 65535)
    off = (resized(read, how).to(torch.float32) - right).abs()
    print(f"{how.name}: {int((off > 1).sum())} pixels are off, by up to {off.max():.0f}")
    assert (off.max() <= 1) if how is InterpolationMode.BILINEAR else (off.max() > 60000), "the behaviour changed"

bytes_ = (read.to(torch.int32) // 257).to(torch.uint8)
off = (resized(bytes_, InterpolationMode.BICUBIC).float() - resized(bytes_.float(), InterpolationMode.BICUBIC).clamp(0, 255)).abs()
assert off.max() <= 1  # 8 bits are cut

greys = torch.tensor([0, 1000, 40000, 65534, 65535], dtype=torch.int32).to(torch.uint16)[None, None]
floats = F.to_dtype(greys, torch.float32, scale=True)
gamma, back = F.adjust_gamma(greys, 0.5).flatten().tolist(), F.to_dtype(floats, torch.uint16, scale=True).flatten().tolist()
print("gamma 0.5", gamma, "floats and back", back)
assert gamma[2] == 51200 and back[1:3] == [1000, 40000]
assert gamma[-1] == back[-1] == 0, "the behaviour changed"
assert F.adjust_gamma((greys.to(torch.int32) // 257).to(torch.uint8), 0.5).flatten()[-1] == 255

tensor = ToTensor()(Image.open("scan.png"))
print("ToTensor", tensor.dtype, tensor.unique().tolist())
assert tensor.dtype == torch.int16 and tensor.unique().tolist() == [40000 - 65536, -1, 0], "the behaviour changed"
PY
