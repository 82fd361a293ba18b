#!/usr/bin/env bash
# deeplake 4.7.4: an image column keeps the low byte of a 16-bit scan, and takes a picture of another format that it cannot give back.
#
# Guess, written down before the run: a 16-bit PNG in an image column comes back with its 16 bits. The column of 8 bits was tried after one of 16, without a guess.
#
# Seen on 2026-12-02: in a column of Image(), which is of 8 bits unless told, grey 320 comes back as 64 and 383 as 127, as bytes of a PNG and as an array
# alike: the greys modulo 256, bands of black and white in which the layers of a retina are still seen. A column of uint16 is right. Bytes of a PNG in a
# column of JPEG, or of a TIFF in one of PNG, are taken and committed as well, and read as None: the label is there and the picture is gone. No
# exception and no warning when they are written. Give the column the dtype of the files, and read the first rows back.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 pillow==13.0.0 deeplake==4.7.4
cd "$dir"
HOME="$dir" venv/bin/python -W error - <<'PY'
import io

import deeplake
import numpy as np
from PIL import Image

scan = (np.arange(64 * 64) % 4096).astype(np.uint16).reshape(64, 64)


def coded(kind):
    file = io.BytesIO()
    Image.fromarray(scan).save(file, kind)
    assert np.array_equal(np.array(Image.open(file)), scan)
    return file.getvalue()


def stored(name, column, picture):
    data = deeplake.create(f"file://{name}")
    data.add_column("scan", column)
    data.add_column("label", "int32")
    data.append({"scan": [picture], "label": [2]})
    data.commit()
    row = deeplake.open_read_only(f"file://{name}")[0]
    assert row["label"] == 2
    return np.asarray(row["scan"])


for name, picture in {"png": coded("PNG"), "array": scan[..., None]}.items():
    seen = stored(f"eight-{name}", deeplake.types.Image(), picture).squeeze()
    right = stored(f"sixteen-{name}", deeplake.types.Image(dtype="uint16"), picture).squeeze()
    print(name, "greys", scan[0, :64:21].tolist(), scan[5, :64:21].tolist(), "read", seen[0, :64:21].tolist(), seen[5, :64:21].tolist())
    assert np.array_equal(right, scan)
    assert np.array_equal(seen, scan % 256), "the behaviour changed"
jpeg = deeplake.types.Image(sample_compression="jpeg")
png = deeplake.types.Image(dtype="uint16", sample_compression="png")
for name, column, kind in (("png-in-jpeg", jpeg, "PNG"), ("tiff-in-png", png, "TIFF")):
    seen = stored(name, column, coded(kind))
    print(name, "is read as", seen)
    assert seen.dtype == object and seen.ravel().tolist() == [None], "the behaviour changed"
PY
