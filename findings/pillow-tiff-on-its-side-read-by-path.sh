#!/usr/bin/env bash
# Pillow 13.0.0: a TIFF that lies on its side is another picture when it is opened by its path.
#
# Guess, written down before the run: Image.open(path) and Image.open(file) give the same picture, turned by the Orientation of the
# TIFF as Pillow does since 6.2, and so does the same picture with compression.
#
# Seen on 2026-12-01: with Orientation 5 to 8, without compression, in one strip, and of grey of 8 or 16 bits, the picture that is
# opened by its path has its rows broken at the wrong places and the sides of before the turn. Opened from a file object, from
# bytes, or with LZW, it is right. The file is mapped into memory with the sides that the turned picture will have, and turned
# afterwards; no warning. The size that is stated before loading is that of the turned picture, the loaded one has the other.
# A loader that gives Pillow paths trains on broken B-scans, one that opens the files itself does not: Image.open(open(path, "rb")).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps numpy==2.4.6 pillow==13.0.0 tifffile==2026.3.3
cd "$dir"
HOME="$dir" venv/bin/python -W error - <<'PY'
import numpy as np
import tifffile
from PIL import Image

for kind in ("uint8", "uint16"):
    scan = np.arange(4 * 6, dtype=kind).reshape(4, 6)
    turned = {1: scan, 3: scan[::-1, ::-1], 5: scan.T, 6: np.rot90(scan, -1), 7: scan.T[::-1, ::-1], 8: np.rot90(scan)}
    for orientation, right in turned.items():
        tifffile.imwrite("a.tif", scan, photometric="minisblack", metadata=None, extratags=[(274, 3, 1, orientation, True)])
        with Image.open("a.tif") as by_path:
            stated = by_path.size
            by_path.load()
            one = np.asarray(by_path)
        with open("a.tif", "rb") as file, Image.open(file) as opened:
            two = np.asarray(opened)
        print(kind, "orientation", orientation, "size stated", stated, "by path", by_path.size, "from the file", opened.size)
        assert np.array_equal(two, right)
        assert stated == opened.size
        assert np.array_equal(one, right) == (orientation < 5), "the behaviour changed"
        if orientation == 6:
            print(one.tolist(), "instead of", right.tolist(), sep="\n")
    # the file itself is whole: with compression the same orientation is read rightly by path
    tags = Image.Exif()
    tags[274] = 6
    Image.fromarray(scan).save("c.tif", compression="tiff_lzw", exif=tags)
    with Image.open("c.tif") as compressed:
        assert np.array_equal(np.asarray(compressed), turned[6])
PY
