#!/usr/bin/env bash
# ImageHash 4.3.2 with Pillow 13.0.0: the perceptual hash of a 16-bit grey scan is that of a white picture.
#
# Guess, written down before the run: phash() of a scan kept as a 16-bit PNG is that of its 8-bit copy (or differs in a few signs), and
# two different scans have hashes that are far apart.
#
# Seen on 2026-11-30: three different 16-bit scans whose greys are above 255 have one hash, distance 0 from each other and from a white
# picture, for phash, dhash, average_hash and whash; their 8-bit copies are 20 and more signs apart. The function converts to 8
# bits by convert("L"), and that cuts at 255 and does not scale. No warning. So a search for near duplicates between training and
# test finds every pair of scans, or, where some pixels are below 256, compares noise of the darkest parts and misses the 8-bit copy
# of a scan. Scale to 8 bits first.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps numpy==2.4.6 scipy==1.17.1 pillow==13.0.0 PyWavelets==1.9.0 ImageHash==4.3.2
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import imagehash
import numpy as np
from PIL import Image

rng = np.random.default_rng(1)
scans = {8: [], 16: []}
for number in range(3):
    small = Image.fromarray(rng.integers(20, 256, (12, 12), dtype=np.uint8))
    scan = np.asarray(small.resize((256, 256), Image.Resampling.BICUBIC)).clip(20, 255)
    for bits, array in ((8, scan), (16, scan.astype(np.uint16) * 257)):
        Image.fromarray(array).save(f"{number}-{bits}.png")
        scans[bits].append(Image.open(f"{number}-{bits}.png"))
white = Image.new("L", (256, 256), 255)
for function in (imagehash.phash, imagehash.dhash, imagehash.average_hash, imagehash.whash):
    low, high = ([function(image) for image in scans[bits]] for bits in (8, 16))
    apart = [[int(one - other) for one, other in ((h[0], h[1]), (h[0], h[2]), (h[1], h[2]))] for h in (low, high)]
    copies, from_white = [int(a - b) for a, b in zip(low, high)], [int(a - function(white)) for a in high]
    print(function.__name__, "apart in 8 bits", apart[0], "in 16", apart[1], "a scan and its copy", copies, "from white", from_white)
    assert min(apart[0]) > 10
    assert apart[1] == [0, 0, 0] and from_white == [0, 0, 0], "the behaviour changed"
    assert min(copies) > 10, "the behaviour changed"
PY
