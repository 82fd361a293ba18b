#!/usr/bin/env bash
# Pillow 13.0.0: compressed big-endian TIFF of signed or float samples is read with its bytes swapped.
#
# Guess, written down before the run (the project had already seen it miss elsewhere): a big-endian grey TIFF gives the
# same numbers with and without compression.
#
# Seen on 2026-11-29: int16 1, 2, 3, 4 comes out as 256, 512, 768, 1024 when the file is zlib-compressed, int32 as
# 16777216, ..., float32 as denormal noise; uncompressed the same arrays are right, uint16 is right either way, and so
# is every little-endian file. No warning. tifffile reads all of them right. (libtiff hands out decoded samples in the
# order of the machine, and they are taken for big-endian ones.) Exports of older ImageJ and Java tools are big-endian:
# read such files with tifffile, or refuse signed and float ones in Pillow.
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

values = np.array([[1, 2], [3, 4]])
for kind in ("u2", "i2", "i4", "f4"):
    for order in "<>":
        for compression in (None, "zlib"):
            array = values.astype(order + kind)
            stored = io.BytesIO()
            tifffile.imwrite(stored, array, byteorder=order, compression=compression)
            assert np.array_equal(tifffile.imread(io.BytesIO(stored.getvalue())), values)
            seen = np.asarray(Image.open(io.BytesIO(stored.getvalue())))
            print(order + kind, compression, seen.ravel().tolist())
            swapped = order == ">" and compression == "zlib" and kind != "u2"
            expected = array.view("<" + kind) if swapped else values
            assert np.array_equal(seen.astype("<" + kind), expected.astype("<" + kind)), "the behaviour changed"
EOF
