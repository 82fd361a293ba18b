#!/usr/bin/env bash
# scikit-image 0.26.0: a white mark in one corner takes the contrast of equalize_adapthist away from the whole B-scan.
#
# Guess, written down before the run: CLAHE is local, so that a burned-in mark (a side, a scale bar, a dead pixel) changes the tiles beside it and no
# others, as in OpenCV.
#
# Seen on 2026-12-01: a dim 8-bit scan (greys to 60) has a standard deviation of 0.090 far from the mark without it and of 0.041 with it; one of 12 bits in
# 16 (greys to 4,095, the mark 65,535) 0.159 and 0.011, and 60 grey levels are left of 3,936. The smallest and largest grey of the whole
# picture are taken for the range of the 256 bins before any tile is cut, so that all tissue falls into a few of them, and the result is
# stretched by its extremes once more. OpenCV's CLAHE gives the same pixels there with and without the mark. No warning. A device that
# writes a white letter into a corner so gives the network other pictures than one that does not. Cut to a percentile first.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 scikit-image==0.26.0 opencv-python-headless==5.0.0.93
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
import cv2
import numpy as np
from skimage.exposure import equalize_adapthist

layer = np.exp(-(((np.arange(256)[:, None] - 120) / 30) ** 2))
speckled = layer * np.random.default_rng(0).gamma(4, 0.25, (256, 256))
far = np.s_[128:, 128:]
found = {}
for top, white, dtype in ((60, 255, np.uint8), (4095, 65535, np.uint16)):
    scan = (speckled / speckled.max() * top).astype(dtype)
    marked = scan.copy()
    marked[2:10, 2:40] = white
    without, with_mark = equalize_adapthist(scan)[far], equalize_adapthist(marked)[far]
    found[top] = without.std(), with_mark.std()
    print(f"greys to {top}: deviation {without.std():.3f}, with a mark {with_mark.std():.3f}; levels {len(np.unique(without))}, {len(np.unique(with_mark))}")
    if dtype is np.uint8:
        clahe = cv2.createCLAHE(2.0, (8, 8))
        assert np.array_equal(clahe.apply(scan)[far], clahe.apply(marked)[far])
assert found[60][1] < 0.5 * found[60][0] and found[4095][1] < 0.1 * found[4095][0], "the behaviour changed"
PY
