#!/usr/bin/env bash
# tifffile 2026.3.3: of a stack whose later B-scans are compressed otherwise, or were added by another program, imread gives the first ones alone.
#
# Guess, written down before the run: a stack to which pages were added, or from which pages were taken, by another program reads as the pages that are there.
#
# Seen on 2026-12-02: 5 B-scans with deflate and 3 that Pillow appended as they are, all of one size and type: Pillow has 8 pages, imread (5, 64, 96),
# without an exception, a warning or a line of the log. If the 3 are deflated as well, or none is, it is (8, 64, 96): pages are one series by their
# compression too, and imread gives the first series. A stack of tifffile whose description is kept by the program that adds 3 B-scans is read as 5 as
# well, since the first page says {"shape": [5, 64, 96]} (no word where it is uncompressed, a line of the log with deflate), and one that lost a B-scan
# as a single one. "Any B-scan with fluid" is answered for a part of the eye. Compare len(TiffFile(name).pages) with what was read.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 pillow==13.0.0 tifffile==2026.3.3 imagecodecs==2026.3.6
cd "$dir"
HOME="$dir" venv/bin/python -W error - <<'PY'
import logging

import numpy as np
import tifffile
from PIL import Image, ImageSequence

lines = []


class Keep(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())


logging.getLogger().addHandler(Keep())
volume = np.random.default_rng(0).integers(0, 4096, (8, 64, 96)).astype(np.uint16)
scans = [Image.fromarray(scan) for scan in volume]


def read(name, pages):
    with Image.open(name) as opened:
        there = np.array([np.array(page) for page in ImageSequence.Iterator(opened)])
    assert np.array_equal(there, volume[:pages])
    with tifffile.TiffFile(name) as opened:
        assert len(opened.pages) == pages
    lines.clear()
    seen = tifffile.imread(name)
    assert np.array_equal(seen.reshape(-1, 64, 96), volume[: seen.size // (64 * 96)])
    return seen.shape


for first in (None, "tiff_deflate"):
    for then in (None, "tiff_deflate"):
        scans[0].save("grown.tif", save_all=True, append_images=scans[1:5], compression=first)
        scans[5].save("grown.tif", save_all=True, append=True, append_images=scans[6:], compression=then)
        shape = read("grown.tif", 8)
        print("5 pages", first, "and 3 pages", then, "are read as", shape, "log", lines)
        assert shape == ((8, 64, 96) if first == then else (5, 64, 96)) and not lines, "the behaviour changed"

tifffile.imwrite("stack.tif", volume[:5], photometric="minisblack")
with Image.open("stack.tif") as opened:
    description = opened.tag_v2[270]
for compression in (None, "tiff_deflate"):
    scans[0].save("kept.tif", save_all=True, append_images=scans[1:], compression=compression, description=description)
    shape = read("kept.tif", 8)
    print("8 pages,", compression, "with", description, "are read as", shape, "log", lines)
    assert shape == (5, 64, 96) and len(lines) == (1 if compression else 0), "the behaviour changed"
scans[0].save("short.tif", save_all=True, append_images=scans[1:4], compression="tiff_deflate", description=description)
shape = read("short.tif", 4)
print("4 pages with", description, "are read as", shape, "log", len(lines), "line")
assert shape == (64, 96) and len(lines) == 1, "the behaviour changed"
PY
