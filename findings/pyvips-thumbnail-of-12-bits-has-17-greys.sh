#!/usr/bin/env bash
# pyvips 3.2.0 (libvips 8.18.7): a thumbnail of a 16-bit B-scan has 8 bits, and one of 12 bits in 16 has 17 greys left.
#
# Guess, written down before the run: thumbnail keeps the 16 bits of a grey PNG, as resize of the same library does.
#
# Seen on 2026-12-02: thumbnail() of a 16-bit grey PNG is uchar, 65,535 becomes 255, and a scan of 12 bits stored in 16 (0 to 4,095, as OCT devices
# write them) goes from 0 to 16: nearly black, and no scaling brings the rest back. resize() keeps ushort and 4,095. thumbnail is the call that is
# advised for speed, and the one that data loaders take; no option keeps the depth. The same scan as 8-bit PNG is right. No warning. A network
# that scales each scan to its own range so sees 17 steps where the training saw 4,096. Use resize, or stretch to the full range before.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 pillow==13.0.0 pyvips==3.2.0 pyvips-binary==8.18.7
cd "$dir"
HOME="$dir" venv/bin/python -W error - <<'PY'
import numpy as np
import pyvips
from PIL import Image

ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
Image.fromarray(ramp).save("16.png")
Image.fromarray(ramp >> 4).save("12.png")
Image.fromarray((ramp >> 8).astype(np.uint8)).save("8.png")


def greys(image):
    pixels = image.numpy()
    return image.format, int(pixels.min()), int(pixels.max()), len(np.unique(pixels))


for name in ("8.png", "12.png", "16.png"):
    whole = pyvips.Image.new_from_file(name)
    small, thumbnail = greys(whole.resize(0.5)), greys(pyvips.Image.thumbnail(name, 32))
    print(name, "resize", small, "thumbnail", thumbnail)
    if name == "8.png":
        assert small[0] == thumbnail[0] == "uchar" and small[2] == thumbnail[2]
        continue
    assert small[0] == "ushort" and small[3] > 1000
    assert thumbnail[0] == "uchar", "the behaviour changed"
    if name == "12.png":
        assert thumbnail[2] == 16 and thumbnail[3] == 17, "the behaviour changed"
PY
