#!/usr/bin/env bash
# Pillow 13.0.0: a 16-bit grey image that is rotated or sheared with BILINEAR or BICUBIC becomes noise of its single bytes.
#
# Guess, written down before the run: rotate() and transform() of a mode "I;16" image with BILINEAR or BICUBIC give what they give for the
# same greys in mode "I" or "F", up to rounding, or refuse it as GaussianBlur, ImageOps and ImageEnhance refuse this mode.
#
# Seen on 2026-12-01: a row of 8000, 9000, 10000, ... comes out as 64, 31, 40, 35, 16, 39: low bytes and high bytes in turn, taken for greys of 8 bits
# (8000 is 31 times 256 and 64). So it is also for a transform that moves nothing. rotate, AFFINE, PERSPECTIVE and QUAD
# do it, and so torchvision's RandomRotation, RandomAffine and RandomPerspective with BILINEAR on such images. NEAREST is right, and resize is
# right with every filter. No error, no warning: a training on 16-bit B-scans sees noise wherever augmentation turns a scan a little. Use
# image.convert("I") or convert("F") first.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps numpy==2.4.6 pillow==13.0.0
cd "$dir"
HOME="$dir" venv/bin/python -W error - <<'PY'
import numpy as np
from PIL import Image

scan = (np.add.outer(np.arange(64), np.arange(64)) * 400 + 8000).astype(np.uint16)
small, wide = Image.fromarray(scan), Image.fromarray(scan.astype(np.int32))
assert (small.mode, wide.mode) == ("I;16", "I")
middle = np.s_[16:48, 16:48]  # beside it rotation fills with black

cases = {
    "rotate": lambda image, how: image.rotate(10, how),
    "nothing moved": lambda image, how: image.transform(image.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, 0), how),
    "sheared": lambda image, how: image.transform(image.size, Image.Transform.AFFINE, (1, 0.1, -3, 0, 1, 0), how),
    "perspective": lambda image, how: image.transform(image.size, Image.Transform.PERSPECTIVE, (1, 0.1, -3, 0, 1, 0, 1e-3, 0), how),
    "resized": lambda image, how: image.resize((61, 61), how),
}
for name, change in cases.items():
    for how in (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
        found, right = (np.asarray(change(image, how))[middle].astype(float) for image in (small, wide))
        print(f"{name}, {how.name}: greys {found.min():.0f} to {found.max():.0f}, right {right.min():.0f} to {right.max():.0f}")
        if how is Image.Resampling.NEAREST or name == "resized":
            assert np.abs(found - right).max() < 401
        else:
            assert found.max() < 256 and right.min() > 15000, "the behaviour changed"
PY
