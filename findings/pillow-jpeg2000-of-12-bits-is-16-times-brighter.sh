#!/usr/bin/env bash
# Pillow 13.0.0: a grey JPEG 2000 picture of 12 bits comes out 16 times as bright as it is.
#
# Guess, written down before the run: a lossless JPEG 2000 file of 12 bits holds 0 to 4095, and Pillow, imagecodecs and OpenCV give
# these numbers.
#
# Seen on 2026-11-30: imagecodecs 2026.3.6 and OpenCV 5.0.0 give them, Pillow multiplies by 16 (of 10 bits by 64), so that 4095
# becomes 65520; files of 8 and 16 bits agree. No warning, the mode is I;16 either way, and nothing in the image tells the depth.
# A threshold in grey values, a mean and deviation for the network, or a 12-bit volume of which some B-scans were read by
# another library, are off by a factor of 16. Read the precision from the header (SIZ) and shift back, as pydicom does around
# its Pillow decoder.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps numpy==2.4.6 pillow==13.0.0 imagecodecs==2026.3.6 opencv-python-headless==5.0.0.93
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import io

import cv2
import imagecodecs
import numpy as np
from PIL import Image

for bits, factor in ((8, 1), (10, 64), (12, 16), (16, 1)):
    scan = (np.arange(4096) * (2**bits - 1) // 4095).astype(np.uint8 if bits == 8 else np.uint16).reshape(64, 64)
    data = imagecodecs.jpeg2k_encode(scan, level=0, bitspersample=bits, reversible=True, codecformat="jp2")
    image = Image.open(io.BytesIO(data))
    seen = {
        "imagecodecs": imagecodecs.jpeg2k_decode(data),
        "OpenCV": cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED),
        "Pillow": np.asarray(image),
    }
    print(bits, "bits, largest", scan.max(), {name: int(read.max()) for name, read in seen.items()}, image.mode, image.info)
    assert np.array_equal(seen["imagecodecs"], scan) and np.array_equal(seen["OpenCV"], scan)
    assert np.array_equal(seen["Pillow"], scan.astype(np.int64) * factor), "the behaviour changed"
PY
