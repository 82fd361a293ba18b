#!/usr/bin/env bash
# Pillow 13.0.0: a TIFF whose zero means white is inverted at 8 bits and not at 16.
#
# Guess, written down before the run (the project had already seen it miss elsewhere): PhotometricInterpretation
# MinIsWhite is treated alike at both depths: either Pillow inverts both, or it leaves both to the reader.
#
# Seen on 2026-11-29: 8 bit 0, 100, 200, 255 becomes 255, 155, 55, 0 (mode L); 16 bit stays 0, 100, 200, 255 (mode
# I;16), though 0 is white there too. No warning, and nothing of it in the mode. A reader that trusts Pillow shows the
# 16-bit scan as its negative: look at tag 262 and invert 16-bit images yourself.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pillow==13.0.0 tifffile==2026.3.3
cd "$dir"
HOME="$dir" venv/bin/python - <<'EOF'
import io
import numpy as np
import tifffile
from PIL import Image

values = np.array([[0, 100], [200, 255]])
for dtype in (np.uint8, np.uint16):
    for photometric in ("minisblack", "miniswhite"):
        stored = io.BytesIO()
        tifffile.imwrite(stored, values.astype(dtype), photometric=photometric)
        image = Image.open(io.BytesIO(stored.getvalue()))
        assert image.tag_v2[262] == (1 if photometric == "minisblack" else 0)
        seen = np.asarray(image)
        print(dtype.__name__, photometric, image.mode, seen.ravel().tolist())
        inverted = photometric == "miniswhite" and dtype is np.uint8
        assert np.array_equal(seen, 255 - values if inverted else values), "the behaviour changed"
EOF
